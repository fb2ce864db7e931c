import type { Metric } from './answers';
import { count, duration, percent, rate } from './format';

export type Unit = 'requests' | 'ratio' | 'seconds' | 'requests/s' | 'tokens/s' | 'steps/s' | 'tokens';

export interface MetricInfo {
  id: Metric;
  name: string;
  unit: Unit;
  group: 'Requests' | 'Times' | 'Use' | 'Tokens and steps';
  /** Of a model or pool it is the sum over the backends, not their mean. */
  isTotal: boolean;
}

const metric = (id: Metric, name: string, unit: Unit, group: MetricInfo['group'], isTotal = false): MetricInfo => ({
  id,
  name,
  unit,
  group,
  isTotal,
});

/** What `GET /api/v1/history` can chart, in the order of the list to choose from. */
export const METRICS: MetricInfo[] = [
  metric('queue_depth', 'Queue depth', 'requests', 'Requests', true),
  metric('running', 'Running requests', 'requests', 'Requests', true),
  metric('arrived_per_second', 'Requests arrived', 'requests/s', 'Requests', true),
  metric('completed_per_second', 'Requests completed', 'requests/s', 'Requests', true),
  metric('preempted_per_second', 'Requests preempted', 'requests/s', 'Requests', true),
  metric('ttft_seconds', 'Time to first token, mean', 'seconds', 'Times'),
  metric('ttft_p50_seconds', 'Time to first token, median', 'seconds', 'Times'),
  metric('ttft_p95_seconds', 'Time to first token, 95th percentile', 'seconds', 'Times'),
  metric('inter_token_seconds', 'Time between tokens, mean', 'seconds', 'Times'),
  metric('inter_token_p95_seconds', 'Time between tokens, 95th percentile', 'seconds', 'Times'),
  metric('queue_wait_seconds', 'Wait in the queue, mean', 'seconds', 'Times'),
  metric('kv_used', 'KV cache in use', 'ratio', 'Use'),
  metric('gpu_utilisation', 'GPU utilisation', 'ratio', 'Use'),
  metric('prompt_tokens_per_second', 'Prompt tokens', 'tokens/s', 'Tokens and steps', true),
  metric('output_tokens_per_second', 'Output tokens', 'tokens/s', 'Tokens and steps', true),
  metric('iterations_per_second', 'Engine steps', 'steps/s', 'Tokens and steps', true),
  metric('tokens_per_iteration', 'Tokens per engine step', 'tokens', 'Tokens and steps'),
];

export function metricInfo(id: Metric): MetricInfo {
  return METRICS.find((entry) => entry.id === id) ?? METRICS[0]!;
}

/** A value with its digits; small ones keep two that count. */
export function metricValue(unit: Unit, value: number | null | undefined): string {
  if (unit === 'ratio') return percent(value, true);
  if (unit === 'seconds') return duration(value);
  const small = value !== null && value !== undefined && value > 0 && value < 0.95;
  return small ? String(Number(value.toPrecision(2))) : rate(value);
}

/** The unit beside a value; empty where the value has it. */
export function unitWord(unit: Unit): string {
  return unit === 'ratio' || unit === 'seconds' ? '' : unit;
}

/** Text of a tick on the value axis that ends at `top`. */
export function tickText(unit: Unit, value: number, top: number): string {
  if (unit === 'ratio') return percent(value);
  if (unit === 'seconds') return top <= 1 ? `${trimmed(value * 1000)} ms` : `${trimmed(value)} s`;
  return value >= 1000 ? count(value) : trimmed(value);
}

/** Without the noise of binary fractions. */
const trimmed = (value: number) => String(Number(value.toPrecision(6)));

/** The least top of an axis, so that nothing but zeros is a line at the foot. */
export function leastTop(unit: Unit): number {
  return unit === 'seconds' ? 0.01 : unit === 'requests' || unit === 'tokens' ? 1 : 0.1;
}
