import { expect, test } from 'vitest';

import { canaryNote, canaryPart } from './canary';
import { canary, model } from './fixtures';

const BACK = { at: '2026-11-21T10:00:00Z', decision: '01a1', reason: '8.0 % of the steered requests failed, and 0.1 % of the others' };

test('a canary is of requests or of Envoys', () => {
  expect(canaryPart(canary({ share: 0.1 }))).toBe('10\u202f% of the requests');
  expect(canaryPart(canary({ by: 'proxies', share: 0.25 }))).toBe('25\u202f% of the Envoys');
});

test('while it has not stepped back there is nothing to tell', () => {
  expect(canaryNote(model())).toBeNull();
  expect(canaryNote(model({ canary: canary() }))).toBeNull();
});

test('one that has stepped back says why, since when, and how it goes on', () => {
  const note = canaryNote(model({ canary: canary({ stepped_back: BACK }) }));
  expect(note?.text).toContain(BACK.reason);
  expect(note?.since).toBe(BACK.at);
  expect(note?.command).toBe('clairvoy canary resume chat');
  const odd = canaryNote(model({ name: "it's me", canary: canary({ stepped_back: BACK }) }));
  expect(odd?.command).toBe("clairvoy canary resume 'it'\\''s me'");
});
