/** What the Envoys of each zone prefer, against the shares of the fleet. */

import { shareTrend, type ShareTrend } from './fleet';
import { duration } from './format';
import type { Model } from './types';

/** Means of round trips that differ by less are the same, milliseconds. */
const ALIKE_MS = 0.05;

export interface ZoneRow {
  zone: string;
  envoys: number;
  demandShare: number;
  rtt: string;
  /** Against the shares of the fleet. */
  difference: string;
  /** In the order of the groups; null for one that the zone is not told of. */
  shares: { share: number | null; trend: ShareTrend }[];
}

export interface ZoneTable {
  groups: string[];
  rows: ZoneRow[];
  /** Shares of the groups for the whole fleet. */
  fleet: (number | null)[];
  /** Mean round trip of all requests, and against the shares of the fleet. */
  rtt: string;
  difference: string;
}

/** Null for a model whose zones all have the shares of the fleet. */
export function zoneTable({ zones, shares }: Pick<Model, 'zones' | 'shares'>): ZoneTable | null {
  if (zones.length === 0) return null;
  const groups = [...new Set([...shares, ...zones.flatMap((zone) => zone.shares)].map((entry) => entry.group))];
  const of = (list: { group: string; share: number }[], group: string) => list.find((entry) => entry.group === group)?.share ?? null;
  const fleet = groups.map((group) => of(shares, group));
  const demand = zones.reduce((sum, zone) => sum + zone.demand_share, 0);
  const mean = (value: (zone: (typeof zones)[number]) => number) =>
    demand > 0 ? zones.reduce((sum, zone) => sum + zone.demand_share * value(zone), 0) / demand : null;
  const rtt = mean((zone) => zone.rtt_ms);
  return {
    groups,
    fleet,
    rows: zones.map((zone) => ({
      zone: zone.zone,
      envoys: zone.envoys,
      demandShare: zone.demand_share,
      rtt: duration(zone.rtt_ms / 1000),
      difference: againstFleet(zone.rtt_ms, zone.fleet_rtt_ms),
      shares: groups.map((group, i) => {
        const share = of(zone.shares, group);
        return { share, trend: shareTrend(share, fleet[i] ?? null) };
      }),
    })),
    rtt: duration(rtt === null ? null : rtt / 1000),
    difference: againstFleet(rtt, mean((zone) => zone.fleet_rtt_ms)),
  };
}

/** `20.0 ms less`; empty while it is not known. */
function againstFleet(rttMs: number | null, fleetMs: number | null): string {
  if (rttMs === null || fleetMs === null) return '';
  const more = rttMs - fleetMs;
  if (Math.abs(more) < ALIKE_MS) return 'the same';
  return `${duration(Math.abs(more) / 1000)} ${more < 0 ? 'less' : 'more'}`;
}
