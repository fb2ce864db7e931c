import { expect, test } from 'vitest';

import { historyHash, parseRoute } from './route';

test('an address without a page is the overview', () => {
  for (const hash of ['', '#', '#/', '#/other', '#/historyx?model=a']) expect(parseRoute(hash)).toEqual({ page: 'overview' });
});

test('a choice survives in the address', () => {
  const subject = { kind: 'backend', name: '[::1]:8000' } as const;
  const hash = historyHash(subject, 'ttft_p95_seconds', '7d');
  expect(parseRoute(hash)).toEqual({ page: 'history', subject, metric: 'ttft_p95_seconds', range: '7d' });
  const odd = { kind: 'model', name: 'a b/c?d=é&' } as const;
  expect(parseRoute(historyHash(odd, 'running', '1h'))).toMatchObject({ subject: odd });
});

test('what is missing or unknown is as usual', () => {
  const usual = { page: 'history', subject: null, metric: 'queue_depth', range: '1h' };
  expect(parseRoute('#/history')).toEqual(usual);
  expect(parseRoute('#/history?metric=moon&range=9y&model=')).toEqual(usual);
});
