/** Since when something has lasted: by the events where they tell, else as this page has followed it. */

import { secondsBetween } from './format';
import { isShedding } from './shedding';
import { steersLess } from './steering';
import type { LogEvent, Model, State } from './types';

/** A state comes each second; after a longer gap it is not known when what is new in it began. */
const LONGEST_GAP_SECONDS = 5;

/** By model, what lasts and since when; null where it lasted before this page could see it. */
type Since = Map<string, string | null>;

export interface Onsets {
  /** Time of the state that was followed last. */
  at: string;
  steersLess: Since;
  sheds: Since;
}

export function followOnsets(previous: Onsets | null, state: State): Onsets {
  const gap = secondsBetween(previous?.at, state.now);
  const begun = gap !== null && gap <= LONGEST_GAP_SECONDS ? state.now : null;
  const follow = (before: Since | undefined, lasts: (model: Model) => boolean): Since =>
    new Map(state.models.filter(lasts).map(({ name }) => [name, before?.has(name) ? (before.get(name) ?? null) : begun]));
  return {
    at: state.now,
    steersLess: follow(previous?.steersLess, steersLess),
    sheds: follow(previous?.sheds, isShedding),
  };
}

/** Since when predictions steer less of a model than they are meant to. */
export function steersLessSince(model: string, events: LogEvent[], onsets: Onsets | null): string | null {
  const began = beganAt(events, [`model ${model} goes by capacity shares: `], `model ${model} goes by predictions again`);
  return began ?? onsets?.steersLess.get(model) ?? null;
}

/** Since when requests for a model are refused, or would be. */
export function shedsSince(model: string, events: LogEvent[], onsets: Onsets | null): string | null {
  const begins = ['are', 'would be'].map((verb) => `requests for model ${model} ${verb} refused: `);
  return beganAt(events, begins, `no requests for model ${model} `) ?? onsets?.sheds.get(model) ?? null;
}

/** When it began of which the end is not among the events, which are newest first; null when they do not tell. */
function beganAt(events: LogEvent[], begins: string[], end: string): string | null {
  const ended = events.findIndex(({ message }) => message.startsWith(end));
  const after = ended < 0 ? events : events.slice(0, ended);
  return after.findLast(({ message }) => begins.some((begin) => message.startsWith(begin)))?.at ?? null;
}
