import { describe, expect, test } from 'vitest';

import type { Demand } from './answers';
import { ceiling, chartData, COLUMN, niceCeiling, timeRange } from './series';

const quantiles = (t: number, q50: number) => ({ t, q10: q50 - 2, q50, q90: q50 + 2, q95: q50 + 3, q99: q50 + 5 });

const demand: Demand = {
  model: 'chat',
  step_seconds: 10,
  lead_seconds: 20,
  actual: [
    { t: 100, rps: 10 },
    { t: 110, rps: 11 },
    { t: 120, rps: 12 },
  ],
  issued: [
    { t: 110, issued_at: 90, q10: 8, q50: 10, q90: 13 },
    { t: 120, issued_at: 100, q10: 9, q50: 11, q90: 14 },
    { t: 140, issued_at: 120, q10: 10, q50: 13, q90: 16 },
  ],
  latest: { issued_at: 120, points: [quantiles(130, 13), quantiles(160, 15)] },
};

describe('chartData', () => {
  test('all lines share one ascending axis', () => {
    const data = chartData(demand);
    expect(data[COLUMN.time]).toEqual([100, 110, 120, 130, 160]);
    for (const column of data) expect(column).toHaveLength(5);
    expect(data[COLUMN.actual]).toEqual([10, 11, 12, null, null]);
  });

  test('the fan opens from the last measured point', () => {
    const data = chartData(demand);
    expect(data[COLUMN.nextLow]).toEqual([null, null, 12, 11, 13]);
    expect(data[COLUMN.nextTop]).toEqual([null, null, 12, 18, 20]);
  });

  test('forecasts issued earlier end with the measurement', () => {
    expect(chartData(demand)[COLUMN.issuedMedian]).toEqual([null, 10, 11, null, null]);
  });

  test('a missing step is a gap, not a straight line', () => {
    const holed = { ...demand, actual: [{ t: 100, rps: 10 }, { t: 140, rps: 11 }], issued: [], latest: null };
    expect(chartData(holed)[COLUMN.time]).toEqual([100, 110, 140]);
    expect(chartData(holed)[COLUMN.actual]).toEqual([10, null, 11]);
  });

  test('nothing measured and nothing foreseen', () => {
    const data = chartData({ ...demand, actual: [], issued: [], latest: null });
    expect(data.every((column) => column.length === 0)).toBe(true);
    expect(ceiling(data)).toBe(1);
  });
});

test('the time axis reaches past the forecast', () => {
  expect(timeRange(demand, 125, 600)).toEqual([-475, 170]);
  expect(timeRange({ ...demand, latest: null }, 125, 600)).toEqual([-475, 135]);
});

describe('ceiling', () => {
  test('covers the bands', () => {
    expect(ceiling(chartData(demand))).toBe(20);
  });

  test('a far q99 is cut', () => {
    const far = { ...demand, latest: { issued_at: 120, points: [{ ...quantiles(130, 13), q99: 5000 }] } };
    expect(ceiling(chartData(far))).toBe(30);
  });

  test('is round', () => {
    expect([0, 0.2, 1.2, 17, 25, 61, 99, 101].map((value) => niceCeiling(value))).toEqual([1, 1, 1.5, 20, 25, 80, 100, 150]);
    expect([0, 0.0005, 0.034].map((value) => niceCeiling(value, 0.01))).toEqual([0.01, 0.01, 0.04]);
  });
});
