import { render } from 'svelte/server';
import { expect, test } from 'vitest';

import { backend, groupShare, model, pool, state, words } from '../lib/fixtures';
import type { Discovery, GroupShare, State } from '../lib/types';
import BackendTable from './BackendTable.svelte';

const STALE: Discovery = { stale: true, stale_since: '2026-11-21T09:59:20Z', reason: 'vllm.internal does not exist in DNS (NXDOMAIN)', holding: false };

const body = (over: Partial<State>) => render(BackendTable, { props: { state: state(over), shares: new Map() } }).body;

test('a pool whose discovery fails says so once, over the backends that it keeps', () => {
  const shown = body({
    pools: [pool({ discovery: STALE })],
    backends: [backend({ origin: 'dns' }), backend({ address: '10.0.0.2:8000', origin: 'dns', group: 'h100-slow' })],
  });
  expect(shown.match(/pool-discovery/g)).toHaveLength(1);
  expect(words(shown)).toContain('discovery stale vllm.internal does not exist in DNS (NXDOMAIN): 2 backends found before stay, for 40 s now');
  expect(words(shown).match(/ready DNS, kept/g)).toHaveLength(2);
});

test('a pool that has found nothing is there, with the reason', () => {
  const shown = words(body({ pools: [pool({ discovery: STALE })] }));
  expect(shown).toContain('h100 zone-a no backend yet discovery stale');
  expect(shown).toContain('no backend was found so far, for 40 s now');
});

test('a group has what Envoys report of it beside its share, and errors only when there are any', () => {
  const shown = (over: Partial<GroupShare>) => words(body({ models: [model({ shares: [groupShare(over)] })], backends: [backend()] }));
  expect(shown({})).toContain('25 % of requests 1.2 req/s, 3 in progress capacity 6.0 req/s');
  expect(shown({ errors_per_second: 0.3 })).toContain('3 in progress ▲ 0.3 errors/s (25 %) capacity');
  expect(shown({ requests_per_second: null, errors_per_second: null, requests_in_progress: null })).toContain('25 % of requests capacity');
});

test('without backends and without discovery it says how to get some', () => {
  expect(words(body({ pools: [pool()] }))).toContain('No backend yet List addresses');
});
