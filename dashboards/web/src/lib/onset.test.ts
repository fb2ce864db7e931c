import { expect, test } from 'vitest';

import { model, shed, state } from './fixtures';
import { followOnsets, shedsSince, steersLessSince, type Onsets } from './onset';
import type { LogEvent, Model } from './types';

const at = (second: number) => `2026-11-21T10:00:${String(second).padStart(2, '0')}Z`;
const event = (second: number, message: string): LogEvent => ({ at: at(second), level: 'info', message });
const FALLEN = { fallback: 'no Envoy is connected', predictive_ratio: 0 };

/** What is followed of states at these seconds. */
const follow = (...seen: [second: number, over: Partial<Model>][]) =>
  seen.reduce<Onsets | null>((before, [second, over]) => followOnsets(before, state({ now: at(second), models: [model(over)] })), null);

test('what began before the page came has no beginning', () => {
  expect(steersLessSince('chat', [], follow([1, FALLEN], [2, FALLEN]))).toBeNull();
});

test('what begins while the page looks on has begun then, until it is over', () => {
  expect(steersLessSince('chat', [], follow([1, {}], [2, FALLEN], [3, FALLEN]))).toBe(at(2));
  expect(steersLessSince('chat', [], follow([1, {}], [2, FALLEN], [3, { predictive_ratio: 0.1 }]))).toBe(at(2));
  expect(steersLessSince('chat', [], follow([1, FALLEN], [2, {}], [3, FALLEN]))).toBe(at(3));
  expect(shedsSince('chat', [], follow([1, {}], [2, { shed: shed({ advised_batch_ratio: 0.1 }) }]))).toBe(at(2));
});

test('what began while no state came has no beginning', () => {
  expect(steersLessSince('chat', [], follow([1, {}], [30, FALLEN], [31, FALLEN]))).toBeNull();
});

test('an event knows better, unless it is over or of another model', () => {
  const fell = event(5, 'model chat goes by capacity shares: nothing was decided for 6 s');
  const again = event(9, 'model chat goes by predictions again');
  const seen = follow([20, FALLEN]);
  expect(steersLessSince('chat', [event(8, fell.message), fell], seen)).toBe(at(5));
  expect(steersLessSince('chat', [event(12, fell.message), again, fell], seen)).toBe(at(12));
  expect(steersLessSince('chat', [again, fell], seen)).toBeNull();
  expect(steersLessSince('chat', [event(5, fell.message.replace('chat', 'chat-large'))], seen)).toBeNull();
});

test('events of refusing, in force or advised', () => {
  const began = event(5, 'requests for model chat are refused: 27.4 requests/s come');
  expect(shedsSince('chat', [began], null)).toBe(at(5));
  expect(shedsSince('chat', [event(5, 'requests for model chat would be refused: 27.4 requests/s come')], null)).toBe(at(5));
  expect(shedsSince('chat', [event(9, 'no requests for model chat are refused any more: 3.0 requests/s come'), began], null)).toBeNull();
});
