import { render } from 'svelte/server';
import { expect, test } from 'vitest';

import { words } from '../lib/fixtures';
import type { Decision } from '../lib/types';
import DecisionRow from './DecisionRow.svelte';

const DECISION: Decision = {
  id: '1',
  at: '2026-11-21T10:00:00Z',
  kind: 'shed',
  model: 'chat',
  pool: null,
  summary: '35 % of batch is refused',
  changes: [{ target: 'batch', from: 0, to: 0.35, reason: '27.4 requests/s come' }],
  rung: null,
};

const text = (over: Partial<Decision>) => words(render(DecisionRow, { props: { decision: { ...DECISION, ...over } } }).body);

test('refused parts are per cent', () => {
  expect(text({})).toContain('batch 0.0 % → 35 % 27.4 requests/s come');
});

test('on another rung than enforce it says whether Envoys were told', () => {
  expect(text({ rung: 'shadow' })).toContain('shadow: no Envoy was told');
  expect(text({ rung: 'canary' })).toContain('Envoys follow it for a part of the requests');
  expect(text({})).not.toContain('Envoy');
});

test('a change without values has none', () => {
  const changes = [{ target: '10.0.0.9:8000', from: null, to: null, reason: 'stands by as a spare' }];
  expect(text({ kind: 'membership', changes })).toContain('10.0.0.9:8000 stands by as a spare');
});
