/** Which page the address names: `#/` or `#/history?model=NAME&metric=queue_depth&range=1h`. */

import type { Metric } from './answers';
import { METRICS } from './metrics';
import { RANGES, SUBJECT_KINDS, type RangeId, type Subject } from './past';

export interface PastRoute {
  page: 'history';
  /** Null: the first that there is. */
  subject: Subject | null;
  metric: Metric;
  range: RangeId;
}

export type Route = { page: 'overview' } | PastRoute;

/** Reads the part of an address from `#` on; what it does not know it takes as not said. */
export function parseRoute(hash: string): Route {
  const [path = '', query = ''] = hash.replace(/^#/, '').split('?', 2);
  if (path !== '/history') return { page: 'overview' };
  const asked = new URLSearchParams(query);
  const kind = SUBJECT_KINDS.find((name) => asked.get(name));
  return {
    page: 'history',
    subject: kind ? { kind, name: asked.get(kind) ?? '' } : null,
    metric: METRICS.find((metric) => metric.id === asked.get('metric'))?.id ?? 'queue_depth',
    range: RANGES.find((range) => range.id === asked.get('range'))?.id ?? '1h',
  };
}

export function historyHash(subject: Subject, metric: Metric, range: RangeId): string {
  return `#/history?${new URLSearchParams({ [subject.kind]: subject.name, metric, range })}`;
}
