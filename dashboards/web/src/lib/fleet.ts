import type { Backend, GroupShare, Model, Pool, Proxy, State } from './types';

export interface BackendGroup {
  key: string;
  pool: string;
  zone: string;
  group: string;
  /** Sum over the group's backends. */
  share: number;
  /** The same; null when no backend has a value. */
  capacityRps: number | null;
  /** As published, with what Envoys report of it; null for a group that is not published. */
  published: GroupShare | null;
  /** Empty for a pool that looks for backends and has none. */
  backends: Backend[];
  /** Its pool, in the first group of that pool only: what is told of the pool is told once. */
  leads: Pool | null;
}

export interface ModelBackends {
  model: string;
  /** Share at which a bar is full, the same for all backends of the model. */
  barScale: number;
  sloSeconds: number | null;
  groups: BackendGroup[];
}

/** Backends under their model, then under pool, zone and group; models in the order of the configuration. */
export function backendsByModel(models: Model[], backends: Backend[], pools: Pool[] = []): ModelBackends[] {
  const names = [...new Set([...models.map((model) => model.name), ...backends.map((backend) => backend.model)])];
  return names
    .map((name) => {
      const own = backends.filter((backend) => backend.model === name);
      const model = models.find((model) => model.name === name);
      return {
        model: name,
        barScale: barScale(own),
        sloSeconds: model?.slo_ttft_seconds ?? null,
        groups: groupsOf(own, pools.filter((pool) => pool.model === name), model?.shares ?? []),
      };
    })
    .filter((entry) => entry.groups.length > 0);
}

function groupsOf(backends: Backend[], pools: Pool[], shares: GroupShare[]): BackendGroup[] {
  const groups = new Map<string, BackendGroup>();
  const group = (pool: string, zone: string, name: string): BackendGroup => {
    const key = [pool, zone, name].join('\u0000');
    const found = groups.get(key);
    if (found) return found;
    const isFirst = ![...groups.values()].some((other) => other.pool === pool);
    const leads = (isFirst && pools.find((entry) => entry.name === pool)) || null;
    const published = shares.find((entry) => entry.group === name) ?? null;
    const made: BackendGroup = { key, pool, zone, group: name, share: 0, capacityRps: null, published, backends: [], leads };
    groups.set(key, made);
    return made;
  };
  for (const backend of backends) {
    const own = group(backend.pool, backend.zone, backend.group);
    own.share += backend.share;
    own.capacityRps = plus(own.capacityRps, backend.capacity_rps);
    own.backends.push(backend);
  }
  for (const pool of pools.filter((pool) => pool.discovery)) {
    if (!backends.some((backend) => backend.pool === pool.name)) group(pool.name, pool.zone, pool.name);
  }
  return [...groups.values()];
}

function plus(sum: number | null, value: number | null): number | null {
  return value === null ? sum : (sum ?? 0) + value;
}

/** Twice the largest capacity share, rounded up to 5 %: changes with the membership, not with every decision. */
export function barScale(backends: Backend[]): number {
  const top = Math.max(0, ...backends.map((backend) => backend.capacity_share));
  if (top === 0) return 1;
  return Math.min(1, Math.ceil(top * 2 * 20 - 1e-9) / 20);
}

export type ShareTrend = 'lost' | 'gained' | 'even' | 'unknown';

/** Compares a share with the capacity share: `lost` below 75 % of it, `gained` above 125 %. */
export function shareTrend(share: number | null, capacityShare: number | null): ShareTrend {
  if (share === null || capacityShare === null) return 'unknown';
  if (share < capacityShare * 0.75) return 'lost';
  if (share > capacityShare * 1.25) return 'gained';
  return 'even';
}

/** True when the upper bound of the predicted wait breaks the model's objective. */
export function overObjective(backend: Backend, sloSeconds: number | null): boolean {
  const upper = backend.predicted_wait_upper_seconds ?? backend.predicted_wait_seconds;
  return sloSeconds !== null && upper !== null && upper > sloSeconds;
}

export interface KeyFigures {
  demandRps: number;
  tokensPerSecond: number;
  proxiesInSync: number;
  proxiesNacked: number;
  proxies: number;
  backendsReady: number;
  backendsWrong: number;
  /** Ready by what they say, and judged to be sick. */
  backendsSick: number;
  backends: number;
  /** Pools whose backends nobody vouches for any more. */
  poolsStale: number;
}

export function keyFigures(state: State): KeyFigures {
  const inState = (proxies: Proxy[], wanted: Proxy['state']) => proxies.filter((proxy) => proxy.state === wanted).length;
  return {
    demandRps: state.models.reduce((sum, model) => sum + model.demand_rps, 0),
    tokensPerSecond: state.models.reduce((sum, model) => sum + model.tokens_per_second, 0),
    proxiesInSync: inState(state.proxies, 'in_sync'),
    proxiesNacked: inState(state.proxies, 'nacked'),
    proxies: state.proxies.length,
    backendsReady: state.backends.filter((backend) => backend.state === 'ready').length,
    backendsWrong: state.backends.filter((backend) => ['stale', 'down'].includes(backend.state)).length,
    backendsSick: state.backends.filter((backend) => backend.state === 'ready' && backend.verdict === 'sick').length,
    backends: state.backends.length,
    poolsStale: state.pools.filter((pool) => pool.discovery?.stale).length,
  };
}
