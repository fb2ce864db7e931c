import type { State } from './types';

export const HISTORY_SECONDS = 120;

export interface SharePoint {
  /** Unix seconds. */
  t: number;
  share: number;
}

export type ShareHistory = Map<string, SharePoint[]>;

/** Identity of a backend on this page: one address may serve several models. */
export function backendKey(backend: { model: string; address: string }): string {
  return `${backend.model}\u0000${backend.address}`;
}

/** Adds the shares of `state`, forgets what is older than two minutes and backends that left. */
export function remember(history: ShareHistory, state: State): ShareHistory {
  const now = Date.parse(state.now) / 1000;
  const next: ShareHistory = new Map();
  for (const backend of state.backends) {
    const key = backendKey(backend);
    const kept = (history.get(key) ?? []).filter((point) => point.t > now - HISTORY_SECONDS && point.t < now);
    kept.push({ t: now, share: backend.share });
    next.set(key, kept);
  }
  return next;
}

/** Points of an SVG polyline in a box `width` × `height`, newest at the right edge, `scale` at the top. */
export function sparkPoints(points: SharePoint[], width: number, height: number, scale: number): string {
  const last = points.at(-1);
  if (!last) return '';
  return points
    .map((point) => {
      const x = width - ((last.t - point.t) / HISTORY_SECONDS) * width;
      const y = height - Math.min(1, point.share / scale) * height;
      return `${x.toFixed(1)},${y.toFixed(1)}`;
    })
    .join(' ');
}
