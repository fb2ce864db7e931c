import { describe, expect, test } from 'vitest';

import { againstBaseline, boundMark, carrier } from './record';

const flat = (text: string) => text.replaceAll('\u202f', ' ');

describe('error against the best baseline', () => {
  test('less is skill, more is not', () => {
    expect(flat(againstBaseline(0.62))).toBe('38 % less');
    expect(flat(againstBaseline(1.05))).toBe('5 % more');
    expect(flat(againstBaseline(3.4))).toBe('240 % more');
    expect(flat(againstBaseline(0))).toBe('100 % less');
  });

  test('no difference of 0 % is shown', () => {
    for (const ratio of [1, 0.996, 1.004]) expect(againstBaseline(ratio)).toBe('the same');
  });

  test('unknown is a dash', () => {
    expect(againstBaseline(null)).toBe('–');
    expect(againstBaseline(NaN)).toBe('–');
  });
});

describe('bounds', () => {
  test('a coverage within five points of its promise is not marked', () => {
    for (const coverage of [0.85, 0.9, 0.95]) expect(boundMark(coverage, 0.9, 500)).toBeNull();
    for (const coverage of [0.9, 0.95, 1]) expect(boundMark(coverage, 0.95, 500)).toBeNull();
  });

  test('one further off is marked in words, low and high by different shapes', () => {
    const low = boundMark(0.849, 0.9, 100);
    const high = boundMark(0.951, 0.9, 100);
    expect(low?.word).toBe('bound too low');
    expect(high?.word).toBe('bound too high');
    expect(low?.shape).not.toBe(high?.shape);
    expect(boundMark(0.89, 0.95, 100)?.word).toBe('bound too low');
  });

  test('with few outcomes, or none known, nothing is said', () => {
    expect(boundMark(0.5, 0.9, 99)).toBeNull();
    expect(boundMark(null, 0.9, 5000)).toBeNull();
  });
});

describe('who carries a forecast', () => {
  const experts = [
    { name: 'regression', weight: 0.62 },
    { name: 'seasonal_smooth', weight: 0.2 },
    { name: 'gradient_boosting', weight: 0.18 },
  ];

  test('the champion with its weight, then the others', () => {
    const { champion, challengers, fallback } = carrier({ baseline: null, experts });
    expect(flat(champion)).toBe('regression 62 %');
    expect(flat(challengers)).toBe('last season, smoothed 20 % · gradient boosting 18 %');
    expect(fallback).toBeNull();
  });

  test('a baseline in their place is said in words, with a shape', () => {
    const { fallback } = carrier({ baseline: 'last_value', experts });
    expect(fallback?.word).toBe('carried by last value: the experts have lately done worse');
    expect(fallback?.shape).toBe('triangle');
  });

  test('nobody is a dash', () => {
    expect(carrier({ baseline: null, experts: [] })).toEqual({ champion: '–', challengers: '', fallback: null });
  });
});
