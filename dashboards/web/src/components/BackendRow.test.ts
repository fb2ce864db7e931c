import { render } from 'svelte/server';
import { expect, test } from 'vitest';

import type { Backend } from '../lib/types';
import BackendRow from './BackendRow.svelte';

const BACKEND: Backend = {
  address: '10.0.0.1:8000',
  model: 'chat',
  pool: 'h100',
  zone: 'zone-a',
  group: 'h100',
  state: 'ready',
  queue_depth: 1,
  running: 2,
  kv_used: 0.4,
  gpu_utilisation: 0.9,
  ttft_seconds: 0.2,
  inter_token_seconds: 0.02,
  predicted_wait_seconds: 0.3,
  predicted_wait_upper_seconds: 0.5,
  wait_source: 'regression',
  capacity_rps: 6,
  share: 0.25,
  capacity_share: 0.25,
  telemetry_age_seconds: 0.4,
  capacity: null,
  anomaly: null,
  slowdown: 1,
  telemetry_faults: [],
  reason: 'wait at the level',
};

function text(over: Partial<Backend>): string {
  const { body } = render(BackendRow, { props: { backend: { ...BACKEND, ...over }, history: [], scale: 1, sloSeconds: 2 } });
  return body
    .replace(/<!--.*?-->/g, '')
    .replace(/<[^>]+>/g, ' ')
    .replace(/\s+/g, ' ');
}

test('shows the learned capacity with its interval', () => {
  const shown = text({ capacity: { rps: 7.5, lower_rps: 6.25, upper_rps: 8.1 } });
  expect(shown).toContain('7.5 6.3 to 8.1');
  expect(text({ capacity: { rps: null, lower_rps: 4, upper_rps: null } })).toContain('≥ 4.0');
});

test('marks an anomaly and says why', () => {
  const reason = 'it takes 41.0 ms where its 2 peers take 18.2 ms';
  expect(text({ anomaly: { score: 2, kind: 'slower_than_peers', reason } })).toContain(`slower than peers ${reason}`);
  expect(text({ anomaly: { score: 1.2, kind: null, reason: null } })).not.toContain('slower than peers');
});

test('marks what is wrong with the telemetry, each fault with its kind and its sentence', () => {
  const gone = 'kv_used is no longer on the metrics page; it may now be called vllm:kv_cache_perc: set `metrics` of the pool';
  const still = 'completed stands still while ttft_count grows';
  const shown = text({ telemetry_faults: [gone, still] });
  expect(shown).toContain(`metric gone ${gone}`);
  expect(shown).toContain(`counter stands still ${still}`);
  expect(render(BackendRow, { props: { backend: BACKEND, history: [], scale: 1, sloSeconds: 2 } }).body).not.toContain('backend-faults');
});

test('shows a backend of which nothing was learned yet', () => {
  expect(text({})).toContain('10.0.0.1:8000');
});
