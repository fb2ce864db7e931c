/** What of a model's requests is refused. */

import { count, percent } from './format';
import type { Model, Shed } from './types';
import type { Mark } from './words';

/** Parts that differ by less are shown as one. */
const ALIKE = 0.005;

interface Lane {
  name: 'batch' | 'interactive';
  /** Part that Envoys are told to refuse. */
  told: number;
  /** Part that was decided to be refused. */
  decided: number;
  /** Requests refused since the start. */
  refused: number;
}

/** The lanes of which something is refused, or would be. */
function lanes(shed: Shed): Lane[] {
  const all: Lane[] = [
    { name: 'batch', told: shed.batch_ratio, decided: shed.advised_batch_ratio, refused: shed.batch_refused },
    { name: 'interactive', told: shed.interactive_ratio, decided: shed.advised_interactive_ratio, refused: shed.interactive_refused },
  ];
  return all.filter(({ told, decided }) => told > 0 || decided > 0);
}

export interface ShedNote {
  mark: Mark;
  /** A line for each lane: `35 % of batch requests`. */
  lanes: string[];
  reason: string | null;
  /** Why no Envoy is told, or how many requests it was so far. */
  more: string;
}

export function shedNote({ shed, rung }: Pick<Model, 'shed' | 'rung'>): ShedNote | null {
  const shown = lanes(shed);
  if (shown.length === 0) return null;
  const isTold = shown.some(({ told }) => told > 0);
  const logged = shown.filter(({ refused }) => refused > 0).map(({ name, refused }) => `${count(refused)} ${name}`);
  return {
    mark: isTold
      ? { word: 'Requests are refused', shape: 'triangle', tone: 'warn' }
      : { word: 'Requests would be refused', shape: 'ring', tone: 'quiet' },
    lanes: shown.map((lane) => laneText(lane, isTold)),
    reason: shed.reason,
    more: isTold
      ? logged.length > 0 ? `${logged.join(' and ')} requests refused since Clairvoy started` : ''
      : ['shadow', 'advise'].includes(rung) ? `no Envoy is told, on the rung ${rung}` : 'no Envoy is told at present',
  };
}

function laneText({ name, told, decided }: Lane, isTold: boolean): string {
  if (!isTold) return `${percent(decided, true)} of ${name} requests`;
  const other = Math.abs(told - decided) >= ALIKE ? ` (${percent(decided, true)} decided)` : '';
  return `${percent(told, true)} of ${name} requests${other}`;
}
