/** What the page of the past shows: which span of which metric, as columns of a chart and as figures. */

import type { History, HistoryPoint, Metric } from './answers';
import { leastTop, type MetricInfo, type Unit } from './metrics';
import { gapMarks, niceCeiling } from './series';
import type { State } from './types';

export const RANGES = [
  { id: '1h', seconds: 3600, name: '1 h', long: 'hour' },
  { id: '6h', seconds: 21_600, name: '6 h', long: '6 hours' },
  { id: '24h', seconds: 86_400, name: '24 h', long: '24 hours' },
  { id: '7d', seconds: 604_800, name: '7 d', long: '7 days' },
  { id: '14d', seconds: 1_209_600, name: '14 d', long: '14 days' },
] as const;

export type RangeId = (typeof RANGES)[number]['id'];

export function rangeOf(id: RangeId): (typeof RANGES)[number] {
  return RANGES.find((range) => range.id === id) ?? RANGES[0];
}

export const SUBJECT_KINDS = ['model', 'pool', 'backend'] as const;
export type SubjectKind = (typeof SUBJECT_KINDS)[number];

export interface Subject {
  kind: SubjectKind;
  /** A model's or pool's name, a backend's `host:port`. */
  name: string;
}

export interface PastQuery {
  subject: Subject;
  metric: Metric;
  range: RangeId;
}

type Column = (number | null)[];

/** Unix seconds, values, largest values of a backend. */
export type PastData = [number[], Column, Column];

/** Points and a null inside every hole, so that no line goes over it. */
export function pastData({ points, step_seconds }: Pick<History, 'points' | 'step_seconds'>): PastData {
  const marks = gapMarks(
    points.map((point) => point.t),
    step_seconds,
  );
  const rows: (Partial<HistoryPoint> & { t: number })[] = [...points, ...marks.map((t) => ({ t }))];
  rows.sort((a, b) => a.t - b.t);
  return [rows.map((row) => row.t), rows.map((row) => row.value ?? null), rows.map((row) => row.max ?? null)];
}

/** Rows that have a value and no neighbour with one: a line cannot show them. */
export function lonely(column: Column): number[] {
  return column.flatMap((value, i) => (value !== null && (column[i - 1] ?? null) === null && (column[i + 1] ?? null) === null ? [i] : []));
}

/** Minutes and hours are there shortly after their end; so much may lack at the end of a chart. */
const SETTLE_SECONDS = 90;

/** Spans without telemetry, in Unix seconds, from the chart's begin to its end. */
export function gaps({ points, step_seconds, from, to }: History): [number, number][] {
  const [begin, end] = [Date.parse(from) / 1000, Date.parse(to) / 1000];
  const found: [number, number][] = [];
  let covered = begin;
  for (const [i, { t }] of points.entries()) {
    // Steps begin at round times, the chart does not.
    const slack = i === 0 ? step_seconds : step_seconds / 2;
    if (t - covered > slack) found.push([covered, t]);
    covered = t + step_seconds;
  }
  if (end - covered > step_seconds + SETTLE_SECONDS) found.push([covered, end]);
  return found;
}

export interface PastFigures {
  newest: number | null;
  lowest: number | null;
  highest: number | null;
}

export function figures(points: HistoryPoint[]): PastFigures {
  const values = points.map((point) => point.value);
  return {
    newest: values.at(-1) ?? null,
    lowest: values.length > 0 ? values.reduce((a, b) => Math.min(a, b)) : null,
    highest: values.length > 0 ? values.reduce((a, b) => Math.max(a, b)) : null,
  };
}

/** Top of the value axis: parts of one end at one, everything else above its largest value. */
export function pastTop(unit: Unit, [, values, largest]: PastData): number {
  if (unit === 'ratio') return 1;
  const top = [...values, ...largest].reduce<number>((high, value) => Math.max(high, value ?? 0), 0);
  return niceCeiling(top * 1.05, leastTop(unit));
}

/** Seconds until the chart is worth loading again; sooner after a failure. */
export function refreshSeconds(stepSeconds: number | null, failed: boolean): number {
  if (failed || stepSeconds === null) return 10;
  return Math.min(300, Math.max(30, stepSeconds));
}

export const SOURCE_WORDS: Record<History['source'], string> = {
  raw: 'samples',
  minutes: 'telemetry by the minute',
  hours: 'telemetry by the hour',
};

/** What the two lines are: the value, and the largest beside it. */
export function valueWords(kind: SubjectKind, { isTotal }: MetricInfo): { value: string; largest: string } {
  if (kind === 'backend') return { value: 'mean of each step', largest: 'highest in each step' };
  return { value: isTotal ? 'sum of the backends' : 'mean of the backends', largest: 'highest of one backend' };
}

/** All models, pools and backends; one that is asked for and gone is still among them. */
export function subjectNames(state: State, asked: Subject | null): Record<SubjectKind, string[]> {
  const names = (kind: SubjectKind, known: string[]) => [
    ...new Set(asked?.kind === kind ? [...known, asked.name] : known),
  ];
  return {
    model: names('model', state.models.map((model) => model.name)),
    pool: names('pool', state.pools.map((pool) => pool.name)),
    backend: names('backend', state.backends.map((backend) => backend.address)),
  };
}
