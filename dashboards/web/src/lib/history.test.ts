import { expect, test } from 'vitest';

import { backendKey, remember, sparkPoints, type ShareHistory } from './history';
import type { State } from './types';

const at = (seconds: number, shares: Record<string, number>) =>
  ({
    now: new Date(seconds * 1000).toISOString(),
    backends: Object.entries(shares).map(([address, share]) => ({ model: 'chat', address, share })),
  }) as unknown as State;

const key = backendKey({ model: 'chat', address: 'a' });

test('keeps two minutes and drops backends that left', () => {
  let history: ShareHistory = new Map();
  for (let second = 0; second < 200; second++) history = remember(history, at(1000 + second, { a: 0.5, b: 0.5 }));
  expect(history.get(key)).toHaveLength(120);
  history = remember(history, at(1200, { a: 1 }));
  expect([...history.keys()]).toEqual([key]);
});

test('the same instant twice counts once', () => {
  let history = remember(new Map(), at(1000, { a: 0.5 }));
  history = remember(history, at(1000, { a: 0.6 }));
  expect(history.get(key)).toEqual([{ t: 1000, share: 0.6 }]);
});

test('the newest point is at the right, larger shares are higher and cut at the top', () => {
  const points = [
    { t: 940, share: 0 },
    { t: 1000, share: 0.8 },
  ];
  expect(sparkPoints(points, 80, 20, 0.4)).toBe('40.0,20.0 80.0,0.0');
  expect(sparkPoints([], 80, 20, 0.4)).toBe('');
});
