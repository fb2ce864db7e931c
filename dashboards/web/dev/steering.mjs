/** How the invented fleet is steered: rungs, ways back to capacity, what is refused, verdicts, profiles and zones. */

const FALLBACK = { every: 180, lasts: 30 };
const SHED = { every: 240, from: 90, until: 150 };

const iso = (t) => new Date(t * 1000).toISOString();

/** How chat-large is steered: of each 3 minutes its telemetry is old for 30 s, then predictions take over again. */
function steered(now) {
  const second = now % FALLBACK.every;
  if (second < FALLBACK.lasts) {
    return { predictive_ratio: 0, fallback: 'the telemetry of 2 of 5 backends is fresh', fallback_since: iso(now - second) };
  }
  return { predictive_ratio: Math.min(1, Math.floor(second - FALLBACK.lasts + 1) / 10), fallback: null, fallback_since: null };
}

/** What is refused: of each 4 minutes for one. On `advise` it only would be. */
function shed(now, isTold) {
  const second = now % SHED.every;
  const isOn = second >= SHED.from && second < SHED.until;
  const batch = isOn ? Math.min(1, 0.2 + (second - SHED.from) / 40) : 0;
  const interactive = isTold && batch === 1 ? 0.05 : 0;
  return {
    batch_ratio: isTold ? batch : 0, interactive_ratio: interactive, advised_batch_ratio: batch, advised_interactive_ratio: interactive,
    batch_refused: isTold ? 1200 + Math.floor(now % 1000) : 0, interactive_refused: interactive > 0 ? 14 : 0,
    since: isOn ? iso(now - second + SHED.from) : null,
    reason: isOn ? '27.4 requests/s come (29.1 soon), and 1.6 to serve those that wait: 118 % of the 24.7 that can be served; 21.0 are let in' : null,
  };
}

/** How far predictions may go with a model, and how far they do. */
export function modelSteering(name, now) {
  if (name === 'chat-large') return { policy: 'predictive', rung: 'enforce', ...steered(now), canary: null, shed: shed(now, true) };
  return { policy: 'predictive', rung: 'advise', predictive_ratio: 0, fallback: null, fallback_since: null, canary: null, shed: shed(now, false) };
}

/** The events that tell when it began. */
export function events(now) {
  const fell = now - (now % FALLBACK.every);
  const rose = fell + FALLBACK.lasts + 10;
  const second = now % SHED.every;
  return [
    { at: iso(fell), level: 'warning', message: 'model chat-large goes by capacity shares: the telemetry of 2 of 5 backends is fresh' },
    ...(rose <= now ? [{ at: iso(rose), level: 'info', message: 'model chat-large goes by predictions again' }] : []),
    ...(second >= SHED.from ? [{ at: iso(now - second + SHED.from), level: 'warning', message: 'requests for model chat-large are refused: 27.4 requests/s come' }] : []),
    ...(second >= SHED.until ? [{ at: iso(now - second + SHED.until), level: 'info', message: 'no requests for model chat-large are refused any more: 19.0 requests/s come' }] : []),
  ];
}

/** The zones of chat-large: each prefers its own pool, as far as both are used up. */
export function zones(name, shares) {
  if (name !== 'chat-large' || shares.length < 2) return [];
  const [near, far] = shares;
  const demand = 0.6;
  // Of zone-a as much as fits goes to its own pool.
  const own = Math.min(1, near.share / demand) * 0.98;
  const other = (near.share - demand * own) / (1 - demand);
  const zone = (place, envoys, part, toNear, isNear) => ({
    zone: `local/${place}`, envoys, demand_share: part,
    rtt_ms: 24 * (isNear ? 1 - toNear : toNear), fleet_rtt_ms: 24 * (isNear ? 1 - near.share : near.share),
    shares: [{ group: near.group, share: toNear }, { group: far.group, share: 1 - toNear }],
  });
  return [zone('zone-a', 2, demand, own, true), zone('zone-b', 1, 1 - demand, other, false)];
}

/** What is judged of a backend: `slow` from 0 to 1; the one at 9013 has just come back once in 5 minutes. */
export function judged(port, slow, now) {
  const second = now % 300;
  if (port === 9013 && second >= 120 && second < 165) return { verdict: 'warming', reason: 'has just started; held at 2.40 requests/s while it warms up' };
  if (slow > 0.9) return { verdict: 'sick', reason: 'is sick (silent); kept at 0.10 requests/s, to be seen well again' };
  return { verdict: 'usual' };
}

/** What is learned of an engine; the one at 9022 goes by its pool, the one at 9021 has shown nothing. */
export function profile(port, capacityRps) {
  if (port === 9021) return null;
  const limits = port < 9020 ? { max_sequences: 256, kv_tokens: 480_000, token_budget: 8192 } : { max_sequences: 64, kv_tokens: null, token_budget: null };
  const known = port === 9022 ? { observations: 0, relative_error: 1 } : { observations: 12_400 + port, relative_error: 0.034 };
  return { fixed_seconds: 0.0112, per_sequence_seconds: 0.00009, per_prompt_token_seconds: 0.000085, per_kv_token_seconds: 0.0000001, ...limits, ...known, capacity_rps: capacityRps * 1.1 };
}
