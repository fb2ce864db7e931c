/** Text for numbers and times. Widths stay steady: the digits shown depend on the size of a value only. */

export const NONE = '–';

const NARROW_SPACE = '\u202f';

type Maybe = number | null | undefined;

function known(value: Maybe): value is number {
  return value !== null && value !== undefined && Number.isFinite(value);
}

/** Thousands are grouped: `12 345`. */
export function count(value: Maybe): string {
  if (!known(value)) return NONE;
  return Math.round(value)
    .toString()
    .replace(/\B(?=(\d{3})+$)/g, NARROW_SPACE);
}

/** One decimal below 100, none above. */
export function rate(value: Maybe): string {
  if (!known(value)) return NONE;
  return Math.abs(value) < 99.95 ? value.toFixed(1) : count(value);
}

/** A ratio as whole per cent; below 10 % with one decimal when `fine`. */
export function percent(ratio: Maybe, fine = false): string {
  if (!known(ratio)) return NONE;
  const value = ratio * 100;
  const digits = fine && Math.abs(value) < 9.95 ? 1 : 0;
  return `${value.toFixed(digits)}${NARROW_SPACE}%`;
}

/** Seconds with two decimals below 10, one below 100. */
export function seconds(value: Maybe): string {
  if (!known(value)) return NONE;
  const digits = Math.abs(value) < 9.995 ? 2 : Math.abs(value) < 99.95 ? 1 : 0;
  return `${value.toFixed(digits)}${NARROW_SPACE}s`;
}

/** Seconds as milliseconds below one: `18.2 ms`, `340 ms`, `1.25 s`. */
export function duration(value: Maybe): string {
  if (!known(value) || Math.abs(value) >= 0.9995) return seconds(value);
  const ms = value * 1000;
  return `${ms.toFixed(Math.abs(ms) < 99.95 ? 1 : 0)}${NARROW_SPACE}ms`;
}

/** The same, and microseconds below a millisecond: `85.0 µs`. */
export function fineDuration(value: Maybe): string {
  if (!known(value) || Math.abs(value) >= 0.0009995) return duration(value);
  const us = value * 1e6;
  return `${us.toFixed(Math.abs(us) < 99.95 ? 1 : 0)}${NARROW_SPACE}µs`;
}

/** A span in its two largest units: `45 s`, `3 min 20 s`, `2 h 05 min`, `4 d 3 h`. */
export function span(totalSeconds: Maybe): string {
  if (!known(totalSeconds)) return NONE;
  const all = Math.max(0, Math.floor(totalSeconds));
  const s = all % 60;
  const min = Math.floor(all / 60) % 60;
  const h = Math.floor(all / 3600) % 24;
  const d = Math.floor(all / 86_400);
  if (d > 0) return `${d} d ${h} h`;
  if (h > 0) return `${h} h ${String(min).padStart(2, '0')} min`;
  if (min > 0) return s > 0 ? `${min} min ${s} s` : `${min} min`;
  return `${s} s`;
}

/** A span in its largest unit, rounded down: `45 s`, `3 min`, `2 h`, `4 d`. */
export function brief(totalSeconds: Maybe): string {
  const [number = NONE, unit] = span(totalSeconds).split(' ');
  return unit ? `${number} ${unit}` : number;
}

/** A horizon in full, without units that are zero: `5 min`, `1 h`, `1 d 12 h`. */
export function horizon(totalSeconds: Maybe): string {
  if (!known(totalSeconds)) return NONE;
  let rest = Math.max(0, Math.round(totalSeconds));
  const parts: string[] = [];
  for (const [unit, size] of [['d', 86_400], ['h', 3600], ['min', 60], ['s', 1]] as const) {
    const n = Math.floor(rest / size);
    rest -= n * size;
    if (n > 0) parts.push(`${n} ${unit}`);
  }
  return parts.join(' ') || '0 s';
}

/** Wall-clock time of an instant (RFC 3339 or Unix milliseconds) in the reader's zone: `04:30:09`. */
export function clock(at: string | number | null | undefined): string {
  const date = new Date(at ?? NaN);
  if (Number.isNaN(date.getTime())) return NONE;
  return [date.getHours(), date.getMinutes(), date.getSeconds()].map((part) => String(part).padStart(2, '0')).join(':');
}

const MONTHS = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec'];

/** Day and minute of an instant in the reader's zone: `7 Nov 04:30`. */
export function dayAndTime(at: string | number | null | undefined): string {
  const date = new Date(at ?? NaN);
  return Number.isNaN(date.getTime()) ? NONE : `${day(date)} ${clock(date.getTime()).slice(0, 5)}`;
}

/** `7 Nov`. */
export function day(date: Date): string {
  return `${date.getDate()} ${MONTHS[date.getMonth()]}`;
}

/** Seconds from `at` to `now`, or null when either cannot be read. */
export function secondsBetween(at: string | null | undefined, now: string | null | undefined): number | null {
  const value = (Date.parse(now ?? '') - Date.parse(at ?? '')) / 1000;
  return Number.isFinite(value) ? value : null;
}

/** `1 proxy`, `2 proxies`. */
export function plural(n: number, one: string, many = `${one}s`): string {
  return `${count(n)} ${n === 1 ? one : many}`;
}
