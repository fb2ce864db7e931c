import { expect, test } from 'vitest';

import { model, shed } from './fixtures';
import { shedNote } from './shedding';
import type { Rung, Shed } from './types';

const note = (over: Partial<Shed>, rung: Rung = 'enforce') => shedNote(model({ rung, shed: shed(over) }));
const flat = (texts: string[] | undefined) => texts?.map((text) => text.replaceAll('\u202f', ' '));

test('nothing is said while nothing is refused, also where something was', () => {
  expect(note({})).toBeNull();
  expect(note({ batch_refused: 900 })).toBeNull();
});

test('lanes of which something is refused, with what it was so far', () => {
  const batch = note({ batch_ratio: 0.35, advised_batch_ratio: 0.35, batch_refused: 1234, reason: 'r' });
  expect(batch?.mark.word).toBe('Requests are refused');
  expect(flat(batch?.lanes)).toEqual(['35 % of batch requests']);
  expect(batch?.reason).toBe('r');
  expect(batch?.more.replaceAll('\u202f', ' ')).toBe('1 234 batch requests refused since Clairvoy started');
  const both = note({ batch_ratio: 1, advised_batch_ratio: 1, interactive_ratio: 0.05, advised_interactive_ratio: 0.05, batch_refused: 9, interactive_refused: 2 });
  expect(flat(both?.lanes)).toEqual(['100 % of batch requests', '5.0 % of interactive requests']);
  expect(both?.more).toBe('9 batch and 2 interactive requests refused since Clairvoy started');
});

test('a canary refuses less than was decided', () => {
  expect(flat(note({ batch_ratio: 0.04, advised_batch_ratio: 0.4 }, 'canary')?.lanes)).toEqual(['4.0 % of batch requests (40 % decided)']);
});

test('what is not told to any Envoy only would be refused', () => {
  const advised = note({ advised_batch_ratio: 0.4 }, 'advise');
  expect(advised?.mark.word).toBe('Requests would be refused');
  expect(flat(advised?.lanes)).toEqual(['40 % of batch requests']);
  expect(advised?.more).toBe('no Envoy is told, on the rung advise');
  expect(note({ advised_interactive_ratio: 0.1 })?.more).toBe('no Envoy is told at present');
});
