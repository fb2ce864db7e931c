import { render } from 'svelte/server';
import { expect, test, vi } from 'vitest';

import { canary, groupShare, model, shed, words, zone } from '../lib/fixtures';
import type { Model } from '../lib/types';
import ModelPanel from './ModelPanel.svelte';

// The theme asks the browser, which is not here; the chart that needs it is not drawn on the server either.
vi.mock('../lib/theme.svelte', () => ({ theme: {} }));

const NOW = '2026-11-21T10:00:40Z';
const SINCE = '2026-11-21T10:00:00Z';

function body(over: Partial<Model>): string {
  return render(ModelPanel, { props: { model: model(over), pools: [], now: NOW } }).body;
}

const text = (over: Partial<Model>) => words(body(over));

test('has its policy, its rung and what predictions steer now', () => {
  expect(text({ policy: 'least_request', predictive_ratio: 0 })).toContain('policy least request rung enforce predictions steer 0 %');
  expect(text({ rung: 'canary', predictive_ratio: 0.1 })).toContain('rung canary predictions steer 10 % of requests');
});

test('is quiet while all is as it should be', () => {
  const shown = body({});
  for (const id of ['model-canary', 'model-steering', 'model-shed', 'zone-shares']) expect(shown).not.toContain(id);
});

test('says why predictions steer nothing, and since when where that is known', () => {
  const fallen = { predictive_ratio: 0, fallback: 'no Envoy is connected' };
  expect(text({ ...fallen, fallback_since: SINCE })).toMatch(/no Envoy is connected; requests go by capacity shares since \d\d:\d\d:00 \(40 s\)/);
  expect(text(fallen)).not.toContain('since');
  // Spoken once, without what changes.
  expect(body(fallen)).toMatch(/role="status">.*chat: Predictions steer nothing\./);
});

test('says what a canary is of and how it does', () => {
  const shown = text({ rung: 'canary', canary: canary({ by: 'proxies' }) });
  expect(shown).toContain('canary of 10 % of the Envoys : the steered requests do no worse than the others');
});

test('says once that a canary has stepped back, why, since when, and what has it go on', () => {
  const reason = '8.0 % of the steered requests failed, and 0.1 % of the others';
  const back = { at: SINCE, decision: '01a1', reason };
  const fallen = { rung: 'canary', predictive_ratio: 0, fallback: `the canary has stepped back: ${reason}`, canary: canary({ stepped_back: back }) } as const;
  expect(text(fallen)).toMatch(/stepped back 8\.0 % .* of the others; requests go by capacity shares since \d\d:\d\d:00 \(40 s\) to go on: clairvoy canary resume chat/);
  expect(body(fallen)).not.toContain('model-steering');
});

test('says what is refused and why', () => {
  const shown = text({ shed: shed({ batch_ratio: 0.35, advised_batch_ratio: 0.35, reason: '27.4 requests/s come', since: SINCE }) });
  expect(shown).toMatch(/Requests are refused 35 % of batch requests since \d\d:\d\d:00 \(40 s\) 27\.4 requests\/s come/);
});

test('has the shares of each zone against those of the fleet', () => {
  const shares = [groupShare({ group: 'near', share: 0.6 }), groupShare({ group: 'far', share: 0.4 })];
  const zones = [zone({ shares: [{ group: 'near', share: 0.99 }, { group: 'far', share: 0.01 }] })];
  const shown = text({ shares, zones });
  expect(shown).toContain('What do the Envoys of each zone prefer? mean round trip 2.0 ms, 20.0 ms less');
  expect(shown).toContain('eu-west/a 2 75 % 2.0 ms 20.0 ms less ▲ 99 % (well above the fleet) ▼ 1.0 % (well below the fleet)');
  expect(shown).toContain('shares of the fleet 60 % 40 %');
});
