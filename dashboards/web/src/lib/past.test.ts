import { describe, expect, test } from 'vitest';

import type { History } from './answers';
import { metricInfo } from './metrics';
import { figures, gaps, lonely, pastData, pastTop, RANGES, refreshSeconds, subjectNames, valueWords } from './past';
import type { State } from './types';

const at = (seconds: number) => new Date(seconds * 1000).toISOString();
const history = (times: number[], over: Partial<History> = {}): History => ({
  metric: 'queue_depth',
  source: 'minutes',
  step_seconds: 60,
  from: at(30),
  to: at(630),
  points: times.map((t) => ({ t, value: t / 60 })),
  ...over,
});

describe('gaps', () => {
  const whole = [60, 120, 180, 240, 300, 360, 420, 480, 540];

  test('a chart without holes has none, although it does not begin with a step and the last is not there yet', () => {
    expect(gaps(history(whole))).toEqual([]);
    expect(gaps(history(whole.slice(0, -1)))).toEqual([]);
  });

  test('are from the end of the last step to the begin of the next', () => {
    expect(gaps(history(whole.filter((t) => t < 240 || t > 360)))).toEqual([[240, 420]]);
  });

  test('are also before the first telemetry and after the last', () => {
    expect(gaps(history([240, 300]))).toEqual([
      [30, 240],
      [360, 630],
    ]);
  });

  test('break the line', () => {
    expect(pastData(history([60, 120, 300]))).toEqual([
      [60, 120, 180, 300],
      [1, 2, null, 5],
      [null, null, null, null],
    ]);
  });

  test('leave points that only a dot can show', () => {
    expect(lonely([1, null, 2, 3, null, 4])).toEqual([0, 5]);
    expect(lonely([1, 2])).toEqual([]);
  });
});

test('the largest value is a line of its own', () => {
  const points = [{ t: 60, value: 1, max: 3 }];
  expect(pastData(history([], { points }))[2]).toEqual([3]);
  expect(pastTop('requests', pastData(history([], { points })))).toBe(4);
});

test('the value axis fits small values, and parts of one end at one', () => {
  expect(pastTop('seconds', [[60], [0.034], [null]])).toBeCloseTo(0.04);
  expect(pastTop('ratio', [[60], [0.2], [null]])).toBe(1);
  expect(pastTop('requests', [[60], [0], [null]])).toBe(1);
});

test('figures', () => {
  expect(figures(history([300, 60, 120]).points)).toEqual({ newest: 2, lowest: 1, highest: 5 });
  expect(figures([])).toEqual({ newest: null, lowest: null, highest: null });
});

test('ranges are an hour to 14 days', () => {
  expect(RANGES.map((range) => range.seconds / 3600)).toEqual([1, 6, 24, 168, 336]);
});

test('loads again once a step, sooner after a failure, never seldom', () => {
  expect(refreshSeconds(60, false)).toBe(60);
  expect(refreshSeconds(3600, false)).toBe(300);
  expect(refreshSeconds(60, true)).toBe(10);
  expect(refreshSeconds(null, false)).toBe(10);
});

test('says what a line is of', () => {
  expect(valueWords('backend', metricInfo('queue_depth')).value).toBe('mean of each step');
  expect(valueWords('model', metricInfo('queue_depth')).value).toBe('sum of the backends');
  expect(valueWords('pool', metricInfo('kv_used')).value).toBe('mean of the backends');
});

test('one that left can still be looked at', () => {
  const state = { models: [{ name: 'chat' }], pools: [], backends: [{ address: 'a:1' }, { address: 'a:1' }] } as unknown as State;
  expect(subjectNames(state, { kind: 'backend', name: 'b:1' })).toEqual({ model: ['chat'], pool: [], backend: ['a:1', 'b:1'] });
  expect(subjectNames(state, { kind: 'model', name: 'chat' }).model).toEqual(['chat']);
});
