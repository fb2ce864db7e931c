import { render } from 'svelte/server';
import { expect, test, vi } from 'vitest';

import type { History } from '../lib/answers';
import { words } from '../lib/fixtures';
import type { PastQuery } from '../lib/past';
import PastView from './PastView.svelte';

// The theme asks the browser, which is not here.
vi.mock('../lib/theme.svelte', () => ({ theme: {} }));

const QUERY: PastQuery = { subject: { kind: 'model', name: 'chat' }, metric: 'queue_depth', range: '6h' };
const HISTORY: History = {
  metric: 'queue_depth',
  source: 'minutes',
  step_seconds: 60,
  from: '2026-11-21T04:00:00Z',
  to: '2026-11-21T10:00:00Z',
  points: [
    { t: Date.parse('2026-11-21T04:00:00Z') / 1000, value: 4, max: 3 },
    { t: Date.parse('2026-11-21T04:01:00Z') / 1000, value: 2, max: 1 },
    { t: Date.parse('2026-11-21T09:59:00Z') / 1000, value: 3, max: 2 },
  ],
};

function show(history: History | null, problem: string | null = null) {
  const { body } = render(PastView, { props: { query: QUERY, history, problem, onRetry: () => {} } });
  return { body, text: words(body) };
}

test('says what is shown, how finely, and where nothing was measured', () => {
  const { body, text } = show(HISTORY);
  expect(text).toContain('Queue depth of model chat');
  expect(text).toContain('one point per 1 min , from telemetry by the minute');
  expect(text).toContain('sum of the backends');
  expect(text).toContain('highest of one backend');
  expect(text).toContain('no telemetry (1 gap)');
  expect(body).toContain('over the last 6 hours: newest 3.0 requests, lowest 2.0 requests, highest 4.0 requests, 1 gap.');
});

test('waits, and says so', () => {
  expect(show(null).text).toContain('Loading history …');
});

test('an error has its reason and a way on; what was there stays', () => {
  const { text } = show(null, 'the database is away');
  expect(text).toContain('The history could not be loaded the database is away. The page tries again by itself. Try now');
  expect(show(HISTORY, 'no answer').text).toContain('Chart not up to date: no answer');
});

test('no points are told from no answer', () => {
  expect(show({ ...HISTORY, points: [] }).text).toContain('Nothing measured in the last 6 hours');
});
