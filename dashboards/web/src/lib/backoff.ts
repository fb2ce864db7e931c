/** Milliseconds to wait before the `attempt`th try in a row (from 1): 1 s, doubling to at most 10 s. */
export function retryDelay(attempt: number): number {
  return Math.min(10_000, 1000 * 2 ** (Math.max(1, attempt) - 1));
}

/** A stream that is open but silent this long is shown as lost. States come each second. */
export const SILENCE_MS = 5000;
