/** What the table of past forecasts says of one horizon. */

import { NONE, percent } from './format';
import type { HorizonRecord } from './types';
import { expertName, type Mark } from './words';

/** Below this many outcomes a coverage says little. */
const OUTCOMES_TO_JUDGE = 100;
const TOLERANCE = 0.05;
/** Keeps a coverage of exactly five points off, such as 1 - 0.95, from counting as more. */
const ROUNDING = 1e-9;

/** The error against that of the better baseline: `38 % less`, `5 % more`, `the same`. */
export function againstBaseline(skillRatio: number | null): string {
  if (skillRatio === null || !Number.isFinite(skillRatio)) return NONE;
  const difference = skillRatio - 1;
  if (Math.round(Math.abs(difference) * 100) === 0) return 'the same';
  return `${percent(Math.abs(difference))} ${difference < 0 ? 'less' : 'more'}`;
}

/** The mark of a bound whose coverage is far from its promise, with enough outcomes to say so. */
export function boundMark(coverage: number | null, promise: number, outcomes: number): Mark | null {
  if (coverage === null || outcomes < OUTCOMES_TO_JUDGE) return null;
  const off = coverage - promise;
  if (!(Math.abs(off) > TOLERANCE + ROUNDING)) return null;
  return off < 0
    ? { word: 'bound too low', shape: 'triangle', tone: 'warn' }
    : { word: 'bound too high', shape: 'ring', tone: 'warn' };
}

export interface Carrier {
  /** The expert with the most weight, with its weight. */
  champion: string;
  /** The others with theirs, heaviest first; empty when there is none. */
  challengers: string;
  /** Set when a baseline carries the forecast in the experts' place. */
  fallback: Mark | null;
}

/** Who carries the forecast of a horizon. */
export function carrier({ baseline, experts }: Pick<HorizonRecord, 'baseline' | 'experts'>): Carrier {
  const [champion = NONE, ...others] = experts.map(({ name, weight }) => `${expertName(name)} ${percent(weight)}`);
  return {
    champion,
    // Names have commas of their own.
    challengers: others.join(' · '),
    fallback:
      baseline === null
        ? null
        : {
            word: `carried by ${expertName(baseline)}: the experts have lately done worse`,
            shape: 'triangle',
            tone: 'warn',
          },
  };
}
