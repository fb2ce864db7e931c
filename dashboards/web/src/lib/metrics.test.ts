import { expect, test } from 'vitest';

import { METRICS, metricValue, tickText } from './metrics';

const flat = (text: string) => text.replaceAll('\u202f', ' ');

test('each metric is there once, with a name of its own', () => {
  expect(METRICS).toHaveLength(17);
  expect(new Set(METRICS.map((metric) => metric.id)).size).toBe(17);
  expect(new Set(METRICS.map((metric) => metric.name)).size).toBe(17);
});

test('values have the digits and the unit that fit', () => {
  expect(flat(metricValue('seconds', 0.0182))).toBe('18.2 ms');
  expect(flat(metricValue('seconds', 1.25))).toBe('1.25 s');
  expect(flat(metricValue('ratio', 0.46))).toBe('46 %');
  expect(metricValue('requests/s', 0.0412)).toBe('0.041');
  expect(flat(metricValue('tokens/s', 5200))).toBe('5 200');
  expect(metricValue('requests', 0)).toBe('0.0');
  expect(metricValue('requests', null)).toBe('–');
});

test('ticks are short', () => {
  expect(tickText('seconds', 0.30000000000000004, 0.5)).toBe('300 ms');
  expect(tickText('seconds', 2.5, 5)).toBe('2.5 s');
  expect(flat(tickText('ratio', 0.2, 1))).toBe('20 %');
  expect(flat(tickText('tokens/s', 12_000, 15_000))).toBe('12 000');
  expect(tickText('requests', 2.5, 10)).toBe('2.5');
});
