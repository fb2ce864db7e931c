import { expect, test } from 'vitest';

import { backendsByModel, barScale, keyFigures, overObjective, shareTrend } from './fleet';
import type { Backend, Model, State } from './types';

const backend = (address: string, over: Partial<Backend> = {}): Backend => ({
  address,
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
  ...over,
});

const model = (name: string): Model => ({
  name,
  demand_rps: 5,
  tokens_per_second: 120,
  step_seconds: 10,
  slo_ttft_seconds: 2,
  forecast: null,
  shares: [],
});

test('backends are grouped by model, then pool, zone and group', () => {
  const groups = backendsByModel(
    [model('chat'), model('embed')],
    [backend('a:1'), backend('b:1', { pool: 'a100', group: 'a100', zone: 'zone-b' }), backend('c:1'), backend('d:1', { model: 'code' })],
  );
  expect(groups.map((entry) => entry.model)).toEqual(['chat', 'code']);
  expect(groups[0]!.groups.map((group) => group.backends.map((b) => b.address))).toEqual([['a:1', 'c:1'], ['b:1']]);
  expect(groups[0]!.groups[0]).toMatchObject({ share: 0.5, capacityRps: 12 });
});

test('a group without a known capacity has none, not zero', () => {
  const [entry] = backendsByModel([], [backend('a:1', { capacity_rps: null })]);
  expect(entry!.groups[0]).toMatchObject({ share: 0.25, capacityRps: null });
});

test('the bar scale depends on capacity only', () => {
  expect(barScale([backend('a:1', { capacity_share: 0.16, share: 0.9 })])).toBeCloseTo(0.35);
  expect(barScale([backend('a:1', { capacity_share: 0.8 })])).toBe(1);
  expect(barScale([backend('a:1', { capacity_share: 0 })])).toBe(1);
});

test('a lost share is told from an even one', () => {
  expect(shareTrend(0.06, 0.25)).toBe('lost');
  expect(shareTrend(0, 0.25)).toBe('lost');
  expect(shareTrend(0.24, 0.25)).toBe('even');
  expect(shareTrend(0.4, 0.25)).toBe('gained');
  expect(shareTrend(null, 0.25)).toBe('unknown');
});

test('the objective is compared with the upper bound', () => {
  expect(overObjective(backend('a:1', { predicted_wait_upper_seconds: 2.4 }), 2)).toBe(true);
  expect(overObjective(backend('a:1'), 2)).toBe(false);
  expect(overObjective(backend('a:1', { predicted_wait_seconds: null, predicted_wait_upper_seconds: null }), 2)).toBe(false);
});

test('key figures', () => {
  const state = {
    models: [model('chat'), model('embed')],
    backends: [backend('a:1'), backend('b:1', { state: 'down' }), backend('c:1', { state: 'draining' })],
    proxies: [{ state: 'in_sync' }, { state: 'nacked' }, { state: 'pending' }],
  } as unknown as State;
  expect(keyFigures(state)).toEqual({
    demandRps: 10,
    tokensPerSecond: 240,
    proxiesInSync: 1,
    proxiesNacked: 1,
    proxies: 3,
    backendsReady: 1,
    backendsWrong: 1,
    backends: 3,
  });
});
