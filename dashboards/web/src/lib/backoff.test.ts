import { expect, test } from 'vitest';

import { retryDelay } from './backoff';

test('tries soon, then less often, never rarer than each ten seconds', () => {
  expect([1, 2, 3, 4, 5, 50].map(retryDelay)).toEqual([1000, 2000, 4000, 8000, 10_000, 10_000]);
});
