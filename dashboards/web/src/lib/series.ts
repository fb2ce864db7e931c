import type { Demand } from './answers';

/** Columns of the demand chart, in the order of {@link chartData}. */
export const COLUMN = {
  time: 0,
  actual: 1,
  issuedLow: 2,
  issuedHigh: 3,
  issuedMedian: 4,
  nextLow: 5,
  nextHigh: 6,
  nextTop: 7,
  nextMedian: 8,
} as const;

type Column = (number | null)[];

/** Unix seconds, then eight columns in requests/s of the same length; null where a line has no value. */
export type ChartData = [number[], Column, Column, Column, Column, Column, Column, Column, Column];

/**
 * Puts the three lines of a model on one time axis.
 *
 * The forecast of now starts at the last measured point before it, so that the fan opens from the line; forecasts as
 * issued earlier end where the measurement ends. Steps missing in between become gaps.
 */
export function chartData(demand: Demand): ChartData {
  const actual = new Map(demand.actual.map((point) => [point.t, point.rps]));
  const lastActual = demand.actual.at(-1)?.t ?? -Infinity;
  const issued = new Map(demand.issued.filter((point) => point.t <= lastActual).map((point) => [point.t, point]));
  const next = new Map(
    (demand.latest?.points ?? []).map((point) => [point.t, [point.q10, point.q90, point.q99, point.q50]]),
  );

  const firstNext = demand.latest?.points[0]?.t;
  const anchor = firstNext === undefined ? undefined : demand.actual.findLast((point) => point.t < firstNext);
  if (anchor) next.set(anchor.t, [anchor.rps, anchor.rps, anchor.rps, anchor.rps]);

  const gaps = gapMarks([...actual.keys()], demand.step_seconds);
  const time = [...new Set([...actual.keys(), ...issued.keys(), ...next.keys(), ...gaps])].sort((a, b) => a - b);

  const data: ChartData = [time, [], [], [], [], [], [], [], []];
  for (const t of time) {
    const past = issued.get(t);
    const future = next.get(t);
    data[COLUMN.actual].push(actual.get(t) ?? null);
    data[COLUMN.issuedLow].push(past?.q10 ?? null);
    data[COLUMN.issuedHigh].push(past?.q90 ?? null);
    data[COLUMN.issuedMedian].push(past?.q50 ?? null);
    data[COLUMN.nextLow].push(future?.[0] ?? null);
    data[COLUMN.nextHigh].push(future?.[1] ?? null);
    data[COLUMN.nextTop].push(future?.[2] ?? null);
    data[COLUMN.nextMedian].push(future?.[3] ?? null);
  }
  return data;
}

/** One instant inside every hole wider than a step and a half. */
export function gapMarks(times: number[], stepSeconds: number): number[] {
  const marks: number[] = [];
  for (let i = 1; i < times.length; i++) {
    const [before, after] = [times[i - 1]!, times[i]!];
    if (after - before > 1.5 * stepSeconds) marks.push(before + stepSeconds);
  }
  return marks;
}

/** First and last instant to show: the asked window behind `now`, the forecast path ahead of it. */
export function timeRange(demand: Demand, nowSeconds: number, windowSeconds: number): [number, number] {
  const lastForecast = demand.latest?.points.at(-1)?.t ?? nowSeconds;
  return [nowSeconds - windowSeconds, Math.max(nowSeconds, lastForecast) + demand.step_seconds];
}

/**
 * Top of the requests/s axis: room above every line and band, but a far q99 may not flatten the rest, so it counts up
 * to twice the largest other value and is cut above.
 */
export function ceiling(data: ChartData): number {
  const largest = (column: Column) => column.reduce<number>((top, value) => Math.max(top, value ?? 0), 0);
  const lines = Math.max(
    largest(data[COLUMN.actual]),
    largest(data[COLUMN.issuedHigh]),
    largest(data[COLUMN.nextHigh]),
  );
  return niceCeiling(Math.max(lines * 1.08, Math.min(largest(data[COLUMN.nextTop]), 2 * lines)));
}

/** The next of 1, 1.5, 2, 2.5, 3, 4, 5, 6, 8 times a power of ten, and at least `least`. */
export function niceCeiling(value: number, least = 1): number {
  if (!(value > least)) return least;
  const power = 10 ** Math.floor(Math.log10(value));
  const step = [1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10].find((candidate) => candidate * power >= value * (1 - 1e-9));
  return (step ?? 10) * power;
}
