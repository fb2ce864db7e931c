//! Zones: which part of its requests the Envoys of each zone send to which group.
//!
//! The law decides the share of each group for the whole fleet. Here it is decided whose requests make it up: the flows from
//! the zones of Envoys to the groups of backends whose round trips take the least time together, such that every group gets
//! just what the law gave it. That is a transportation problem:
//!
//! ```text
//! least sum of f(z, g) c(z, g)    with    sum over g of f(z, g) = d(z),    sum over z of f(z, g) = s(g)
//! ```
//!
//! `d` is the part of the requests that arrive in a zone, `s` the law's share of a group, `c` the round-trip time. Every zone
//! keeps a small part of its requests on every group, and the part `1 - preference` goes by the shares of the fleet, which
//! keep the sums as well.
//!
//! Two things keep it calm. The demand of zones is smoothed, has a floor, and a dead band. And the flows of before are first
//! brought to the new sums, by moving no more than has to move, and go towards the cheapest ones from there in bounded steps.

mod cost;
mod demand;
mod envoys;
mod flow;
mod input;
mod steps;
mod transport;
mod zone;

use std::collections::BTreeMap;

use super::shares::whole_weights;

use cost::Costs;
use demand::{Demand, demand};
use flow::cheapest;
use steps::{Flows, repaired, stepped};

pub use cost::rules_in_play;
pub use input::{
    GroupTotal, LatencyRule, NodeZone, ZoneFlow, ZoneTerms, ZonesDecision, ZonesInput, ZonesState,
};
pub use zone::{NotAZone, Zone};

/// Zones of Envoys that have shares of their own; the Envoys of others go by those of the fleet.
pub const MOST_ZONES: usize = 64;
/// Round-trip time within a zone, between zones of a region, and between regions, where nothing else is configured,
/// milliseconds.
pub const SAME_ZONE_MS: f64 = 0.0;
/// See [`SAME_ZONE_MS`].
pub const SAME_REGION_MS: f64 = 1.0;
/// See [`SAME_ZONE_MS`].
pub const OTHER_REGION_MS: f64 = 50.0;
/// The weights of a zone's groups add up to this.
const WEIGHTS: u32 = 10_000;
/// Part of all requests that changes its way in one evaluation, at most, beyond what the sums ask for.
const LARGEST_STEP: f64 = 0.1;
/// Less than this part of all requests is not worth a push.
const DEAD_BAND: f64 = 0.01;

/// Shares of the groups for each zone of Envoys. The same values give the same bytes, whatever their order; of two zones or
/// groups of one name the first counts.
pub fn decide_zones(input: &ZonesInput, previous: &ZonesState) -> ZonesDecision {
    let (zones, groups) = (distinct_zones(input), distinct_groups(input));
    let preference = if input.preference.is_finite() { input.preference.clamp(0.0, 1.0) } else { 0.0 };
    if zones.is_empty() || groups.is_empty() || preference <= 0.0 {
        return ZonesDecision {
            state: ZonesState::default(),
            publish: !previous.zones.is_empty(),
            terms: Vec::new(),
        };
    }
    let demand = demand(&zones, previous);
    let shares: Vec<f64> = groups.iter().map(|(_, share)| *share).collect();
    let in_force: Vec<f64> = demand.iter().map(|demand| demand.in_force).collect();
    let costs = Costs::new(input, &zones, &groups);
    let basis = basis(input, preference, &groups);
    if is_settled(previous, basis, &zones, &groups, &in_force) {
        let state = kept(previous, &demand, basis);
        let terms = terms(&state, &zones, &shares, &costs, &groups);
        return ZonesDecision { state, publish: false, terms };
    }

    let before = flows_before(&zones, &groups, previous, &in_force, &shares);
    let repaired = repaired(before, &in_force, &shares);
    let cheapest = cheapest(&in_force, &shares, &costs);
    let wanted: Flows = cheapest
        .iter()
        .zip(&in_force)
        .map(|(row, demand)| {
            let fleet = shares.iter().map(|share| demand * share);
            row.iter()
                .zip(fleet)
                .map(|(flow, fleet)| preference * flow + (1.0 - preference) * fleet)
                .collect()
        })
        .collect();
    let next = stepped(&repaired, &wanted, LARGEST_STEP);
    let settled = (next == wanted).then_some(basis);
    let proposed = ZonesState { settled, ..state(&zones, &groups, &demand, &next) };
    let publish = is_worth_it(&proposed, previous);
    let state = if publish { proposed } else { kept(previous, &demand, basis) };
    let terms = terms(&state, &zones, &shares, &costs, &groups);
    ZonesDecision { state, publish, terms }
}

/// What the cheapest flows go by beside shares and demand, as a number: rules, places and the preference.
fn basis(input: &ZonesInput, preference: f64, groups: &[(&GroupTotal, f64)]) -> u64 {
    let mut rules: Vec<&LatencyRule> = input.rtt.iter().collect();
    rules.sort_by(|left, right| {
        (&left.from, &left.to).cmp(&(&right.from, &right.to)).then(left.ms.total_cmp(&right.ms))
    });
    let mut text = format!("{} {} {preference}", input.same_region_ms, input.other_region_ms);
    for rule in rules {
        text.push_str(&format!("\n{} {} {}", rule.from, rule.to, rule.ms));
    }
    for (group, _) in groups {
        text.push_str(&format!("\n{}", group.zone));
    }
    flow::hash(text.bytes())
}

/// Whether the flows were decided on just this before, and nothing was left to do.
fn is_settled(
    previous: &ZonesState,
    basis: u64,
    zones: &[&NodeZone],
    groups: &[(&GroupTotal, f64)],
    demand: &[f64],
) -> bool {
    let same_groups =
        || previous.totals.iter().eq(groups.iter().map(|(group, _)| (&group.group, &group.weight)));
    let same_zones = || {
        let before = previous.zones.iter().map(|(zone, flow)| (zone, &flow.demand_share));
        before.eq(zones.iter().map(|zone| &zone.zone).zip(demand))
    };
    previous.settled == Some(basis) && same_groups() && same_zones()
}

/// Zones with Envoys, sorted; no more than may have shares of their own.
fn distinct_zones(input: &ZonesInput) -> Vec<&NodeZone> {
    let mut zones: Vec<&NodeZone> = input.zones.iter().collect();
    zones.sort_by(|left, right| left.zone.cmp(&right.zone));
    zones.dedup_by(|later, first| later.zone == first.zone);
    zones.truncate(MOST_ZONES);
    zones
}

/// Groups that get anything, sorted, with shares that add up to 1.
fn distinct_groups(input: &ZonesInput) -> Vec<(&GroupTotal, f64)> {
    let mut groups: Vec<&GroupTotal> = input.groups.iter().collect();
    groups.sort_by(|left, right| left.group.cmp(&right.group));
    groups.dedup_by(|later, first| later.group == first.group);
    let sum: u64 = groups.iter().map(|group| u64::from(group.weight)).sum();
    let share = |group: &&GroupTotal| f64::from(group.weight) / sum as f64;
    groups.into_iter().filter(|group| group.weight > 0).map(|group| (group, share(&group))).collect()
}

/// The flows as they were published, at the demand in force; a zone that has none yet goes by the shares of the fleet.
fn flows_before(
    zones: &[&NodeZone],
    groups: &[(&GroupTotal, f64)],
    previous: &ZonesState,
    demand: &[f64],
    shares: &[f64],
) -> Flows {
    let row = |(zone, demand): (&&NodeZone, &f64)| -> Vec<f64> {
        let Some(before) = previous.zones.get(&zone.zone) else {
            return shares.iter().map(|share| demand * share).collect();
        };
        let part = |(group, _): &(&GroupTotal, f64)| before.shares.get(&group.group).copied().unwrap_or(0.0);
        let parts: Vec<f64> = groups.iter().map(part).collect();
        let sum: f64 = parts.iter().sum();
        if sum <= 0.0 {
            return shares.iter().map(|share| demand * share).collect();
        }
        parts.iter().map(|part| demand * part / sum).collect()
    };
    zones.iter().zip(demand).map(row).collect()
}

fn state(zones: &[&NodeZone], groups: &[(&GroupTotal, f64)], demand: &[Demand], flows: &Flows) -> ZonesState {
    let of_zone = |((zone, demand), row): ((&&NodeZone, &Demand), &Vec<f64>)| {
        let sum: f64 = row.iter().sum();
        let shares = groups.iter().zip(row).map(|((group, _), flow)| (group.group.clone(), flow / sum));
        let flow = ZoneFlow { seen: demand.seen, demand_share: demand.in_force, shares: shares.collect() };
        (zone.zone.clone(), flow)
    };
    ZonesState {
        zones: zones.iter().zip(demand).zip(flows).map(of_zone).collect(),
        totals: groups.iter().map(|(group, _)| (group.group.clone(), group.weight)).collect(),
        settled: None,
    }
}

/// Whether what is proposed is to be told: other zones, other shares of the law, or enough that goes another way.
fn is_worth_it(proposed: &ZonesState, previous: &ZonesState) -> bool {
    if proposed.totals != previous.totals || proposed.zones.keys().ne(previous.zones.keys()) {
        return true;
    }
    let moved: f64 = proposed
        .zones
        .values()
        .zip(previous.zones.values())
        .map(|(now, before)| {
            let apart =
                |(group, share): (&String, &f64)| (share - before.shares.get(group).unwrap_or(&0.0)).abs();
            now.demand_share * now.shares.iter().map(apart).sum::<f64>() / 2.0
        })
        .sum();
    moved >= DEAD_BAND
}

/// The flows as they were, and what was seen of the demand since.
fn kept(previous: &ZonesState, demand: &[Demand], basis: u64) -> ZonesState {
    let mut kept = ZonesState { settled: Some(basis), ..previous.clone() };
    for (flow, demand) in kept.zones.values_mut().zip(demand) {
        (flow.seen, flow.demand_share) = (demand.seen, demand.in_force);
    }
    kept
}

fn terms(
    state: &ZonesState,
    zones: &[&NodeZone],
    shares: &[f64],
    costs: &Costs,
    groups: &[(&GroupTotal, f64)],
) -> Vec<ZoneTerms> {
    let of_zone = |(index, zone): (usize, &&NodeZone)| {
        let flow = state.zones.get(&zone.zone)?;
        let mean = |share: &dyn Fn(usize) -> f64| -> f64 {
            (0..groups.len()).map(|group| share(group) * costs.milliseconds(index, group)).sum()
        };
        let own = |group: usize| flow.shares.get(&groups[group].0.group).copied().unwrap_or(0.0);
        Some(ZoneTerms {
            zone: zone.zone.clone(),
            envoys: zone.envoys,
            demand_share: flow.demand_share,
            rtt_ms: mean(&own),
            fleet_rtt_ms: mean(&|group| shares[group]),
        })
    };
    zones.iter().enumerate().filter_map(of_zone).collect()
}

impl ZonesState {
    /// The weight of each group for the Envoys of a zone: at least 1, together 10,000. None for a zone that goes by the
    /// shares of the fleet.
    pub fn weights(&self, zone: &Zone) -> Option<BTreeMap<String, u32>> {
        let flow = self.zones.get(zone)?;
        let shares: Vec<f64> = flow.shares.values().copied().collect();
        Some(flow.shares.keys().cloned().zip(whole_weights(&shares, WEIGHTS)).collect())
    }
}

#[cfg(test)]
mod loss_tests;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
