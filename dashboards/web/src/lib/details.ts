/** All that is known of one backend, in groups: what the table has no column for, or only a title. */

import { count, duration, NONE, percent, rate, seconds, span } from './format';
import type { OriginNote } from './membership';
import type { Backend } from './types';
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
        ['share', `${percent(backend.share, true)} (by capacity ${percent(backend.capacity_share, true)})`],
        ['because', backend.reason || NONE],
      ],
    },
    {
      title: 'As Envoys see it',
      rows: [
        ['in progress', backend.requests_in_progress === null ? 'unknown: not every Envoy reports' : count(backend.requests_in_progress)],
        ['first byte', backend.first_byte_seconds === null ? 'none logged yet' : seconds(backend.first_byte_seconds)],
        ['of 95 % within', seconds(backend.first_byte_p95_seconds)],
        ['whole answer', wholeAnswer(backend)],
        ['requests ended', count(backend.gateway_requests)],
        ['answered whole', count(backend.gateway_responses)],
        ['failed there', failed(backend)],
        ['tokens', tokens(backend)],
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
      ],
    },
  ];
}

function wholeAnswer({ response_seconds: late, gateway_responses: answers, gateway_responses_seconds: sum }: Backend): string {
  if (late === null || answers <= 0) return 'none logged yet';
  return `${seconds(late)} (${seconds(sum / answers)} since it joined)`;
}

function tokens({ gateway_requests: requests, gateway_prompt_tokens: prompt, gateway_output_tokens: output }: Backend): string {
  if (requests <= 0) return 'none logged yet';
  return prompt + output > 0 ? `${count(prompt)} in, ${count(output)} out` : 'none in the access logs';
}

function failed({ gateway_requests: requests, gateway_errors: errors }: Backend): string {
  return errors > 0 ? `${count(errors)} (${percent(errors / requests, true)})` : count(errors);
}
