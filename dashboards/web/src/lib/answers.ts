/** JSON shapes of what is asked for once: `GET /api/v1/demand` and `GET /api/v1/history`. */

export interface Demand {
  model: string;
  step_seconds: number;
  /** Horizon at which `issued` is shown. */
  lead_seconds: number;
  /** `t` is the start of the step, Unix seconds. */
  actual: { t: number; rps: number }[];
  issued: IssuedPoint[];
  latest: { issued_at: number; points: QuantilePoint[] } | null;
}

export interface IssuedPoint {
  t: number;
  issued_at: number;
  q10: number;
  q50: number;
  q90: number;
}

export interface QuantilePoint {
  t: number;
  q10: number;
  q50: number;
  q90: number;
  q95: number;
  q99: number;
}

export type Metric =
  | 'queue_depth'
  | 'running'
  | 'kv_used'
  | 'gpu_utilisation'
  | 'ttft_seconds'
  | 'ttft_p50_seconds'
  | 'ttft_p95_seconds'
  | 'inter_token_seconds'
  | 'inter_token_p95_seconds'
  | 'queue_wait_seconds'
  | 'arrived_per_second'
  | 'completed_per_second'
  | 'prompt_tokens_per_second'
  | 'output_tokens_per_second'
  | 'iterations_per_second'
  | 'preempted_per_second'
  | 'tokens_per_iteration';

/** One metric of a model, a pool or a backend over a span of time. */
export interface History {
  metric: Metric;
  /** The rows it was made from. */
  source: 'raw' | 'minutes' | 'hours';
  step_seconds: number;
  from: string;
  to: string;
  /** Oldest first; steps without a value are left out. */
  points: HistoryPoint[];
}

export interface HistoryPoint {
  /** Start of the step, Unix seconds. */
  t: number;
  value: number;
  /** Largest value of a backend within the step; gauges and quantiles only. */
  max?: number;
}
