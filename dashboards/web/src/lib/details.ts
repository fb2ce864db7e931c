/** All that is known of one backend, in groups: what the table has no column for, or only a title. */

import { count, duration, fineDuration, NONE, percent, rate, seconds, span } from './format';
import type { OriginNote } from './membership';
import type { Backend, Profile } from './types';
import { waitSource } from './words';

export interface DetailGroup {
  title: string;
  rows: [name: string, value: string][];
}

export function backendDetails(backend: Backend, origin: OriginNote): DetailGroup[] {
  return [
    {
      title: 'Membership',
      rows: [
        ['address', backend.address],
        ['brought in', origin.long],
        ['group', backend.group],
        ['share', `${percent(backend.share, true)} (by capacity ${percent(backend.capacity_share, true)})`],
        ...row('would be given', backend.advised_share, (share) => percent(share, true)),
        ['because', backend.reason || NONE],
      ],
    },
    {
      title: 'As Envoys see it',
      rows: [
        ['in progress', backend.requests_in_progress === null ? 'unknown: not every Envoy reports' : count(backend.requests_in_progress)],
        ['first byte', backend.first_byte_seconds === null ? 'none yet' : seconds(backend.first_byte_seconds)],
        ['of 95 % within', seconds(backend.first_byte_p95_seconds)],
        ['whole answer', backend.response_seconds === null ? 'none yet' : seconds(backend.response_seconds)],
      ],
    },
    {
      title: 'By Envoys, since it joined',
      rows: [
        ['requests ended', count(backend.gateway_requests)],
        ['failed there', failed(backend)],
        ['answered whole', count(backend.gateway_responses)],
        ['mean time', backend.gateway_responses > 0 ? seconds(backend.gateway_responses_seconds / backend.gateway_responses) : NONE],
        ...tokens(backend),
      ],
    },
    {
      title: 'As it says itself',
      rows: [
        ['telemetry', backend.telemetry_age_seconds === null ? 'none yet' : `${span(backend.telemetry_age_seconds)} old`],
        ['first token', seconds(backend.ttft_seconds)],
        ['between tokens', duration(backend.inter_token_seconds)],
        ['iterations', `${rate(backend.slowdown)} × the usual time`],
      ],
    },
    {
      title: 'What was learned',
      rows: [
        ['wait', waitSource(backend.wait_source)],
        ['usual capacity', backend.capacity_rps === null ? NONE : `${rate(backend.capacity_rps)} req/s`],
        ['anomaly score', backend.anomaly === null ? 'not judged yet' : `${rate(backend.anomaly.score)} (suspect from 1)`],
        ['verdict', backend.verdict],
      ],
    },
    ...(backend.profile ? profileGroups(backend.profile) : []),
  ];
}

function profileGroups(profile: Profile): DetailGroup[] {
  return [
    {
      title: 'What an iteration costs',
      rows: [
        ['fixed', fineDuration(profile.fixed_seconds)],
        ['a sequence', `+ ${fineDuration(profile.per_sequence_seconds)}`],
        ['prompt', `+ ${fineDuration(1000 * profile.per_prompt_token_seconds)} per 1\u202f000 tokens`],
        ['KV cache', `+ ${fineDuration(1000 * profile.per_kv_token_seconds)} per 1\u202f000 tokens`],
        ['known to', certainty(profile)],
      ],
    },
    {
      title: 'What fits into its batch',
      rows: [
        ...row('sequences', profile.max_sequences, count),
        ...row('KV cache', profile.kv_tokens, (tokens) => `${count(tokens)} tokens`),
        ...row('an iteration', profile.token_budget, (tokens) => `${count(tokens)} tokens`),
        ['when full', `${rate(profile.capacity_rps)} req/s at its usual speed`],
      ],
    },
  ];
}

function certainty({ observations, relative_error: error }: Profile): string {
  const own = Math.round(observations);
  return own < 1 ? 'what its pool shows: none of its own observed yet' : `± ${percent(error, true)}, by ${count(own)} iterations`;
}

/** A row, or none where nothing is known. */
function row(name: string, value: number | null, text: (value: number) => string): DetailGroup['rows'] {
  return value === null ? [] : [[name, text(value)]];
}

function tokens({ gateway_prompt_tokens: prompt, gateway_output_tokens: output }: Backend): DetailGroup['rows'] {
  if (prompt + output <= 0) return [['tokens', 'none logged']];
  return [
    ['prompt tokens', count(prompt)],
    ['output tokens', count(output)],
  ];
}

function failed({ gateway_requests: requests, gateway_errors: errors }: Backend): string {
  return errors > 0 ? `${count(errors)} (${percent(errors / requests, true)})` : count(errors);
}
