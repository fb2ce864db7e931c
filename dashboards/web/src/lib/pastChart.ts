import type uPlot from 'uplot';

import { clockTick, type Palette } from './chart';
import { day } from './format';
import { lonely, type PastData } from './past';

/** What the drawing needs and may change between two draws. */
export interface PastContext {
  palette: Palette;
  data: PastData;
  gaps: [number, number][];
  range: [number, number];
  top: number;
  tick: (value: number) => string;
  onHover: (index: number | null) => void;
}

const MINUTE = 60;
const HOUR = 3600;
const DAY = 86_400;
const INCREMENTS = [
  ...[5, 10, 15, 30].map((n) => n * MINUTE),
  ...[1, 2, 3, 6, 12].map((n) => n * HOUR),
  ...[1, 2, 4, 7].map((n) => n * DAY),
];

/** The time of day; at midnight the date. */
function timeTick(unixSeconds: number): string {
  const date = new Date(unixSeconds * 1000);
  return date.getHours() === 0 && date.getMinutes() === 0 ? day(date) : clockTick(unixSeconds);
}

/** uPlot options of the chart of the past; `context` is asked at each draw. */
export function pastOptions(width: number, height: number, context: () => PastContext): uPlot.Options {
  const grid = { stroke: () => context().palette.grid, width: 1 };
  const axis = { stroke: () => context().palette.label, font: context().palette.font, ticks: { show: false } };
  const points = (column: 1 | 2) => ({ show: true, size: 4, filter: () => lonely(context().data[column]) });
  return {
    width,
    height,
    padding: [12, 12, 0, 0],
    legend: { show: false },
    cursor: { drag: { x: false, y: false }, y: false, points: { size: 7 } },
    scales: {
      x: { time: true, range: () => context().range },
      y: { range: () => [0, context().top] },
    },
    axes: [
      { ...axis, grid: { show: false }, size: 28, space: 64, incrs: INCREMENTS, values: (_, splits) => splits.map(timeTick) },
      { ...axis, grid, size: 52, space: 40, gap: 8, values: (_, splits) => splits.map(context().tick) },
    ],
    series: [
      {},
      { label: 'value', stroke: () => context().palette.ink, width: 1.75, points: points(1) },
      { label: 'highest', stroke: () => context().palette.label, width: 1.25, dash: [2, 3], points: points(2) },
    ],
    hooks: {
      setCursor: [(chart) => context().onHover(chart.cursor.idx ?? null)],
      drawAxes: [(chart) => drawGaps(chart, context())],
    },
  };
}

/** Hatches what nobody measured, so that it does not look like a zero. */
function drawGaps(chart: uPlot, { palette, gaps }: PastContext): void {
  const { ctx, bbox } = chart;
  const pixel = window.devicePixelRatio || 1;
  const bottom = bbox.top + bbox.height;
  ctx.save();
  ctx.strokeStyle = palette.line;
  ctx.lineWidth = pixel;
  for (const gap of gaps) {
    const [from, to] = gap.map((t) => Math.min(bbox.left + bbox.width, Math.max(bbox.left, chart.valToPos(t, 'x', true)))) as [number, number];
    ctx.save();
    ctx.beginPath();
    ctx.rect(from, bbox.top, Math.max(pixel, to - from), bbox.height);
    ctx.clip();
    ctx.beginPath();
    const spacing = 7 * pixel;
    // From one grid of lines for all gaps, so that they do not shift against each other.
    for (let x = bbox.left + Math.floor((from - bbox.height - bbox.left) / spacing) * spacing; x < to; x += spacing) {
      ctx.moveTo(x, bottom);
      ctx.lineTo(x + bbox.height, bbox.top);
    }
    ctx.stroke();
    ctx.restore();
  }
  ctx.restore();
}
