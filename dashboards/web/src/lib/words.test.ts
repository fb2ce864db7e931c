import { expect, test } from 'vitest';

import { BACKEND_MARK, changeValue, expertName, PROXY_MARK } from './words';

test('experts in words, unknown ones by their name', () => {
  expect(expertName('seasonal_naive')).toBe('last season');
  expect(expertName('seasonal_smooth')).toBe('last season, smoothed');
  expect(expertName('median')).toBe('median of all');
  expect(expertName('gradient_boosting')).toBe('gradient boosting');
});

test('no two states look the same without colour', () => {
  for (const marks of [BACKEND_MARK, PROXY_MARK]) {
    const shapes = Object.values(marks).map((mark) => mark.shape);
    expect(new Set(shapes).size).toBe(shapes.length);
  }
});

test('changes are shares or counts', () => {
  expect(changeValue('weights', 0.062)).toBe('6.2\u202f%');
  expect(changeValue('replicas', 3)).toBe('3');
  expect(changeValue('membership', null)).toBe('–');
});
