/** Who brought a backend in, how long it may stay, and how the finding of a pool's backends does. */

import { brief, horizon, plural, secondsBetween, span } from './format';
import type { Backend, Pool } from './types';
import type { Mark } from './words';

/** Below this part of its length at least one renewal has not come: a lease is renewed three times within it. */
const LATE_PART = 1 / 3;

/** Where a backend comes from, in a word or two, and whether somebody should look. */
export interface OriginNote {
  text: string;
  late: boolean;
  /** The same in a sentence. */
  long: string;
}

export function originNote(backend: Backend, pool: Pool | undefined): OriginNote {
  const { origin, lease_seconds: length, lease_remaining_seconds: left } = backend;
  if (length !== null && left !== null) return leaseNote(length, left);
  if (origin === 'dns') {
    return lookupsFail(pool)
      ? { text: 'DNS, kept', late: true, long: 'found in DNS, kept because lookups fail' }
      : { text: 'DNS', late: false, long: 'found in DNS' };
  }
  if (origin === 'registered') return { text: 'registered', late: false, long: 'registered, without a lease' };
  return { text: origin, late: false, long: origin === 'configured' ? 'listed in the configuration file' : origin };
}

function leaseNote(length: number, left: number): OriginNote {
  const long = `registered with a lease of ${horizon(length)}`;
  if (left <= 0) return { text: 'lease over', late: true, long: `${long}, which is over` };
  const late = left < length * LATE_PART;
  return { text: `lease ${brief(left)}`, late, long: `${long}, ${span(left)} left${late ? ': its renewal is late' : ''}` };
}

function lookupsFail(pool: Pool | undefined): boolean {
  return (pool?.discovery?.stale ?? false) && pool?.discovery?.stale_since !== null;
}

export interface PoolNote {
  mark: Mark;
  text: string;
}

/** What is wrong with the finding of a pool's backends, and what is done about it. `found` is how many DNS has given. */
export function poolNotes(pool: Pool | undefined, found: number, now: string): PoolNote[] {
  const discovery = pool?.discovery;
  const notes: PoolNote[] = [];
  if (discovery?.stale) {
    const mark: Mark = { word: discovery.stale_since === null ? 'lease over' : 'discovery stale', shape: 'triangle', tone: 'warn' };
    notes.push({ mark, text: `${discovery.reason ?? 'no reason is told'}${staleSince(discovery.stale_since, found, now)}` });
  }
  if (discovery?.holding) {
    const mark: Mark = { word: 'holding', shape: 'half', tone: 'accent' };
    notes.push({ mark, text: 'more than half of the backends found were gone at once: those stay a while, in case they come back' });
  }
  return notes;
}

function staleSince(since: string | null, found: number, now: string): string {
  if (since === null) return ': it stays until there is another';
  const kept = found === 0 ? 'no backend was found so far' : `${plural(found, 'backend')} found before ${found === 1 ? 'stays' : 'stay'}`;
  return `: ${kept}, for ${span(secondsBetween(since, now))} now`;
}
