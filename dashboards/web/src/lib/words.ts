import type { Anomaly, BackendState, Capacity, Decision, DemandSource, GroupShare, ProxyState, Rung, Verdict } from './types';
import { count, NONE, percent, rate } from './format';

const EXPERTS: Record<string, string> = {
  last_value: 'last value',
  seasonal_naive: 'last season',
  smoothed_slow: 'slow average',
  smoothed: 'average',
  damped_trend: 'damped trend',
  seasonal_smooth: 'last season, smoothed',
  seasonal_median: 'median of three seasons',
  seven_seasons_median: 'median of seven seasons',
  seasonal_median_scaled: 'median of seasons, scaled',
  seven_seasons_ago: 'seven seasons ago',
  seasonal_scaled_short: 'last season, scaled by the last steps',
  seasonal_scaled: 'last season, scaled',
  hour_naive: 'last hour',
  hours_median: 'median of six hours',
  half_season_median: 'median of half a season',
  season_median: 'median of a season',
  three_seasons_median: "median of three seasons' steps",
  season_mean: 'mean of a season',
  calmed: 'last value, calmed',
  autoregression: 'how it moves',
  regression: 'regression',
  median: 'median of all',
};

/** An expert in words; one that this page does not know keeps its own name. */
export function expertName(expert: string | null): string {
  if (expert === null) return NONE;
  return EXPERTS[expert] ?? expert.replaceAll('_', ' ');
}

/** Who counts a model's demand, and why it is them. */
export function countedBy(source: DemandSource): { who: string; why: string } {
  return COUNTED_BY[source] ?? { who: source, why: '' };
}

const COUNTED_BY: Record<DemandSource, { who: string; why: string }> = {
  envoys: { who: 'Envoys', why: 'Counted by the Envoys, in their load reports' },
  servers: {
    who: 'servers',
    why: 'Counted by the model servers, in their metrics: not every Envoy reports its load, or requests reach the servers past the Envoys',
  },
};

/** Who counts a model's output tokens, and why it is them. */
export function tokensCountedBy(source: DemandSource): { who: string; why: string } {
  return TOKENS_COUNTED_BY[source] ?? { who: source, why: '' };
}

const TOKENS_COUNTED_BY: Record<DemandSource, { who: string; why: string }> = {
  envoys: { who: 'Envoys', why: 'Output tokens, counted by the Envoys, in their access logs' },
  servers: { who: 'servers', why: 'Output tokens, counted by the model servers, in their metrics: no access log has told any of late' },
};

/** What Envoys report of a group; null while not every one does. `errors` is null while there are none. */
export function groupTraffic(share: GroupShare | null): { requests: string; errors: string | null } | null {
  const { requests_per_second: sent = null, errors_per_second: failed = null, requests_in_progress: running = null } = share ?? {};
  if (sent === null || running === null) return null;
  return { requests: `${smallRate(sent)} req/s, ${count(running)} in progress`, errors: failed ? errorsText(failed, sent) : null };
}

function errorsText(failed: number, sent: number): string {
  // A request that fails now may have been sent long before.
  return `${smallRate(failed)} errors/s` + (failed <= sent ? ` (${percent(failed / sent, true)})` : '');
}

/** A rate that is not zero never looks like zero. */
function smallRate(value: number): string {
  return value > 0 && value < 0.05 ? '< 0.1' : rate(value);
}

const WAIT_SOURCES: Record<string, string> = {
  regression: 'by regression',
  recent_service: 'from the latest rate of service',
  service: 'from the rate of service',
  service_in_requests: 'from the rate of service, in requests',
  corrected: 'from the rate of service, corrected by the last wait',
  last_observed: 'no model yet: the last observed wait',
  none: 'no prediction yet',
};

/** Who has the say in a predicted wait; one that this page does not know keeps its own name. */
export function waitSource(source: string): string {
  return WAIT_SOURCES[source] ?? source.replaceAll('_', ' ');
}

/** Shape and tone of a state's mark; the word stands beside it, so colour never tells alone. */
export interface Mark {
  word: string;
  shape: 'full' | 'half' | 'ring' | 'triangle' | 'cross';
  tone: 'good' | 'warn' | 'bad' | 'quiet' | 'accent';
}

export const BACKEND_MARK: Record<BackendState, Mark> = {
  ready: { word: 'ready', shape: 'full', tone: 'good' },
  draining: { word: 'draining', shape: 'half', tone: 'accent' },
  waiting: { word: 'waiting', shape: 'ring', tone: 'quiet' },
  stale: { word: 'stale', shape: 'triangle', tone: 'warn' },
  down: { word: 'down', shape: 'cross', tone: 'bad' },
};

const VERDICT_MARK: Partial<Record<Verdict, Mark>> = {
  warming: { word: 'verdict: warming', shape: 'half', tone: 'accent' },
  sick: { word: 'verdict: sick', shape: 'cross', tone: 'bad' },
};

/** The mark of a backend whose share is bounded by more than its capacity; none for a usual one. */
export function verdictMark(verdict: Verdict): Mark | null {
  return VERDICT_MARK[verdict] ?? null;
}

const RUNGS: Record<Rung, string> = {
  shadow: 'Predictions steer nothing: decisions are stored and shown, and no Envoy is told',
  advise: 'Predictions steer nothing: it is told which shares they would give, and no Envoy is told',
  canary: 'Predictions steer a part of the requests or of the Envoys, until it does worse than the rest; the others go by capacity',
  enforce: 'Predictions steer all requests while telemetry is fresh',
};

/** A balance policy in words, such as `least request`. */
export function policyName(policy: string): string {
  return policy.replaceAll('_', ' ');
}

/** What a rung means; nothing for one that this page does not know. */
export function rungHint(rung: Rung): string {
  return RUNGS[rung] ?? '';
}

/** Of a decision that was made on a rung other than `enforce`: what it says of it. */
export function rungOfDecision(rung: Rung): string {
  return rung === 'canary' ? 'canary: Envoys follow it for a part of the requests' : `${rung}: no Envoy was told`;
}

/** The mark of a backend with which something is wrong; a kind that this page does not know keeps its name. */
export function anomalyMark(anomaly: Anomaly | null | undefined): Mark | null {
  const kind = anomaly?.kind;
  return kind ? { word: kind === 'kv_leak' ? 'KV leak' : kind.replaceAll('_', ' '), shape: 'triangle', tone: 'warn' } : null;
}

const FAULTS: [RegExp, string][] = [
  [/^\w+ is no longer on /, 'metric gone'],
  [/^\w+ was never on /, 'metric missing'],
  [/^all numbers stand still /, 'telemetry frozen'],
  [/^\w+ stands still /, 'counter stands still'],
  [/^\w+ is dropped /, 'values dropped'],
  [/^\w+ is \S+, above the limit /, 'above the limit'],
];

/** The mark of a telemetry fault. The API sends sentences only; one that this page does not know is a telemetry fault. */
export function faultMark(fault: string): Mark {
  const word = FAULTS.find(([sentence]) => sentence.test(fault))?.[1] ?? 'telemetry fault';
  return { word, shape: 'triangle', tone: 'warn' };
}

/** A learned capacity: its median with the interval, or the one bound that was seen. */
export function capacityText(capacity: Capacity | null | undefined): { median: string; interval: string } {
  const { rps = null, lower_rps: lower = null, upper_rps: upper = null } = capacity ?? {};
  if (rps !== null) return { median: rate(rps), interval: `${rate(lower)} to ${rate(upper)}` };
  if (lower !== null) return { median: `≥ ${rate(lower)}`, interval: '' };
  if (upper !== null) return { median: `< ${rate(upper)}`, interval: '' };
  return { median: NONE, interval: '' };
}

export const PROXY_MARK: Record<ProxyState, Mark> = {
  in_sync: { word: 'in sync', shape: 'full', tone: 'good' },
  pending: { word: 'pending', shape: 'ring', tone: 'quiet' },
  nacked: { word: 'NACKed', shape: 'cross', tone: 'bad' },
};

export const LEVEL_MARK: Record<'info' | 'warning' | 'error', Mark> = {
  info: { word: 'info', shape: 'ring', tone: 'quiet' },
  warning: { word: 'warning', shape: 'triangle', tone: 'warn' },
  error: { word: 'error', shape: 'cross', tone: 'bad' },
};

/** A value of a change: a count of replicas, a share, or a refused part. */
export function changeValue(kind: Decision['kind'], value: number | null): string {
  if (value === null) return NONE;
  return kind === 'replicas' ? count(value) : percent(value, true);
}
