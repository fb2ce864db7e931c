import { render } from 'svelte/server';
import { describe, expect, test, vi } from 'vitest';

import { model, words } from '../lib/fixtures';
import type { HorizonRecord, Model } from '../lib/types';
import ForecastRecord from './ForecastRecord.svelte';
import ModelPanel from './ModelPanel.svelte';

// The theme asks the browser, which is not here; the chart that needs it is not drawn on the server either.
vi.mock('../lib/theme.svelte', () => ({ theme: {} }));

const GOOD: HorizonRecord = {
  horizon_seconds: 60,
  outcomes: 4320,
  error_ratio: 0.042,
  skill_ratio: 0.62,
  coverage_q90: 0.91,
  coverage_q95: 0.95,
  baseline: null,
  experts: [
    { name: 'regression', weight: 0.62 },
    { name: 'seasonal_smooth', weight: 0.38 },
  ],
};

function show(...record: HorizonRecord[]) {
  const { body } = render(ForecastRecord, { props: { record, model: 'chat' } });
  return { body, rows: body.split('<tr').slice(2).map(words), all: words(body) };
}

describe('the record of the forecasts', () => {
  test('is closed until it is opened', () => {
    const { body, all } = show(GOOD);
    expect(body).toMatch(/<details(?![^>]*\bopen\b)/);
    expect(all).toContain('How good are the forecasts?');
  });

  test('has a row per horizon', () => {
    const { rows } = show(GOOD, { ...GOOD, horizon_seconds: 21_600 });
    expect(rows).toHaveLength(2);
    for (const part of ['1 min', '4.2 %', '38 % less', '91 %', '95 %', '4 320', 'regression 62 %']) {
      expect(rows[0]).toContain(part);
    }
    expect(rows[0]).toContain('then last season, smoothed 38 %');
    expect(rows[0]).not.toContain('bound too');
    expect(rows[1]).toContain('6 h');
  });

  test('says which bound does not hold its promise', () => {
    const { body, rows } = show({ ...GOOD, coverage_q90: 0.81, coverage_q95: 0.95 });
    expect(rows[0]).toContain('81 % bound too low');
    expect(rows[0]?.match(/bound too/g)).toHaveLength(1);
    expect(body).toContain('<path d="M6 1 11.5 11H.5z"');
  });

  test('says when a baseline carries the forecast, and still who leads', () => {
    const { rows } = show({ ...GOOD, baseline: 'last_value' });
    expect(rows[0]).toContain('carried by last value: the experts have lately done worse');
    expect(rows[0]).toContain('among the experts: regression 62 % · last season, smoothed 38 %');
  });

  test('unknown values are dashes', () => {
    const unknown = { error_ratio: null, skill_ratio: null, coverage_q90: null, coverage_q95: null };
    const { rows } = show({ ...GOOD, ...unknown, outcomes: 0, experts: [] });
    expect(rows[0]?.match(/–/g)).toHaveLength(5);
  });

  test('without an entry it says so in place of a table', () => {
    const { body, all } = show();
    expect(body).not.toContain('<table');
    expect(all).toContain('No record yet');
  });
});

describe('the panel of a model', () => {
  const forecast = { issued_at: '2026-11-21T04:30:00Z', expert: 'regression', error_ratio: 0.06, cold_start: { horizon_seconds: 60, q50: 12, q90: 15 } };
  const panel = (of: Model['forecast']) =>
    words(render(ModelPanel, { props: { model: model({ forecast: of }), pools: [], now: '2026-11-21T04:30:05Z' } }).body);

  test('shows the record', () => {
    expect(panel({ ...forecast, record: [GOOD] })).toContain('38 % less');
  });

  test('takes an empty record, and a model without forecast', () => {
    expect(panel({ ...forecast, record: [] })).toContain('No record yet');
    expect(panel(null)).toContain('No record yet');
  });

  test('says who counts the demand', () => {
    const counted = (demand_source: Model['demand_source']) =>
      words(render(ModelPanel, { props: { model: model({ demand_source }), pools: [], now: '2026-11-21T04:30:05Z' } }).body);
    expect(counted('envoys')).toContain('now, by Envoys 5.0 req/s');
    expect(counted('servers')).toContain('now, by servers 5.0 req/s');
  });
});
