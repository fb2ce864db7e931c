import { expect, test } from 'vitest';

import { groupShare } from './fixtures';
import {
  anomalyMark,
  BACKEND_MARK,
  capacityText,
  changeValue,
  countedBy,
  expertName,
  faultMark,
  groupTraffic,
  PROXY_MARK,
  rungHint,
  tokensCountedBy,
  verdictMark,
  waitSource,
} from './words';

test('experts in words, unknown ones by their name', () => {
  expect(expertName('seasonal_naive')).toBe('last season');
  expect(expertName('seasonal_smooth')).toBe('last season, smoothed');
  expect(expertName('median')).toBe('median of all');
  expect(expertName('gradient_boosting')).toBe('gradient boosting');
});

test('demand and tokens are counted by the same two, each with a reason of its own', () => {
  for (const source of ['envoys', 'servers'] as const) {
    expect(tokensCountedBy(source).who).toBe(countedBy(source).who);
    expect(tokensCountedBy(source).why).not.toBe(countedBy(source).why);
  }
});

test('traffic of a group: errors only when there are any, and none that look like zero', () => {
  expect(groupTraffic(groupShare({ requests_per_second: 12.34, requests_in_progress: 40 }))).toEqual({ requests: '12.3 req/s, 40 in progress', errors: null });
  expect(groupTraffic(groupShare({ requests_per_second: 10, errors_per_second: 0.02 }))?.errors).toBe('< 0.1 errors/s (0.2\u202f%)');
  expect(groupTraffic(groupShare({ requests_per_second: 0, errors_per_second: 2 }))?.errors).toBe('2.0 errors/s');
});

test('while not every Envoy reports, nothing is said of a group', () => {
  expect(groupTraffic(groupShare({ requests_per_second: null, errors_per_second: null, requests_in_progress: null }))).toBeNull();
  expect(groupTraffic(null)).toBeNull();
});

test('no two states look the same without colour', () => {
  for (const marks of [BACKEND_MARK, PROXY_MARK]) {
    const shapes = Object.values(marks).map((mark) => mark.shape);
    expect(new Set(shapes).size).toBe(shapes.length);
  }
});

test('only a verdict that bounds a share is marked', () => {
  expect(verdictMark('usual')).toBeNull();
  expect(verdictMark('sick')).toMatchObject({ word: 'verdict: sick', tone: 'bad' });
  expect(verdictMark('warming')?.shape).not.toBe(verdictMark('sick')?.shape);
});

test('each rung says what it means', () => {
  const hints = (['shadow', 'advise', 'canary', 'enforce'] as const).map(rungHint);
  expect(new Set(hints).size).toBe(4);
});

test('changes are shares or counts', () => {
  expect(changeValue('weights', 0.062)).toBe('6.2\u202f%');
  expect(changeValue('replicas', 3)).toBe('3');
  expect(changeValue('membership', null)).toBe('–');
});

test('a capacity says what was seen and no more', () => {
  expect(capacityText({ rps: 8.04, lower_rps: 7.2, upper_rps: 8.9 })).toEqual({ median: '8.0', interval: '7.2 to 8.9' });
  expect(capacityText({ rps: null, lower_rps: 5.5, upper_rps: null })).toEqual({ median: '≥ 5.5', interval: '' });
  expect(capacityText({ rps: null, lower_rps: null, upper_rps: 2 })).toEqual({ median: '< 2.0', interval: '' });
  expect(capacityText(null).median).toBe('–');
  expect(capacityText(undefined).median).toBe('–');
});

test('only what has lasted is marked', () => {
  expect(anomalyMark(undefined)).toBeNull();
  expect(anomalyMark({ score: 1.4, kind: null, reason: null })).toBeNull();
  expect(anomalyMark({ score: 3, kind: 'slower_than_peers', reason: 'r' })?.word).toBe('slower than peers');
  expect(anomalyMark({ score: 3, kind: 'kv_leak', reason: 'r' })?.word).toBe('KV leak');
});

test('a fault of the telemetry is told by its sentence', () => {
  const word = (fault: string) => faultMark(fault).word;
  expect(word('kv_used is no longer on the metrics page')).toBe('metric gone');
  expect(word('queue_depth was never on the metrics page')).toBe('metric missing');
  expect(word('completed stands still while ttft_count grows')).toBe('counter stands still');
  expect(word('all numbers stand still with 4 requests running and 2 waiting')).toBe('telemetry frozen');
  expect(word('gpu_utilisation is dropped again and again: too_large')).toBe('values dropped');
  expect(word('running is 300, above the limit of 256')).toBe('above the limit');
  expect(word('something new')).toBe('telemetry fault');
});

test('who predicts a wait in words, unknown ones by their name', () => {
  expect(waitSource('recent_service')).toBe('from the latest rate of service');
  expect(waitSource('gradient_boosting')).toBe('gradient boosting');
});
