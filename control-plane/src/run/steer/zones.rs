//! The views of the zones: which shares the Envoys of each zone are told, such that the fleet as a whole does what the law
//! decided.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::compile::ViewIntent;
use crate::config::{self, Config, Model, Policy};
use crate::decide::{
    GroupTotal, LatencyRule, NodeZone, Zone, ZoneTerms, ZonesInput, ZonesState, decide_zones, rules_in_play,
};
use crate::view::{Change, ZoneShareView, ZoneView};

use super::{PublishedGroup, Steered, Steering};

/// A change of a group's share below this is not worth a line, and no more lines than this are kept.
const NOTABLE: f64 = 0.005;
const MOST_CHANGES: usize = 100;

/// What is remembered of the views.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(in crate::run) struct ZoneViews {
    state: ZonesState,
    #[serde(skip)]
    terms: Vec<ZoneTerms>,
    #[serde(skip)]
    in_play: InPlay,
}

/// The rules that are about the zones and groups there are. They are looked for when these, or the rules, are other ones.
#[derive(Clone, Debug, Default)]
struct InPlay {
    rules: Vec<LatencyRule>,
    settings: config::Zones,
    from: Vec<Zone>,
    to: Vec<Zone>,
}

impl InPlay {
    fn of(
        &mut self,
        settings: &config::Zones,
        zones: &[NodeZone],
        groups: &[GroupTotal],
    ) -> Vec<LatencyRule> {
        let from = || zones.iter().map(|zone| &zone.zone);
        let to = || groups.iter().map(|group| &group.zone);
        if !(self.from.iter().eq(from()) && self.to.iter().eq(to()) && self.settings == *settings) {
            let (from, to): (Vec<&Zone>, Vec<&Zone>) = (from().collect(), to().collect());
            *self = Self {
                rules: rules_in_play(&settings.rules(), &from, &to),
                settings: settings.clone(),
                from: from.into_iter().cloned().collect(),
                to: to.into_iter().cloned().collect(),
            };
        }
        self.rules.clone()
    }
}

/// What a record has of them: they can be made again from it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct ZonesRecord {
    pub(super) input: ZonesInput,
    pub(super) previous: ZonesState,
    /// What came out, as the zones were told it; none in records of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) told: Option<BTreeMap<Zone, Vec<u32>>>,
}

impl Steering {
    /// Decides what the Envoys of each zone are told, after the law has decided for all. What was made of the law's decision,
    /// or what is published for the zones alone, has what it was made from.
    pub(in crate::run) fn share_out(
        &mut self,
        model: &Model,
        config: &Config,
        zones: Vec<NodeZone>,
        steered: Option<Steered>,
    ) -> Option<Steered> {
        let prefers = model.balance.zone_preference > 0.0;
        let is_on = prefers && model.balance.policy == Policy::Predictive && model.follows_decisions();
        if !is_on && self.views.state.zones.is_empty() {
            return steered;
        }
        let groups: Vec<GroupTotal> =
            self.published.iter().filter_map(|group| total(group, config)).collect();
        let rtt = self.views.in_play.of(&config.zones, &zones, &groups);
        let input = ZonesInput {
            zones,
            groups,
            rtt,
            same_region_ms: config.zones.same_region_ms,
            other_region_ms: config.zones.other_region_ms,
            preference: if is_on { model.balance.zone_preference } else { 0.0 },
        };
        let decision = decide_zones(&input, &self.views.state);
        let before = std::mem::replace(&mut self.views.state, decision.state);
        self.views.terms = decision.terms;
        if steered.is_none() && !decision.publish {
            return None;
        }
        if steered.is_some() && before.zones.is_empty() && self.views.state.zones.is_empty() {
            return steered;
        }
        let mut steered = steered.unwrap_or_else(|| Steered {
            kind: "weights",
            summary: summary(&self.views.terms),
            changes: changes(&before, &self.views),
            inputs: json!({ "part": "zones", "groups": self.published }),
        });
        let told = Some(all_told(&self.published, &self.views.state));
        steered.inputs["zones"] = json!(ZonesRecord { input, previous: before, told });
        Some(steered)
    }

    /// The zones whose Envoys are told other shares than those of the fleet.
    pub(in crate::run) fn zones(&self) -> impl Iterator<Item = &Zone> {
        self.views.state.zones.keys()
    }

    /// Envoys among which the requests of a group arrive, of so many that report.
    pub(super) fn envoys_of_a_group(&self, zones: &[NodeZone], reporters: usize) -> usize {
        let of_zones = self.views.state.envoys_of_a_group(zones);
        of_zones.map_or(reporters, |envoys| envoys.round() as usize).max(1)
    }

    /// The weights of the published groups for the Envoys of each zone, where they are other ones than those of the fleet.
    pub(super) fn view_intents(&self) -> Vec<ViewIntent> {
        let of_zone = |zone: &Zone| {
            let weights = told(&self.published, &self.views.state, zone)?;
            let is_other = self.published.iter().zip(&weights).any(|(group, weight)| group.weight != *weight);
            is_other.then(|| ViewIntent { zone: zone.clone(), weights })
        };
        self.views.state.zones.keys().filter_map(of_zone).collect()
    }

    /// What is shown of the zones.
    pub(in crate::run) fn zone_views(&self) -> Vec<ZoneView> {
        let view = |terms: &ZoneTerms| {
            let weights = told(&self.published, &self.views.state, &terms.zone).unwrap_or_default();
            let sum: f64 = weights.iter().copied().map(f64::from).sum();
            let shares = self.published.iter().zip(weights).map(|(group, weight)| ZoneShareView {
                group: group.name.clone(),
                share: f64::from(weight) / sum.max(1.0),
            });
            ZoneView {
                zone: terms.zone.to_string(),
                envoys: terms.envoys,
                demand_share: terms.demand_share,
                rtt_ms: terms.rtt_ms,
                fleet_rtt_ms: terms.fleet_rtt_ms,
                shares: shares.collect(),
            }
        };
        self.views.terms.iter().map(view).collect()
    }
}

/// The weights of groups for a zone, in their order: 1 for one in which nobody takes requests. None for a zone that goes by
/// those of the fleet.
fn told(groups: &[PublishedGroup], state: &ZonesState, zone: &Zone) -> Option<Vec<u32>> {
    let weights = state.weights(zone)?;
    Some(groups.iter().map(|group| weights.get(&group.name).copied().unwrap_or(1)).collect())
}

/// The same for all zones that do not go by those of the fleet.
pub(super) fn all_told(groups: &[PublishedGroup], state: &ZonesState) -> BTreeMap<Zone, Vec<u32>> {
    let of_zone = |zone: &Zone| Some((zone.clone(), told(groups, state, zone)?));
    state.zones.keys().filter_map(of_zone).collect()
}

/// What a group gets of the whole; none where nobody in it takes requests.
fn total(group: &PublishedGroup, config: &Config) -> Option<GroupTotal> {
    group.members.values().any(|draining| !draining).then_some(())?;
    let place = config.pool(&group.pool).map(|pool| &pool.locality);
    // Of a name that is none the configuration says so; such a group is far from all.
    let zone = place.and_then(|place| Zone::new(&place.region, &place.zone)).or_else(|| Zone::new("", ""))?;
    Some(GroupTotal { group: group.name.clone(), zone, weight: group.weight })
}

fn summary(terms: &[ZoneTerms]) -> String {
    if terms.is_empty() {
        return "all zones go by the shares of the fleet".to_owned();
    }
    let mean =
        |of: fn(&ZoneTerms) -> f64| terms.iter().map(|terms| terms.demand_share * of(terms)).sum::<f64>();
    format!(
        "{} zones: mean round trip {:.1} ms, {:.1} ms by the shares of the fleet",
        terms.len(),
        mean(|terms| terms.rtt_ms),
        mean(|terms| terms.fleet_rtt_ms)
    )
}

fn changes(before: &ZonesState, now: &ZoneViews) -> Vec<Change> {
    let reasons: BTreeMap<&Zone, String> = now
        .terms
        .iter()
        .map(|terms| {
            let reason = format!(
                "{:.0} % of the requests arrive there; mean round trip {:.1} ms instead of {:.1} ms",
                100.0 * terms.demand_share,
                terms.rtt_ms,
                terms.fleet_rtt_ms
            );
            (&terms.zone, reason)
        })
        .collect();
    let mut changes = Vec::new();
    for (zone, flow) in &now.state.zones {
        for (group, share) in &flow.shares {
            let from = before.zones.get(zone).and_then(|flow| flow.shares.get(group)).copied();
            if from.is_none_or(|from| (share - from).abs() >= NOTABLE) {
                let reason = reasons.get(zone).cloned().unwrap_or_default();
                let target = format!("{zone} to {group}");
                changes.push(Change { target, from, to: Some(*share), reason });
            }
        }
    }
    changes.truncate(MOST_CHANGES);
    changes
}

#[cfg(test)]
mod tests;
