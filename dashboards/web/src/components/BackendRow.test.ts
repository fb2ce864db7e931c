import { render } from 'svelte/server';
import { expect, test } from 'vitest';

import { backend, pool, profile, words } from '../lib/fixtures';
import type { Backend } from '../lib/types';
import BackendRow from './BackendRow.svelte';

function body(over: Partial<Backend>, open = false): string {
  const props = { backend: backend(over), pool: pool(), history: [], scale: 1, sloSeconds: 2, open, onToggle: () => {} };
  return render(BackendRow, { props }).body;
}

const text = (over: Partial<Backend>, open = false) => words(body(over, open));

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
  expect(body({})).not.toContain('backend-faults');
});

test('marks a verdict and says in full what it does to the share', () => {
  const reason = 'is sick (silent); kept at 0.10 requests/s, to be seen well again';
  expect(text({ verdict: 'sick', reason })).toContain(`verdict: sick ${reason}`);
  expect(text({ verdict: 'sick', reason }).match(/kept at/g)).toHaveLength(1);
  expect(text({ verdict: 'warming', reason: 'has just started' })).toContain('verdict: warming has just started');
  expect(body({})).not.toContain('backend-verdict');
});

test('a sick backend that is down says why it is down, once', () => {
  const shown = text({ verdict: 'sick', state: 'down', reason: 'connection refused' });
  expect(shown).toContain('down connection refused verdict: sick');
  expect(shown.match(/connection refused/g)).toHaveLength(1);
});

test('has the share that it would be given only where that is told', () => {
  expect(text({ advised_share: 0.31 })).toContain('advised 31 %');
  expect(text({ advised_share: 0.31 }, true)).toContain('would be given 31 %');
  expect(text({}, true)).not.toMatch(/advised|would be given/);
});

test('details have what an iteration costs, what fits, and how sure that is', () => {
  const shown = text({ profile: profile() }, true);
  expect(shown).toContain('What an iteration costs fixed 11.2 ms a sequence + 90.0 µs prompt + 85.0 ms per 1 000 tokens KV cache + 100 µs per 1 000 tokens known to ± 3.4 %, by 12 400 iterations');
  expect(shown).toContain('What fits into its batch sequences 256 KV cache 480 000 tokens an iteration 8 192 tokens when full 7.2 req/s at its usual speed');
});

test('details leave out what is not learned', () => {
  expect(text({}, true)).not.toContain('What an iteration costs');
  const shown = text({ profile: profile({ max_sequences: null, kv_tokens: null, token_budget: null, observations: 0, relative_error: 1 }) }, true);
  expect(shown).toContain('What fits into its batch when full 7.2 req/s');
  expect(shown).toContain('known to what its pool shows: none of its own observed yet');
});

test('says in full why a backend does not serve', () => {
  const reason = 'metrics page answered with status 404';
  expect(text({ state: 'down', reason })).toContain(`down ${reason}`);
  expect(body({ reason })).not.toContain('backend-reason');
});

test('says who brought a backend in, and how long its lease still is', () => {
  expect(text({})).toContain('ready configured');
  expect(text({ origin: 'registered', lease_seconds: 30, lease_remaining_seconds: 21 })).toContain('ready lease 21 s');
  expect(text({ origin: 'registered', lease_seconds: 30, lease_remaining_seconds: 4 })).toContain('ready lease 4 s (registered with a lease of 30 s, 4 s left: its renewal is late)');
});

test('has its details closed until they are opened', () => {
  expect(body({})).toContain('aria-expanded="false"');
  expect(body({})).not.toContain('backend-details');
  const shown = text({ gateway_errors: 6 }, true);
  expect(body({}, true)).toMatch(/aria-expanded="true" aria-controls="(\S+)"[^]*<tr id="\1"/);
  expect(shown).toContain('in progress 3 first byte 0.25 s of 95 % within 0.60 s');
  expect(shown).toContain('whole answer 2.50 s');
  expect(shown).toContain('requests ended 1 200 failed there 6 (0.5 %) answered whole 1 150 mean time 2.20 s prompt tokens 360 000 output tokens 54 000');
  expect(shown).toContain('brought in listed in the configuration file');
});

test('details say what is not known', () => {
  const shown = text({ requests_in_progress: null, first_byte_seconds: null, first_byte_p95_seconds: null, telemetry_age_seconds: null }, true);
  expect(shown).toContain('in progress unknown: not every Envoy reports');
  expect(shown).toContain('first byte none yet');
  expect(shown).toContain('telemetry none yet');
  const unlogged = { response_seconds: null, gateway_responses: 0, gateway_responses_seconds: 0, gateway_prompt_tokens: 0, gateway_output_tokens: 0 };
  expect(text(unlogged, true)).toContain('whole answer none yet');
  expect(text(unlogged, true)).toContain('answered whole 0 mean time – tokens none logged');
});
