import type { Totals } from './types';

/** `away`: the database takes nothing; `behind`: it takes rows while others still wait; `waiting`: not known which. */
export type SpoolPhase = 'empty' | 'waiting' | 'away' | 'behind';

/** What waits on disk for the database, as followed from state to state. */
export interface Spool {
  phase: SpoolPhase;
  rows: number;
  /** Rows that the database has. */
  written: number;
  dropped: number;
  /** Rows dropped by the time anything had to wait; null when this page came later. */
  droppedBefore: number | null;
}

export function followSpool(previous: Spool | null, totals: Totals): Spool {
  const { telemetry_spooled: rows, telemetry_rows: written, telemetry_dropped: dropped } = totals;
  if (rows === 0) return { phase: 'empty', rows, written, dropped, droppedBefore: dropped };
  return { phase: phaseOf(previous, rows, written), rows, written, dropped, droppedBefore: previous?.droppedBefore ?? null };
}

function phaseOf(previous: Spool | null, rows: number, written: number): SpoolPhase {
  if (previous === null) return 'waiting';
  // What was written in the second of the change was written before it.
  if (previous.phase === 'empty') return 'away';
  if (written > previous.written) return 'behind';
  return rows > previous.rows ? 'away' : previous.phase;
}

/** Rows lost since something waits, or since Clairvoy's start where that is all that is known. */
export function rowsLost({ dropped, droppedBefore }: Spool): number {
  return dropped - (droppedBefore ?? 0);
}
