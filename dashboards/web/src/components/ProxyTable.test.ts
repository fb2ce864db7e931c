import { render } from 'svelte/server';
import { expect, test } from 'vitest';

import { proxy, words } from '../lib/fixtures';
import type { Proxy, Quarantined } from '../lib/types';
import ProxyTable from './ProxyTable.svelte';

const HELD: Quarantined = { gateway: 'edge', zone: 'eu-west/a', type: 'Cluster', resource: 'chat', since: '2026-11-21T09:59:20Z' };

const body = (proxies: Proxy[], quarantined: Quarantined[] = []) =>
  render(ProxyTable, { props: { proxies, quarantined, now: '2026-11-21T10:00:00Z' } }).body;

test('an Envoy that takes no predictions says so', () => {
  expect(words(body([proxy({ takes_predictions: false })]))).toContain('edge zone-a by capacity shares only in sync');
  expect(body([proxy()])).not.toContain('proxy-static');
});

test('one resource may be held back in two zones', () => {
  const shown = words(body([proxy()], [HELD, { ...HELD, zone: 'eu-west/b' }, { ...HELD, zone: null }]));
  expect(shown).toContain('Cluster chat of gateway edge in eu-west/a is held back for 40 s');
  expect(shown).toContain('of gateway edge in eu-west/b is held back');
  expect(shown).toContain('of gateway edge is held back');
});
