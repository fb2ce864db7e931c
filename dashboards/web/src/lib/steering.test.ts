import { expect, test } from 'vitest';

import { model, zone } from './fixtures';
import { steeringNote } from './steering';

test('when predictions steer all that they are meant to, there is nothing to tell', () => {
  for (const over of [{}, { rung: 'shadow', predictive_ratio: 0 }, { rung: 'advise', predictive_ratio: 0 }, { rung: 'canary', predictive_ratio: 0.1 }] as const) {
    expect(steeringNote(model(over))).toBeNull();
  }
});

test('a way back to capacity has its cause as it was told', () => {
  const since = '2026-11-21T10:00:00Z';
  const fallen = { predictive_ratio: 0, fallback: 'the telemetry of 1 of 4 backends is fresh', fallback_since: since };
  const note = steeringNote(model({ ...fallen, rung: 'canary' }));
  expect(note?.mark).toMatchObject({ word: 'Predictions steer nothing', tone: 'warn' });
  expect(note?.text).toBe('the telemetry of 1 of 4 backends is fresh; requests go by capacity shares');
  expect(note?.since).toBe(since);
  expect(steeringNote(model({ ...fallen, zones: [zone()] }))?.text).toContain('the same in all zones');
});

test('on the way up it says how far', () => {
  const note = steeringNote(model({ predictive_ratio: 0.4 }));
  expect(note?.mark.tone).toBe('accent');
  expect(note?.text).toContain('40\u202f% of the requests so far');
  expect(note?.since).toBeNull();
});

test('a model that predictions are not for has no note', () => {
  expect(steeringNote(model({ predictive_ratio: 0 }))).toBeNull();
});
