import { expect, test } from 'vitest';

import { backend as fullBackend, groupShare, model as fullModel, pool, state } from './fixtures';
import { backendsByModel, barScale, keyFigures, overObjective, shareTrend } from './fleet';
import type { Backend, Proxy } from './types';

const backend = (address: string, over: Partial<Backend> = {}) => fullBackend({ address, ...over });
const model = (name: string) => fullModel({ name });

test('backends are grouped by model, then pool, zone and group', () => {
  const groups = backendsByModel(
    [model('chat'), model('embed')],
    [backend('a:1'), backend('b:1', { pool: 'a100', group: 'a100', zone: 'zone-b' }), backend('c:1'), backend('d:1', { model: 'code' })],
  );
  expect(groups.map((entry) => entry.model)).toEqual(['chat', 'code']);
  expect(groups[0]!.groups.map((group) => group.backends.map((b) => b.address))).toEqual([['a:1', 'c:1'], ['b:1']]);
  expect(groups[0]!.groups[0]).toMatchObject({ share: 0.5, capacityRps: 12 });
});

test('a pool is told of once, and also while it has no backend', () => {
  const looking = (name: string) => pool({ name, discovery: { stale: false, stale_since: null, reason: null, holding: false } });
  const [chat] = backendsByModel(
    [model('chat')],
    [backend('a:1'), backend('b:1', { group: 'h100-slow' })],
    [looking('h100'), looking('a100'), pool({ name: 'l4' })],
  );
  expect(chat!.groups.map((group) => [group.group, group.leads?.name ?? null, group.backends.length])).toEqual([
    ['h100', 'h100', 1],
    ['h100-slow', null, 1],
    ['a100', 'a100', 0],
  ]);
});

test('a group has what is published of it under its own model', () => {
  const models = [fullModel({ shares: [groupShare({ group: 'h100-slow' })] }), fullModel({ name: 'embed', shares: [groupShare()] })];
  const [chat] = backendsByModel(models, [backend('a:1'), backend('b:1', { group: 'h100-slow' })]);
  expect(chat!.groups.map((group) => group.published?.group ?? null)).toEqual([null, 'h100-slow']);
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
  const stale = { stale: true, stale_since: null, reason: 'r', holding: false };
  const proxies = [{ state: 'in_sync' }, { state: 'nacked' }, { state: 'pending' }] as Proxy[];
  const shown = state({
    models: [model('chat'), model('embed')],
    pools: [pool(), pool({ name: 'a100', discovery: stale })],
    backends: [backend('a:1'), backend('b:1', { state: 'down' }), backend('c:1', { state: 'draining' }), backend('d:1', { verdict: 'sick' })],
    proxies,
  });
  expect(keyFigures(shown)).toEqual({
    demandRps: 10,
    tokensPerSecond: 240,
    proxiesInSync: 1,
    proxiesNacked: 1,
    proxies: 3,
    backendsReady: 2,
    backendsWrong: 1,
    backendsSick: 1,
    backends: 4,
    poolsStale: 1,
  });
});
