/** An invented fleet that moves with time, for working on the page without a control plane. All times in Unix seconds. */

import { events, judged, modelSteering, profile, zones } from './steering.mjs';

const STEP = 10;
const LEAD = 20;
const HORIZONS = [10, 20, 30, 60];

const MODELS = [
  { name: 'chat-large', base: 16, swing: 9, period: 480, tokens: 28, slo: 2 },
  { name: 'embed-small', base: 44, swing: 14, period: 300, tokens: 9, slo: 0.5 },
];

const POOLS = [
  { name: 'large-h100-a', model: 'chat-large', zone: 'zone-a', capacity: 6, wait: 0.21, max: 4, cold: 15, ports: [9001, 9002] },
  { name: 'large-a100-b', model: 'chat-large', zone: 'zone-b', capacity: 4, wait: 0.34, max: 40, cold: 20, ports: [9011, 9012, 9013] },
  { name: 'embed-l4-a', model: 'embed-small', zone: 'zone-a', capacity: 30, wait: 0.04, max: 3, cold: 10, ports: [9021, 9022] },
  { name: 'embed-l4-b', model: 'embed-small', zone: 'zone-b', capacity: 30, wait: 0.05, max: 3, cold: 10, ports: [] },
];

const noise = (seed) => {
  const x = Math.sin(seed * 12.9898) * 43758.5453;
  return (x - Math.floor(x)) * 2 - 1;
};

const trend = (model, t) =>
  model.base + model.swing * Math.sin((2 * Math.PI * t) / model.period) + 2.2 * Math.sin((2 * Math.PI * t) / 97);
const demandAt = (model, t) => Math.max(0, trend(model, t) + noise(Math.floor(t / STEP) + model.base) * model.swing * 0.12);

function quantiles(model, t, horizon, issuedAt) {
  const spread = model.swing * (0.1 + 0.0035 * horizon);
  const q50 = Math.max(0.5, trend(model, t) + noise(issuedAt / STEP + model.base * 3) * spread * 0.5);
  const round = (value) => Math.round(Math.max(0, value) * 100) / 100;
  return { t, q10: round(q50 - 1.3 * spread), q50: round(q50), q90: round(q50 + 1.3 * spread), q95: round(q50 + 1.8 * spread), q99: round(q50 + 2.7 * spread) };
}

export function demand(name, windowSeconds, now) {
  const model = MODELS.find((entry) => entry.name === name);
  if (!model) return null;
  const last = Math.floor(now / STEP) * STEP - STEP;
  const actual = [];
  const issued = [];
  for (let t = last - Math.floor(windowSeconds / STEP) * STEP + STEP; t <= last; t += STEP) {
    actual.push({ t, rps: Math.round(demandAt(model, t) * 100) / 100 });
    issued.push({ issued_at: t - LEAD, ...quantiles(model, t, LEAD, t - LEAD) });
  }
  const points = HORIZONS.map((horizon) => quantiles(model, last + horizon, horizon, last));
  return { model: name, step_seconds: STEP, lead_seconds: LEAD, actual, issued, latest: { issued_at: last, points } };
}

/** One horizon of each kind: with skill, with bounds that do not hold, carried by a baseline, and too new to judge. */
const RECORD = [
  { horizon_seconds: 60, outcomes: 25_904, error_ratio: 0.061, skill_ratio: 0.62, coverage_q90: 0.905, coverage_q95: 0.948, baseline: null, experts: [['regression', 0.58], ['smoothed', 0.21], ['seasonal_scaled_short', 0.12], ['last_value', 0.06], ['damped_trend', 0.03]] },
  { horizon_seconds: 300, outcomes: 25_880, error_ratio: 0.097, skill_ratio: 0.81, coverage_q90: 0.822, coverage_q95: 0.961, baseline: null, experts: [['seasonal_smooth', 0.47], ['regression', 0.35], ['seasonal_median', 0.18]] },
  { horizon_seconds: 3600, outcomes: 25_550, error_ratio: 0.148, skill_ratio: 1.05, coverage_q90: 0.967, coverage_q95: 0.981, baseline: 'seasonal_naive', experts: [['seven_seasons_median', 0.64], ['regression', 0.36]] },
  { horizon_seconds: 21_600, outcomes: 0, error_ratio: null, skill_ratio: null, coverage_q90: null, coverage_q95: null, baseline: null, experts: [] },
].map((entry) => ({ ...entry, experts: entry.experts.map(([name, weight]) => ({ name, weight })) }));

/** 0 to 1: how slow backend 9012 is; it comes and goes each four minutes. */
const trouble = (t) => Math.max(0, Math.min(1, 1.6 * Math.sin((2 * Math.PI * t) / 240)));

/** What is wrong with the telemetry of the backends at these ports. */
const FAULTS = {
  9012: ['kv_used is no longer on the metrics page; it may now be called vllm:kv_cache_fill_perc: set `metrics` of the pool'],
  9022: ['completed stands still while ttft_count grows', 'gpu_utilisation is dropped again and again: too_large'],
};

/** Lengths of the leases of the backends at these ports, seconds. */
const LEASES = { 9001: 30, 9021: 30, 9022: 86_400 };

/** Who brought a backend in. The one at 9021 renews late once in two minutes. */
function membership(port, now) {
  const length = LEASES[port] ?? null;
  if (length === null) return { origin: port > 9010 && port < 9020 ? 'dns' : 'configured', lease_seconds: null, lease_remaining_seconds: null };
  const sinceRenewal = port === 9021 && now % 120 < 28 ? now % 120 : now % 10;
  return { origin: 'registered', lease_seconds: length, lease_remaining_seconds: Math.max(0, length - sinceRenewal) };
}

/** DNS: away for 80 s of each two minutes for one pool; for another it never had a backend. */
function discovery(pool, now) {
  const iso = (t) => new Date(t * 1000).toISOString();
  if (pool.name === 'embed-l4-b') return { stale: true, stale_since: iso(now - 4000), reason: '_http._tcp.embed.internal does not exist in DNS (NXDOMAIN)', holding: false };
  if (pool.name !== 'large-a100-b') return null;
  const away = now % 120 < 80;
  return { stale: away, stale_since: away ? iso(now - (now % 120)) : null, reason: away ? 'no DNS server answered for _http._tcp.large.internal in time' : null, holding: !away };
}

/** What Envoys tell of a backend. Those of chat-large log tokens, too. */
function gateway(wait, load, port, now) {
  const requests = Math.round((now % 100_000) * load * 3);
  const answers = Math.round(requests * 0.97);
  const length = port === 9022 ? null : wait + 140 * 0.018;
  const tokens = port < 9020 ? answers : 0;
  return { response_seconds: length, gateway_responses: length === null ? 0 : answers, gateway_responses_seconds: length === null ? 0 : answers * 3.1, gateway_prompt_tokens: tokens * 412, gateway_output_tokens: tokens * 140, requests_in_progress: port === 9022 ? null : Math.round(load * 19), first_byte_seconds: port === 9022 ? null : wait * 1.05, first_byte_p95_seconds: port === 9022 ? null : wait * 2.4, gateway_requests: requests, gateway_errors: port === 9012 ? Math.round(requests * 0.004) : 0 };
}

/** Rows on disk: of each 90 s the database is away for 60, catches up in 20 and is well for 10. */
function spooled(now) {
  const second = now % 90;
  return second < 60 ? Math.round(7 * (second + 1)) : second < 80 ? Math.round(21 * (80 - second)) : 0;
}

/** Whether the database answers in this scenario. */
export const databaseIsThere = (now, scenario) => scenario !== 'away' || now % 90 >= 60;

function backends(now) {
  return MODELS.flatMap((model) => {
    const own = POOLS.filter((pool) => pool.model === model.name).flatMap((pool) => pool.ports.map((port) => ({ pool, port })));
    const rows = own.map(({ pool, port }) => {
      const slow = port === 9012 ? trouble(now) : 0;
      const wait = pool.wait * (1 + 0.25 * Math.sin(now / 17 + port)) + slow * 2.1;
      return { pool, port, slow, wait, weight: pool.capacity * (1 - 0.82 * slow) * (1 + 0.18 * Math.sin(now / 31 + port * 2)) };
    });
    const weights = rows.reduce((sum, row) => sum + row.weight, 0);
    const capacity = rows.reduce((sum, row) => sum + row.pool.capacity, 0);
    return rows.map(({ pool, port, slow, wait, weight }) => {
      const load = (demandAt(model, now) * weight) / weights / pool.capacity;
      return {
        address: `127.0.0.1:${port}`, model: model.name, pool: pool.name, zone: pool.zone, group: pool.name,
        ...membership(port, now), ...gateway(wait, load, port, now),
        state: port === 9013 ? (now % 300 < 60 ? 'draining' : now % 300 < 120 ? 'down' : 'ready') : 'ready',
        queue_depth: Math.max(0, Math.round(load * 3 + slow * 9 + noise(now + port))),
        running: Math.max(0, Math.round(load * 18 + noise(now + port) * 2)),
        kv_used: Math.min(0.99, 0.2 + load * 0.45 + slow * 0.3),
        gpu_utilisation: Math.min(1, 0.45 + load * 0.5),
        ttft_seconds: wait * (0.9 + 0.1 * noise(now + port)),
        inter_token_seconds: 0.018,
        predicted_wait_seconds: wait, predicted_wait_upper_seconds: wait * 1.7 + 0.05,
        wait_source: port === 9022 ? 'last_observed' : 'regression',
        capacity_rps: pool.capacity,
        capacity: port === 9013 ? null : port === 9022 ? { rps: null, lower_rps: 0.6 * pool.capacity, upper_rps: null } : { rps: 0.9 * pool.capacity, lower_rps: 0.7 * pool.capacity, upper_rps: 1.1 * pool.capacity },
        anomaly: slow > 0.9 ? { score: 2.4, kind: 'silent', reason: 'it has 14 requests and nothing came out for 17 s' } : slow > 0.5 ? { score: 1.9, kind: 'slower_than_peers', reason: 'it takes 41.0 ms where its 2 peers take 18.2 ms: 2.3 times as long' } : { score: 0.3, kind: null, reason: null },
        share: model.name === 'embed-small' ? pool.capacity / capacity : weight / weights, capacity_share: pool.capacity / capacity,
        advised_share: model.name === 'embed-small' ? weight / weights : null,
        profile: profile(port, pool.capacity),
        slowdown: 1 + slow, telemetry_age_seconds: 0.4, telemetry_faults: FAULTS[port] ?? [],
        reason: port === 9013 && now % 300 > 60 && now % 300 < 120 ? 'no connection: connection refused' : slow > 0.2 ? `wait ${wait.toFixed(2)} s above the level 0.40 s` : 'wait at the level',
        ...judged(port, slow, now),
      };
    });
  });
}

/** Shares of a model's groups. Only for chat-large every Envoy reports; what fails, fails at 9012. */
function shares(model, list, now) {
  return POOLS.filter((pool) => pool.model === model.name && pool.ports.length > 0).map((pool) => {
    const share = list.filter((backend) => backend.group === pool.name).reduce((sum, backend) => sum + backend.share, 0);
    const isReported = model.name === 'chat-large';
    const sent = share * demandAt(model, now);
    return {
      group: pool.name, locality: `${pool.zone}/${pool.name}`, share,
      requests_per_second: isReported ? sent : null,
      errors_per_second: isReported ? (pool.ports.includes(9012) ? 0.04 * sent * trouble(now) : 0) : null,
      requests_in_progress: isReported ? Math.round(sent * 3.1) : null,
    };
  });
}

function decisions(now) {
  const found = [];
  for (let k = 0; k < 20; k++) {
    const at = Math.floor(now / 7) * 7 - k * 7;
    const iso = new Date(at * 1000).toISOString();
    const id = `0b6c1a52-4a61-4d9c-9f3e-${String(at).padStart(12, '0')}`;
    if (k % 6 === 4) {
      found.push({ id, at: iso, kind: 'replicas', model: 'chat-large', pool: 'large-h100-a', rung: null, summary: 'large-h100-a 2 → 3: demand of 24.6 req/s expected in 15 s', changes: [{ target: 'large-h100-a', from: 2, to: 3, reason: 'q90 of 24.6 req/s over 20 req/s of capacity' }] });
      continue;
    }
    if (k % 6 === 2) {
      found.push({ id, at: iso, kind: 'shed', model: 'embed-small', pool: null, rung: 'advise', summary: '35 % of batch is refused: 61.0 requests/s come: 102 % of the 60.0 that can be served', changes: [{ target: 'batch', from: 0.15, to: 0.35, reason: '61.0 requests/s come: 102 % of the 60.0 that can be served' }] });
      continue;
    }
    const [before, after] = [backends(at - 7), backends(at)].map((list) => list.find((backend) => backend.address.endsWith('9012')).share);
    const percent = (share) => `${Math.round(share * 100)} %`;
    found.push({ id, at: iso, kind: 'weights', model: 'chat-large', pool: null, rung: null, summary: `127.0.0.1:9012 ${percent(before)} → ${percent(after)}: predicted wait ${(0.3 + trouble(at) * 2.1).toFixed(1)} s, level 0.4 s`, changes: [
      { target: '127.0.0.1:9012', from: before, to: after, reason: 'predicted wait above the level' },
      { target: '127.0.0.1:9001', from: 0.23, to: 0.23 + (before - after) / 2, reason: 'takes what 127.0.0.1:9012 gives up' },
    ] });
  }
  return found;
}

/** What a history can be asked of. */
export const SUBJECTS = {
  model: MODELS.map((model) => model.name),
  pool: POOLS.map((pool) => pool.name),
  backend: POOLS.flatMap((pool) => pool.ports.map((port) => `127.0.0.1:${port}`)),
};

export function state(now, scenario) {
  const iso = (t) => new Date(t * 1000).toISOString();
  const empty = scenario === 'empty';
  const issued = Math.floor(now / STEP) * STEP;
  const second = databaseIsThere(now, scenario) ? now : now - (now % 90);
  const rows = Math.floor(second - 1_795_000_000) % 100_000;
  const list = empty ? [] : backends(now);
  const nacked = now % 120 < 40;
  return {
    now: iso(now), version: '0.1.0', simulated: true,
    models: MODELS.map((model) => {
      const next = quantiles(model, now + 20, 20, issued);
      const groups = empty ? [] : shares(model, list.filter((backend) => backend.model === model.name), now);
      return {
        name: model.name, demand_source: model.name === 'chat-large' ? 'envoys' : 'servers', demand_rps: empty ? 0 : demandAt(model, now), tokens_per_second: empty ? 0 : demandAt(model, now) * model.tokens,
        tokens_source: !empty && model.name === 'chat-large' ? 'envoys' : 'servers', prompt_tokens_per_second: !empty && model.name === 'chat-large' ? demandAt(model, now) * 412 : null,
        step_seconds: STEP, slo_ttft_seconds: model.slo,
        forecast: empty ? null : { issued_at: iso(issued), expert: model.name === 'chat-large' ? 'regression' : 'seasonal_naive', error_ratio: model.name === 'chat-large' ? 0.061 : 0.114, cold_start: { horizon_seconds: 20, q50: next.q50, q90: next.q90 }, record: model.name === 'chat-large' ? RECORD : [] },
        shares: groups, zones: zones(model.name, groups),
        ...(empty ? { policy: 'predictive', rung: 'enforce', predictive_ratio: 0, fallback: 'no shares have been decided yet', fallback_since: null, canary: null, shed: modelSteering(model.name, 0).shed } : modelSteering(model.name, now)),
      };
    }),
    pools: POOLS.map((pool) => {
      const ready = empty ? 0 : pool.ports.length;
      const rising = !empty && pool.name === 'large-h100-a' && Math.cos((2 * Math.PI * now) / 480) > 0;
      return { name: pool.name, model: pool.model, zone: pool.zone, region: 'local', replicas: { ready, planned: ready + (rising ? 1 : 0), needed_now: ready, needed_forecast: ready + (rising ? 1 : 0), min: 1, max: pool.max, cold_start_seconds: pool.cold, reason: rising ? 'q90 of 24.6 req/s over 20 req/s of capacity' : 'enough for the q90 of the forecast' }, discovery: empty ? null : discovery(pool, now) };
    }),
    backends: list,
    proxies: empty ? [] : ['a', 'b', 'c'].map((letter, i) => ({
      node_id: `envoy-${letter}`, cluster: i < 2 ? 'edge-a' : 'edge-b', zone: i < 2 ? 'zone-a' : 'zone-b', connected_at: iso(now - (now % 86_400) - 500 * i),
      state: i === 2 && nacked ? 'nacked' : i === 1 && now % 30 < 3 ? 'pending' : 'in_sync', acks: 31 + rows % 500, nacks: i === 2 ? 1 : 0, resources_sent: 40 + rows % 900, takes_predictions: i < 2,
      last_nack: i === 2 ? { type: 'CDS', resources: ['embed-small'], message: 'Error adding/updating cluster(s) embed-small: hostname is not allowed for STATIC clusters', at: iso(now - (now % 120)) } : null,
    })),
    quarantined: !empty && nacked ? [{ gateway: 'edge-b', zone: 'local/zone-b', type: 'Cluster', resource: 'embed-small', since: iso(now - (now % 120)) }] : [],
    decisions: empty ? [] : decisions(now),
    totals: { telemetry_rows: empty ? 0 : rows * 7, telemetry_dropped: 0, telemetry_spooled: scenario === 'away' ? spooled(now) : 0, scrapes_failed: 0, forecasts: empty ? 0 : 120, decisions: empty ? 0 : 412 + (rows % 1000), weight_changes: empty ? 0 : 133 + Math.floor((rows % 1000) / 7), webhooks_delivered: empty ? 0 : 9, webhooks_failed: 0 },
    events: empty ? [] : [
      ...events(now),
      { at: iso(now - 12), level: 'warning', message: '127.0.0.1:9012: predicted wait above the objective of 2 s' },
      { at: iso(now - 31), level: 'error', message: 'envoy-c refused CDS: hostname is not allowed for STATIC clusters' },
      { at: iso(now - 95), level: 'info', message: 'forecast of chat-large: regression beats last season (6.1 % against 9.8 %)' },
      { at: iso(now - 140), level: 'info', message: 'envoy-b connected' },
    ].sort((a, b) => (a.at < b.at ? 1 : -1)),
  };
}
