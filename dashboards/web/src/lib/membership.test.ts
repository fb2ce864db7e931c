import { expect, test } from 'vitest';

import { backend, pool } from './fixtures';
import { originNote, poolNotes } from './membership';
import type { Backend, Discovery } from './types';

const NOW = '2026-11-21T10:00:00Z';
const FINE: Discovery = { stale: false, stale_since: null, reason: null, holding: false };
const FAILING: Discovery = { ...FINE, stale: true, stale_since: '2026-11-21T09:48:00Z', reason: 'no DNS server answered for vllm.internal in time' };

const leased = (length: number, left: number): Partial<Backend> => ({ origin: 'registered', lease_seconds: length, lease_remaining_seconds: left });
const note = (over: Partial<Backend>, discovery: Discovery | null = null) => originNote(backend(over), pool({ discovery }));

test('every origin has a word', () => {
  expect(note({})).toMatchObject({ text: 'configured', late: false });
  expect(note({ origin: 'dns' }, FINE)).toMatchObject({ text: 'DNS', late: false });
  expect(note({ origin: 'registered' })).toMatchObject({ text: 'registered', late: false });
  expect(originNote(backend({ origin: 'dns' }), undefined)).toMatchObject({ text: 'DNS', late: false });
});

test('a lease says what is left of it, and when its renewal is late', () => {
  expect(note(leased(30, 24.6))).toEqual({ text: 'lease 24 s', late: false, long: 'registered with a lease of 30 s, 24 s left' });
  expect(note(leased(30, 8))).toMatchObject({ text: 'lease 8 s', late: true });
  expect(note(leased(86_400, 80_000))).toMatchObject({ text: 'lease 22 h', late: false });
  expect(note(leased(30, 0))).toMatchObject({ text: 'lease over', late: true });
});

test('what DNS no longer vouches for is kept, and says so', () => {
  expect(note({ origin: 'dns' }, FAILING)).toMatchObject({ text: 'DNS, kept', late: true });
  expect(note({}, FAILING)).toMatchObject({ text: 'configured', late: false });
  expect(note({ origin: 'dns' }, { ...FINE, stale: true, reason: 'a lease' })).toMatchObject({ text: 'DNS', late: false });
});

test('a pool tells why nobody vouches for its backends, and since when', () => {
  const texts = (discovery: Discovery | null, found = 3) => poolNotes(pool({ discovery }), found, NOW).map(({ mark, text }) => `${mark.word}: ${text}`);
  expect(texts(null)).toEqual([]);
  expect(texts(FINE)).toEqual([]);
  expect(texts(FAILING)).toEqual(['discovery stale: no DNS server answered for vllm.internal in time: 3 backends found before stay, for 12 min now']);
  expect(texts(FAILING, 0)[0]).toContain('no backend was found so far, for 12 min now');
  const lease = { ...FINE, stale: true, reason: 'the lease of 10.0.0.1:8000, the last backend, is over' };
  expect(texts(lease)).toEqual(['lease over: the lease of 10.0.0.1:8000, the last backend, is over: it stays until there is another']);
  expect(texts({ ...FAILING, holding: true })).toHaveLength(2);
});
