import { expect, test } from 'vitest';

import { groupShare, zone } from './fixtures';
import { zoneTable } from './zones';

const flat = (text: string | undefined) => text?.replaceAll('\u202f', ' ');
const SHARES = [groupShare({ group: 'near', share: 0.6 }), groupShare({ group: 'far', share: 0.4 })];

test('a model without zones of its own has no table', () => {
  expect(zoneTable({ zones: [], shares: SHARES })).toBeNull();
});

test('each zone has its shares in the order of the fleet, and what it prefers is told', () => {
  const table = zoneTable({ shares: SHARES, zones: [zone({ shares: [{ group: 'far', share: 0.01 }, { group: 'near', share: 0.99 }] })] });
  expect(table?.groups).toEqual(['near', 'far']);
  expect(table?.fleet).toEqual([0.6, 0.4]);
  expect(table?.rows[0]?.shares).toEqual([{ share: 0.99, trend: 'gained' }, { share: 0.01, trend: 'lost' }]);
});

test('a group that is not told to a zone, or of the fleet, is unknown', () => {
  const table = zoneTable({ shares: SHARES.slice(0, 1), zones: [zone({ shares: [{ group: 'new', share: 1 }] })] });
  expect(table?.groups).toEqual(['near', 'new']);
  expect(table?.rows[0]?.shares).toEqual([{ share: null, trend: 'unknown' }, { share: 1, trend: 'unknown' }]);
});

test('round trips are compared with those by the shares of the fleet; the mean goes by where requests arrive', () => {
  const table = zoneTable({
    shares: SHARES,
    zones: [
      zone({ zone: 'eu/a', demand_share: 0.75, rtt_ms: 2, fleet_rtt_ms: 22 }),
      zone({ zone: 'eu/b', demand_share: 0.25, rtt_ms: 40.5, fleet_rtt_ms: 40 }),
      zone({ zone: 'eu/c', demand_share: 0, rtt_ms: 1, fleet_rtt_ms: 1.01 }),
    ],
  });
  expect(table?.rows.map((row) => flat(row.difference))).toEqual(['20.0 ms less', '0.5 ms more', 'the same']);
  expect(flat(table?.rows[0]?.rtt)).toBe('2.0 ms');
  expect([flat(table?.rtt), flat(table?.difference)]).toEqual(['11.6 ms', '14.9 ms less']);
});

test('while nobody knows where requests arrive there is no mean', () => {
  const table = zoneTable({ shares: SHARES, zones: [zone({ demand_share: 0 })] });
  expect([table?.rtt, table?.difference]).toEqual(['–', '']);
});
