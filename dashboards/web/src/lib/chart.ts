import type uPlot from 'uplot';

import { ceiling, COLUMN, type ChartData } from './series';

/** Colours of the demand chart, read from the style sheet so that both themes have one source. */
export interface Palette {
  ink: string;
  label: string;
  grid: string;
  /** Stronger than the grid. */
  line: string;
  accent: string;
  /** `R G B` of the bands. */
  band: string;
  surface: string;
  font: string;
}

export function readPalette(element: Element): Palette {
  const style = getComputedStyle(element);
  const value = (name: string) => style.getPropertyValue(name).trim();
  return {
    ink: value('--ink'),
    label: value('--ink-3'),
    grid: value('--line'),
    line: value('--line-strong'),
    accent: value('--accent'),
    band: value('--band'),
    surface: value('--surface'),
    font: `11px ${value('--font')}`,
  };
}

/** What the drawing needs and may change between two draws. */
export interface ChartContext {
  palette: Palette;
  data: ChartData;
  nowSeconds: number;
  range: [number, number];
  onHover: (index: number | null) => void;
}

const tint = (context: () => ChartContext, opacity: number) => () => `rgb(${context().palette.band} / ${opacity})`;

export function clockTick(unixSeconds: number): string {
  const date = new Date(unixSeconds * 1000);
  return `${String(date.getHours()).padStart(2, '0')}:${String(date.getMinutes()).padStart(2, '0')}`;
}

/** uPlot options of the demand chart; `context` is asked at each draw. */
export function chartOptions(width: number, height: number, context: () => ChartContext): uPlot.Options {
  const hidden = { stroke: 'transparent', width: 0, points: { show: false }, spanGaps: true };
  const grid = { stroke: () => context().palette.grid, width: 1 };
  const axis = { stroke: () => context().palette.label, font: context().palette.font, ticks: { show: false } };
  return {
    width,
    height,
    padding: [20, 12, 0, 0],
    legend: { show: false },
    cursor: { sync: { key: 'demand' }, drag: { x: false, y: false }, y: false, points: { size: 7 } },
    scales: {
      x: { time: true, range: () => context().range },
      y: { range: () => [0, ceiling(context().data)] },
    },
    axes: [
      { ...axis, grid: { show: false }, size: 28, space: 80, incrs: [60, 120, 300, 600, 1800, 3600], values: (_, splits) => splits.map(clockTick) },
      { ...axis, grid, size: 44, space: 36, gap: 8 },
    ],
    series: [
      {},
      { label: 'actual', stroke: () => context().palette.ink, width: 1.75, points: { show: false } },
      hidden,
      hidden,
      { label: 'issued', stroke: () => context().palette.accent, width: 1.25, dash: [4, 3], points: { show: false } },
      hidden,
      hidden,
      hidden,
      { label: 'next', stroke: () => context().palette.accent, width: 2.25, points: { show: false }, spanGaps: true },
    ],
    bands: [
      { series: [COLUMN.issuedHigh, COLUMN.issuedLow], fill: tint(context, 0.13) as never },
      { series: [COLUMN.nextTop, COLUMN.nextHigh], fill: tint(context, 0.12) as never },
      { series: [COLUMN.nextHigh, COLUMN.nextLow], fill: tint(context, 0.28) as never },
    ],
    hooks: {
      setCursor: [(chart) => context().onHover(chart.cursor.idx ?? null)],
      drawAxes: [(chart) => drawFuture(chart, context())],
      draw: [(chart) => drawNow(chart, context())],
    },
  };
}

/** A faint ground under everything that has not happened yet. */
function drawFuture(chart: uPlot, { palette, nowSeconds }: ChartContext): void {
  const { ctx, bbox } = chart;
  const x = clampToPlot(chart, nowSeconds);
  ctx.save();
  ctx.fillStyle = `rgb(${palette.band} / 0.05)`;
  ctx.fillRect(x, bbox.top, bbox.left + bbox.width - x, bbox.height);
  ctx.restore();
}

function drawNow(chart: uPlot, { palette, nowSeconds }: ChartContext): void {
  const { ctx, bbox } = chart;
  const pixel = window.devicePixelRatio || 1;
  const x = Math.round(clampToPlot(chart, nowSeconds)) + 0.5;
  ctx.save();
  ctx.strokeStyle = palette.label;
  ctx.lineWidth = pixel;
  ctx.setLineDash([2 * pixel, 3 * pixel]);
  ctx.beginPath();
  ctx.moveTo(x, bbox.top - 2 * pixel);
  ctx.lineTo(x, bbox.top + bbox.height);
  ctx.stroke();
  ctx.fillStyle = palette.label;
  ctx.font = palette.font.replace('11px', `${11 * pixel}px`);
  ctx.textAlign = 'center';
  ctx.textBaseline = 'bottom';
  ctx.fillText('now', x, bbox.top - 4 * pixel);
  ctx.restore();
}

function clampToPlot(chart: uPlot, unixSeconds: number): number {
  const { bbox } = chart;
  return Math.min(bbox.left + bbox.width, Math.max(bbox.left, chart.valToPos(unixSeconds, 'x', true)));
}
