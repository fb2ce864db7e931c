/** What tests show: a model and a backend of which everything is known and nothing is wrong. */

import type { Backend, Canary, GroupShare, Model, Pool, Profile, Proxy, Shed, State, Zone } from './types';

export const model = (over: Partial<Model> = {}): Model => ({
  name: 'chat',
  demand_rps: 5,
  demand_source: 'envoys',
  tokens_per_second: 120,
  tokens_source: 'envoys',
  prompt_tokens_per_second: 900,
  step_seconds: 10,
  slo_ttft_seconds: 2,
  forecast: null,
  shares: [],
  zones: [],
  policy: 'predictive',
  rung: 'enforce',
  predictive_ratio: 1,
  fallback: null,
  fallback_since: null,
  canary: null,
  shed: shed(),
  ...over,
});

export const canary = (over: Partial<Canary> = {}): Canary => ({
  by: 'requests',
  share: 0.1,
  reason: 'the steered requests do no worse than the others',
  stepped_back: null,
  ...over,
});

export const shed = (over: Partial<Shed> = {}): Shed => ({
  batch_ratio: 0,
  interactive_ratio: 0,
  advised_batch_ratio: 0,
  advised_interactive_ratio: 0,
  batch_refused: 0,
  interactive_refused: 0,
  since: null,
  reason: null,
  ...over,
});

export const zone = (over: Partial<Zone> = {}): Zone => ({
  zone: 'eu-west/a',
  envoys: 2,
  demand_share: 0.75,
  rtt_ms: 2,
  fleet_rtt_ms: 22,
  shares: [{ group: 'h100', share: 1 }],
  ...over,
});

export const profile = (over: Partial<Profile> = {}): Profile => ({
  fixed_seconds: 0.0112,
  per_sequence_seconds: 0.00009,
  per_prompt_token_seconds: 0.000085,
  per_kv_token_seconds: 0.0000001,
  max_sequences: 256,
  kv_tokens: 480_000,
  token_budget: 8192,
  capacity_rps: 7.2,
  observations: 12_400,
  relative_error: 0.034,
  ...over,
});

export const proxy = (over: Partial<Proxy> = {}): Proxy => ({
  node_id: 'envoy-a',
  cluster: 'edge',
  zone: 'zone-a',
  connected_at: '2026-11-21T09:00:00Z',
  state: 'in_sync',
  acks: 12,
  nacks: 0,
  resources_sent: 40,
  takes_predictions: true,
  last_nack: null,
  ...over,
});

export const groupShare = (over: Partial<GroupShare> = {}): GroupShare => ({
  group: 'h100',
  locality: 'zone-a/h100',
  share: 0.25,
  requests_per_second: 1.2,
  errors_per_second: 0,
  requests_in_progress: 3,
  ...over,
});

export const pool = (over: Partial<Pool> = {}): Pool => ({
  name: 'h100',
  model: 'chat',
  zone: 'zone-a',
  region: '',
  replicas: { ready: 1, planned: 1, needed_now: 1, needed_forecast: 1, min: 1, max: 4, cold_start_seconds: 60, reason: '' },
  discovery: null,
  ...over,
});

export const backend = (over: Partial<Backend> = {}): Backend => ({
  address: '10.0.0.1:8000',
  model: 'chat',
  pool: 'h100',
  zone: 'zone-a',
  group: 'h100',
  origin: 'configured',
  lease_seconds: null,
  lease_remaining_seconds: null,
  state: 'ready',
  queue_depth: 1,
  running: 2,
  kv_used: 0.4,
  gpu_utilisation: 0.9,
  ttft_seconds: 0.2,
  inter_token_seconds: 0.02,
  requests_in_progress: 3,
  first_byte_seconds: 0.25,
  first_byte_p95_seconds: 0.6,
  response_seconds: 2.5,
  gateway_requests: 1200,
  gateway_errors: 0,
  gateway_responses: 1150,
  gateway_responses_seconds: 2530,
  gateway_prompt_tokens: 360_000,
  gateway_output_tokens: 54_000,
  predicted_wait_seconds: 0.3,
  predicted_wait_upper_seconds: 0.5,
  wait_source: 'regression',
  capacity_rps: 6,
  capacity: null,
  anomaly: null,
  verdict: 'usual',
  profile: null,
  slowdown: 1,
  share: 0.25,
  capacity_share: 0.25,
  advised_share: null,
  telemetry_age_seconds: 0.4,
  telemetry_faults: [],
  reason: 'wait at the level',
  ...over,
});

export const state = (over: Partial<State> = {}): State => ({
  now: '2026-11-21T10:00:00Z',
  version: '0.1.0',
  simulated: false,
  models: [model()],
  pools: [],
  backends: [],
  proxies: [],
  quarantined: [],
  decisions: [],
  totals: {
    telemetry_rows: 0,
    telemetry_dropped: 0,
    telemetry_spooled: 0,
    scrapes_failed: 0,
    forecasts: 0,
    decisions: 0,
    weight_changes: 0,
    webhooks_delivered: 0,
    webhooks_failed: 0,
  },
  events: [],
  ...over,
});

/** The words of what Svelte rendered on the server, with plain single spaces. */
export function words(html: string): string {
  return html
    .replace(/<!--.*?-->/g, '')
    .replace(/<[^>]+>/g, ' ')
    .replace(/[\s\u202f]+/g, ' ')
    .trim();
}
