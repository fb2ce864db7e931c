/** Invented answers of GET /api/v1/history, with holes in them. All times in Unix seconds. */

const MINUTE = 60;
const HOUR = 3600;
const DAY = 86_400;

/** Usual value of each metric, and whether it has a largest one beside it. */
const METRICS = {
  queue_depth: [6, true], running: [42, true], kv_used: [0.46, true], gpu_utilisation: [0.71, true],
  ttft_seconds: [0.34, false], ttft_p50_seconds: [0.26, true], ttft_p95_seconds: [1.1, true],
  inter_token_seconds: [0.018, false], inter_token_p95_seconds: [0.041, true], queue_wait_seconds: [0.06, false],
  arrived_per_second: [18, false], completed_per_second: [17.8, false], preempted_per_second: [0.04, false],
  prompt_tokens_per_second: [5200, false], output_tokens_per_second: [4300, false],
  iterations_per_second: [210, false], tokens_per_iteration: [38, false],
};

function plan(isBackend, span) {
  if (span <= (isBackend ? 1000 : 300)) return { source: 'raw', step: isBackend ? 1 : 10 };
  const minutes = (isBackend ? [1, 2, 5] : [1, 2, 5, 10]).map((n) => n * MINUTE).find((step) => span <= step * 1000);
  return minutes ? { source: 'minutes', step: minutes } : { source: 'hours', step: HOUR };
}

const noise = (seed) => {
  const x = Math.sin(seed * 12.9898) * 43758.5453;
  return x - Math.floor(x);
};

/** Nobody measured half an hour ago for six minutes, and two days and nine days ago for some hours. */
const isHole = (age) =>
  (age > 26 * MINUTE && age < 32 * MINUTE) || (age > 2 * DAY && age < 2 * DAY + 5 * HOUR) || (age > 9 * DAY && age < 9 * DAY + 14 * HOUR);

/** The answer, or `{ status, message }`. `names` are known subjects by kind. */
export function past(params, names, now) {
  const kind = ['model', 'pool', 'backend'].find((word) => params.get(word));
  const metric = params.get('metric');
  if (!kind || !(metric in METRICS)) return { status: 400, message: 'say one of `model`, `pool` and `backend`, and a metric' };
  const name = params.get(kind);
  if (!names[kind].includes(name)) return { status: 404, message: `there is no ${kind} \`${name}\`` };
  const to = Number(params.get('to') ?? now);
  const from = Number(params.get('from') ?? to - HOUR);
  const { source, step } = plan(kind === 'backend', to - from);
  const [usual, hasMax] = METRICS[metric];
  const scale = { model: 1, pool: 0.5, backend: 0.2 }[kind];
  const size = usual <= 1 ? usual : usual * scale;
  const isRatio = metric === 'kv_used' || metric === 'gpu_utilisation';
  const points = [];
  for (let t = Math.ceil(from / step) * step; t + step <= to; t += step) {
    if (isHole(now - t)) continue;
    const day = 1 + 0.55 * Math.sin((2 * Math.PI * (t - 8 * HOUR)) / DAY) + 0.08 * Math.sin((2 * Math.PI * t) / 1900);
    const busy = Math.floor(t / (3 * HOUR)) % 7 === 0 ? 1.35 : 1;
    const cap = isRatio ? 1 : Infinity;
    const value = Math.min(cap, size * day * busy * (0.9 + 0.2 * noise(t + size)));
    points.push({ t, value, ...(hasMax ? { max: Math.min(cap, value * (kind === 'backend' || usual <= 1.5 ? 1.3 : 0.45) * (1 + 0.3 * noise(t))) } : {}) });
  }
  const iso = (t) => new Date(t * 1000).toISOString();
  return { status: 200, body: { metric, source, step_seconds: step, from: iso(from), to: iso(to), points } };
}
