import { describe, expect, test } from 'vitest';

import { brief, clock, count, fineDuration, horizon, NONE, percent, plural, rate, seconds, secondsBetween, span } from './format';

const flat = (text: string) => text.replaceAll('\u202f', ' ');

describe('numbers', () => {
  test('an unknown value is a dash everywhere', () => {
    for (const text of [count, rate, percent, seconds, span, brief, horizon]) {
      expect(text(null)).toBe(NONE);
      expect(text(undefined)).toBe(NONE);
      expect(text(NaN)).toBe(NONE);
    }
    expect(clock('never')).toBe(NONE);
  });

  test('thousands are grouped', () => {
    expect(flat(count(999))).toBe('999');
    expect(flat(count(1234567))).toBe('1 234 567');
  });

  test('digits follow the size', () => {
    expect(rate(18.34)).toBe('18.3');
    expect(rate(0)).toBe('0.0');
    expect(rate(99.99)).toBe('100');
    expect(flat(seconds(0.214))).toBe('0.21 s');
    expect(flat(seconds(12.34))).toBe('12.3 s');
    expect(flat(percent(0.061))).toBe('6 %');
    expect(flat(percent(0.061, true))).toBe('6.1 %');
    expect(flat(percent(0.31, true))).toBe('31 %');
  });

  test('the cost of a token is in microseconds', () => {
    expect(flat(fineDuration(0.000085))).toBe('85.0 µs');
    expect(flat(fineDuration(0.0004))).toBe('400 µs');
    expect(flat(fineDuration(0.0112))).toBe('11.2 ms');
    expect(fineDuration(null)).toBe(NONE);
  });

  test('plurals', () => {
    expect(plural(1, 'proxy', 'proxies')).toBe('1 proxy');
    expect(plural(0, 'proxy', 'proxies')).toBe('0 proxies');
  });
});

describe('times', () => {
  test('brief spans use one', () => {
    expect(brief(24.6)).toBe('24 s');
    expect(brief(0)).toBe('0 s');
    expect(brief(200)).toBe('3 min');
    expect(brief(7500)).toBe('2 h');
    expect(brief(100 * 3600)).toBe('4 d');
  });

  test('spans use two units', () => {
    expect(span(45.9)).toBe('45 s');
    expect(span(200)).toBe('3 min 20 s');
    expect(span(180)).toBe('3 min');
    expect(span(7500)).toBe('2 h 05 min');
    expect(span(100 * 3600)).toBe('4 d 4 h');
    expect(span(-3)).toBe('0 s');
  });

  test('horizons leave out what is zero', () => {
    expect([10, 60, 300, 3600, 21_600, 86_400].map(horizon)).toEqual(['10 s', '1 min', '5 min', '1 h', '6 h', '1 d']);
    expect(horizon(129_600)).toBe('1 d 12 h');
    expect(horizon(88_200)).toBe('1 d 30 min');
    expect(horizon(0)).toBe('0 s');
  });

  test('the clock has a fixed width', () => {
    expect(clock('2026-11-21T04:30:09.000Z')).toMatch(/^\d\d:\d\d:09$/);
  });

  test('difference of two instants', () => {
    expect(secondsBetween('2026-11-21T04:30:00Z', '2026-11-21T04:30:02.5Z')).toBe(2.5);
    expect(secondsBetween(null, '2026-11-21T04:30:02Z')).toBeNull();
  });
});
