/** The canary of a model: which part predictions steer, how it does beside the rest, and whether it has stepped back. */

import { percent } from './format';
import type { Canary, Model } from './types';
import type { Mark } from './words';

/** What a canary divides, such as `10 % of the Envoys`. */
export function canaryPart({ by, share }: Pick<Canary, 'by' | 'share'>): string {
  return `${percent(share)} of the ${by === 'proxies' ? 'Envoys' : 'requests'}`;
}

export interface CanaryNote {
  mark: Mark;
  /** The evidence. */
  text: string;
  since: string;
  /** What has it go on. */
  command: string;
}

/** None while it has not stepped back. */
export function canaryNote({ name, canary }: Pick<Model, 'name' | 'canary'>): CanaryNote | null {
  const back = canary?.stepped_back;
  if (!back) return null;
  return {
    mark: { word: 'The canary has stepped back', shape: 'triangle', tone: 'warn' },
    text: `${back.reason}; requests go by capacity shares`,
    since: back.at,
    command: `clairvoy canary resume ${shellWord(name)}`,
  };
}

/** As a shell takes it for one word. */
function shellWord(text: string): string {
  return /^[\w./:@-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}
