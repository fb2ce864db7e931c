import { render } from 'svelte/server';
import { expect, test } from 'vitest';

import { words } from '../lib/fixtures';
import type { Spool } from '../lib/spool';
import SpoolBanner from './SpoolBanner.svelte';

const AWAY: Spool = { phase: 'away', rows: 1234, written: 100, dropped: 0, droppedBefore: 0 };

const text = (spool: Spool | null) => words(render(SpoolBanner, { props: { spool } }).body);

test('says that telemetry goes to disk and that nothing is lost', () => {
  expect(text(AWAY)).toContain('Postgres is away: telemetry goes to disk');
  expect(text(AWAY)).toContain('1 234 rows wait there until Postgres has them. Nothing is lost.');
});

test('goes when the spool is drained', () => {
  expect(text({ ...AWAY, phase: 'empty', rows: 0 }).trim()).toBe('');
  expect(text(null).trim()).toBe('');
});

test('does not promise what is not so', () => {
  expect(text({ ...AWAY, dropped: 7 })).toContain('7 rows dropped since then.');
  expect(text({ ...AWAY, dropped: 7, droppedBefore: null })).toContain('7 rows dropped since Clairvoy started.');
  expect(text({ ...AWAY, dropped: 7 })).not.toContain('Nothing is lost');
});
