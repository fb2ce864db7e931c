/** JSON shapes of the live state. Times are RFC 3339 strings unless the name says otherwise. */

export interface State {
  now: string;
  version: string;
  /** True when any backend reports itself as simulated. */
  simulated: boolean;
  models: Model[];
  pools: Pool[];
  backends: Backend[];
  proxies: Proxy[];
  /** Versions of resources that are held back because Envoys refused them. */
  quarantined: Quarantined[];
  /** Newest first. */
  decisions: Decision[];
  totals: Totals;
  /** Newest first. */
  events: LogEvent[];
}

export interface Quarantined {
  gateway: string;
  type: string;
  resource: string;
  since: string;
}

export interface Model {
  name: string;
  demand_rps: number;
  demand_source: DemandSource;
  /** Output tokens. */
  tokens_per_second: number;
  tokens_source: DemandSource;
  /** Null where access logs tell none. */
  prompt_tokens_per_second: number | null;
  step_seconds: number;
  slo_ttft_seconds: number;
  forecast: Forecast | null;
  shares: GroupShare[];
}

/** Who counts the demand, or the tokens: the Envoys in their load reports and access logs, or the model servers in their metrics. */
export type DemandSource = 'envoys' | 'servers';

/** Name of a forecasting method, such as `seasonal_naive`; `expertName` has the words. */
export type Expert = string;

export interface Forecast {
  issued_at: string;
  expert: Expert;
  /** Weighted absolute percentage error of recent one-step medians, as a ratio. */
  error_ratio: number | null;
  /** Demand expected once a replica started now would be ready. */
  cold_start: { horizon_seconds: number; q50: number; q90: number };
  /** One entry per horizon. */
  record: HorizonRecord[];
}

/** How the forecasts of one horizon have done over the last days, as they were issued. */
export interface HorizonRecord {
  horizon_seconds: number;
  outcomes: number;
  /** Absolute error of the median per unit of demand. */
  error_ratio: number | null;
  /** That error in parts of the better baseline's: below 1 is skill. */
  skill_ratio: number | null;
  /** Share of outcomes at or below the 90 % bound. */
  coverage_q90: number | null;
  /** Share of outcomes at or below the 95 % bound. */
  coverage_q95: number | null;
  /** The baseline that carries the forecast because all experts together have lately done worse. */
  baseline: Expert | null;
  /** By weight in the median, heaviest first. */
  experts: { name: Expert; weight: number }[];
}

export interface GroupShare {
  group: string;
  locality: string;
  share: number;
  /** What Envoys sent there, and what failed there, over ten seconds; null while not every Envoy reports. */
  requests_per_second: number | null;
  errors_per_second: number | null;
  requests_in_progress: number | null;
}

export interface Pool {
  name: string;
  model: string;
  zone: string;
  region: string;
  replicas: ReplicaPlan;
  /** Null where nothing is looked for and no lease is overdue. */
  discovery: Discovery | null;
}

/** How finding the backends of a pool does. */
export interface Discovery {
  /** Backends are kept that their source no longer vouches for. */
  stale: boolean;
  /** Since when lookups give none; null when what is over is a lease. */
  stale_since: string | null;
  reason: string | null;
  /** Backends are kept for a time because more than half of those found were gone at once. */
  holding: boolean;
}

export interface ReplicaPlan {
  ready: number;
  planned: number;
  needed_now: number;
  needed_forecast: number | null;
  min: number;
  max: number;
  cold_start_seconds: number;
  reason: string;
}

/** Who brought a backend in: the file, the API or DNS. */
export type Origin = 'configured' | 'registered' | 'dns';

export type BackendState = 'ready' | 'draining' | 'waiting' | 'stale' | 'down';

export interface Backend {
  address: string;
  model: string;
  pool: string;
  zone: string;
  group: string;
  origin: Origin;
  /** Length of its lease; null for one without an end. */
  lease_seconds: number | null;
  lease_remaining_seconds: number | null;
  state: BackendState;
  queue_depth: number | null;
  running: number | null;
  kv_used: number | null;
  gpu_utilisation: number | null;
  ttft_seconds: number | null;
  inter_token_seconds: number | null;
  /** Requests that Envoys have running there; null while not every Envoy reports. */
  requests_in_progress: number | null;
  /** Until the first byte of a streamed answer, as Envoys last logged it: mean and 95th percentile. */
  first_byte_seconds: number | null;
  first_byte_p95_seconds: number | null;
  /** From the first byte of a request to the last of its answer, as Envoys logged it of late: mean. */
  response_seconds: number | null;
  /** Requests that Envoys logged the end of since it joined, and those that failed at it. */
  gateway_requests: number;
  gateway_errors: number;
  /** Whole answers among them, and the sum of the times that these took. */
  gateway_responses: number;
  gateway_responses_seconds: number;
  /** Tokens since it joined; 0 where access logs tell none. */
  gateway_prompt_tokens: number;
  gateway_output_tokens: number;
  predicted_wait_seconds: number | null;
  predicted_wait_upper_seconds: number | null;
  /** `last_observed`, `recent_service`, `service`, `corrected`, `regression` or `none`. */
  wait_source: string;
  capacity_rps: number | null;
  /** Learned rate at which it keeps the objective; null while nothing is known. */
  capacity: Capacity | null;
  /** Null before it was judged. */
  anomaly: Anomaly | null;
  /** How many times longer than usual its iterations take. */
  slowdown: number;
  /** Part of the model's requests that Envoy sends here, 0 to 1. */
  share: number;
  /** Part it would get by capacity alone. */
  capacity_share: number;
  telemetry_age_seconds: number | null;
  /** What is wrong with its telemetry, a sentence each. */
  telemetry_faults: string[];
  reason: string;
}

/** Requests/s at which half, nine in ten and one in ten windows of load keep the objective; what was not seen is null. */
export interface Capacity {
  rps: number | null;
  lower_rps: number | null;
  upper_rps: number | null;
}

export interface Anomaly {
  /** Highest of all detectors at this moment, 0 to 10. */
  score: number;
  /** Such as `slower_than_peers`, once it has lasted; null while nothing is wrong. */
  kind: string | null;
  reason: string | null;
}

export type ProxyState = 'in_sync' | 'pending' | 'nacked';

export interface Proxy {
  node_id: string;
  cluster: string;
  zone: string;
  connected_at: string;
  state: ProxyState;
  acks: number;
  nacks: number;
  resources_sent: number;
  last_nack: Nack | null;
}

export interface Nack {
  type: string;
  resources: string[];
  message: string;
  at: string;
}

export type DecisionKind = 'weights' | 'membership' | 'replicas' | 'shed' | 'canary';

export interface Decision {
  id: string;
  at: string;
  kind: DecisionKind;
  model: string;
  pool: string | null;
  summary: string;
  changes: Change[];
}

/** `from` and `to` are shares (0 to 1), or replica counts in a `replicas` decision. */
export interface Change {
  target: string;
  from: number | null;
  to: number | null;
  reason: string;
}

export interface Totals {
  telemetry_rows: number;
  /** Lost: no room was left for them, or the database could not take them. */
  telemetry_dropped: number;
  /** Wait on disk for the database. */
  telemetry_spooled: number;
  scrapes_failed: number;
  forecasts: number;
  decisions: number;
  weight_changes: number;
  webhooks_delivered: number;
  webhooks_failed: number;
}

export interface LogEvent {
  at: string;
  level: 'info' | 'warning' | 'error';
  message: string;
}
