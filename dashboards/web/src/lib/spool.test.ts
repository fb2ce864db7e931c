import { expect, test } from 'vitest';

import { followSpool, rowsLost, type Spool } from './spool';
import type { Totals } from './types';

const totals = (written: number, rows: number, dropped = 0) =>
  ({ telemetry_rows: written, telemetry_spooled: rows, telemetry_dropped: dropped }) as Totals;

function follow(...seen: Totals[]): Spool {
  const last = seen.reduce<Spool | null>(followSpool, null);
  if (!last) throw new Error('nothing seen');
  return last;
}

test('an empty spool is no news', () => {
  expect(follow(totals(100, 0), totals(107, 0)).phase).toBe('empty');
});

test('the database is away while rows only gather, and behind while it takes some', () => {
  const away = [totals(100, 0), totals(105, 3), totals(105, 10), totals(105, 10)];
  expect(follow(...away).phase).toBe('away');
  expect(follow(...away, totals(112, 10)).phase).toBe('behind');
  expect(follow(...away, totals(112, 10), totals(130, 0)).phase).toBe('empty');
});

test('a full spool that throws out its oldest is not one that is written out', () => {
  expect(follow(totals(100, 0), totals(100, 50), totals(100, 40, 10)).phase).toBe('away');
});

test('a page that opens in the middle waits to see which it is', () => {
  expect(follow(totals(100, 50)).phase).toBe('waiting');
  expect(follow(totals(100, 50), totals(100, 57)).phase).toBe('away');
  expect(follow(totals(100, 50), totals(120, 30)).phase).toBe('behind');
});

test('what was lost before counts only where the page cannot tell', () => {
  expect(rowsLost(follow(totals(100, 0, 5), totals(100, 7, 5)))).toBe(0);
  expect(rowsLost(follow(totals(100, 0, 5), totals(100, 7, 8)))).toBe(3);
  expect(rowsLost(follow(totals(100, 7, 5)))).toBe(5);
});
