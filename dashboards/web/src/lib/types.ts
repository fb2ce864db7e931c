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
  /** The zone whose Envoys refused it, as `region/zone`; null where all zones have the same. */
  zone: string | null;
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
  /** Zones whose Envoys have shares of their own. */
  zones: Zone[];
  /** How its requests are spread, as configured, such as `least_request`; predictions steer something with `predictive` only. */
  policy: string;
  rung: Rung;
  /** Part of its requests that Envoys are told to send by predictions; the others go by capacity. */
  predictive_ratio: number;
  /** Why predictions steer nothing although they are meant to. */
  fallback: string | null;
  fallback_since: string | null;
  /** Null on other rungs than `canary`. */
  canary: Canary | null;
  shed: Shed;
}

/** How far predictions may steer a model. */
export type Rung = 'shadow' | 'advise' | 'canary' | 'enforce';

/** How the steered part of a model's requests does beside the rest. */
export interface Canary {
  by: 'requests' | 'proxies';
  /** As configured. */
  share: number;
  /** What was found last; null before the first time. */
  reason: string | null;
  /** That predictions steer nothing any more because the steered part did worse. */
  stepped_back: { at: string; decision: string; reason: string } | null;
}

/** What is refused because more comes than can be served; parts of the requests of a lane. */
export interface Shed {
  /** As Envoys are told. */
  batch_ratio: number;
  interactive_ratio: number;
  /** As it was decided, whatever the rung. */
  advised_batch_ratio: number;
  advised_interactive_ratio: number;
  /** Requests that Envoys logged as refused, since the start. */
  batch_refused: number;
  interactive_refused: number;
  since: string | null;
  /** Null while nothing is to be refused. */
  reason: string | null;
}

/** What the Envoys of one zone are told of a model. */
export interface Zone {
  /** `region/zone`. */
  zone: string;
  envoys: number;
  /** Part of the model's requests that arrives there. */
  demand_share: number;
  /** Mean round trip to the backends that its requests go to, by the configured times. */
  rtt_ms: number;
  /** The same if they went by the shares of the fleet. */
  fleet_rtt_ms: number;
  /** Parts of the zone's requests. */
  shares: { group: string; share: number }[];
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
  /** What its share is bounded by. */
  verdict: Verdict;
  /** Null before anything is known of its engine. */
  profile: Profile | null;
  /** How many times longer than usual its iterations take. */
  slowdown: number;
  /** Part of the model's requests that Envoy sends here, 0 to 1. */
  share: number;
  /** Part it would get by capacity alone. */
  capacity_share: number;
  /** Part it would be given, on the rung `advise`. */
  advised_share: number | null;
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

/** `usual`: its share is bounded by nothing; `warming`: it has just started. */
export type Verdict = 'usual' | 'warming' | 'sick';

/** What an iteration of its engine costs at its usual speed, and what fits into it; what is unknown is null. */
export interface Profile {
  fixed_seconds: number;
  per_sequence_seconds: number;
  per_prompt_token_seconds: number;
  per_kv_token_seconds: number;
  max_sequences: number | null;
  /** What the KV cache holds. */
  kv_tokens: number | null;
  /** Most tokens of an iteration. */
  token_budget: number | null;
  /** Requests/s of the present kind with a full batch. */
  capacity_rps: number;
  /** Iterations that were observed of the backend itself. */
  observations: number;
  /** Standard error of the modelled time of an iteration, in parts of it. */
  relative_error: number;
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
  /** One that does not goes by capacity shares, whatever is predicted. */
  takes_predictions: boolean;
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
  /** The rung on which it was made; null on `enforce`. */
  rung: Rung | null;
}

/** `from` and `to` are shares or refused parts (0 to 1), or replica counts in a `replicas` decision. */
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
