mod explain;
mod inputs;
mod policy;
mod recorded;
mod spare;
mod words;
mod zones;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::SocketAddr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::compile::{EndpointIntent, GroupIntent, HealthIntent, LanesIntent, ModelIntent};
use crate::config::{Balance, Config, Model, Policy};
use crate::decide::{
    Form, Law, ModelInput, NodeZone, Relief, StaticCapacities, WeightDecision, WeightState, decide_weights,
    whole_weights,
};
use crate::fleet::Fleet;
use crate::view::Change;

use explain::Record;
use inputs::{Place, draining, model_input, serving};
use policy::decide_by_policy;
use words::{changes, summary};
use zones::ZoneViews;

pub(crate) use explain::{Explained, ExplainedZone, Explanation, Part, explain, explain_zone};
pub(super) use inputs::{pool_capacity, share_capacity};
pub(crate) use recorded::Recorded;
pub(crate) use spare::explain_spare;

/// Weights of a model's groups add up to this.
pub(super) const WEIGHTS: u32 = 10_000;
/// Time after the start during which saved weights stay untouched while telemetry is still missing, seconds.
const HOLD_SECONDS: f64 = 5.0;
/// What a restart must not forget is saved so often although it stands still, seconds.
const SAVED_EVERY_SECONDS: f64 = 60.0;
/// Time between two decisions, seconds, and how many of them a correction has to last to be stable.
const DECISION_SECONDS: f64 = 1.0;
const LEAST_CORRECTION: f64 = 2.4 * DECISION_SECONDS;

/// The weights of one model: what is published, and what the law remembers.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Steering {
    pub(super) state: WeightState,
    pub(super) published: Vec<PublishedGroup>,
    /// What the shares are made of that Envoys fall back to.
    #[serde(default)]
    pub(super) capacities: Option<StaticCapacities>,
    /// What the Envoys of single zones are told.
    #[serde(default)]
    views: ZoneViews,
    /// Groups that take requests when no other can.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) spare: Vec<PublishedGroup>,
    /// How much of the requests these take.
    #[serde(default)]
    relief: Relief,
    /// When it was saved last.
    #[serde(skip)]
    saved_at: Option<DateTime<Utc>>,
    #[serde(skip)]
    pub(super) latest: Option<WeightDecision>,
}

/// One locality as it was published.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct PublishedGroup {
    pub(super) name: String,
    pub(super) pool: String,
    pub(super) weight: u32,
    /// Members, and whether they are draining.
    pub(super) members: BTreeMap<SocketAddr, bool>,
    /// Weights of those that take requests, where they have weights of their own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) endpoint_weights: BTreeMap<SocketAddr, u32>,
}

/// What comes for a model.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrivals<'a> {
    /// Requests/s that are to be shared out.
    pub(super) rps: f64,
    /// Zones of Envoys, where shares differ by zone.
    pub(super) zones: &'a [NodeZone],
}

/// What is to be published anew, and why.
#[derive(Clone, Debug)]
pub(super) struct Steered {
    pub(super) kind: &'static str,
    pub(super) summary: String,
    pub(super) changes: Vec<Change>,
    pub(super) inputs: serde_json::Value,
}

impl Steering {
    /// Evaluates the law once; returns a decision when something has to be published.
    pub(super) fn evaluate(
        &mut self,
        model: &Model,
        config: &Config,
        fleet: &Fleet,
        arrivals: &Arrivals<'_>,
        running_seconds: f64,
        now: DateTime<Utc>,
    ) -> Option<Steered> {
        let is_relieved = self.relief.part > 0.0;
        let serving = serving(fleet, config, &model.name, &self.published, is_relieved, now);
        let demand_rps = arrivals.rps * (1.0 - self.relief.part);
        let input = ModelInput {
            envoys: self.envoys_of_a_group(arrivals.zones, fleet.reports().reporters()),
            ..model_input(model, &serving, config, fleet, demand_rps, running_seconds, now)
        };
        let seen = input.backends.iter().filter(|backend| backend.age_seconds.is_some()).count();
        let holds = running_seconds < HOLD_SECONDS && seen * 2 < serving.len() && !self.published.is_empty();
        if holds {
            return None;
        }
        let law = law(model, &config.balance);
        let decision = match model.balance.policy {
            Policy::Predictive => decide_weights(&input, &self.state, &law, now),
            policy => decide_by_policy(policy, &input, &serving, &self.state, &config.balance),
        };
        let draining = draining(fleet, config, &model.name, &serving, &self.published, now);
        let groups = groups(&decision, &draining);
        let joined_or_left = members(&groups) != members(&self.published);
        if !joined_or_left && !decision.publish {
            self.state = decision.state.clone();
            self.latest = Some(decision);
            return None;
        }
        let changes = changes(&self.state.published, &self.published, &decision);
        let steered = Steered {
            kind: if joined_or_left { "membership" } else { "weights" },
            summary: summary(joined_or_left, &self.published, &groups, &changes, &decision),
            changes,
            inputs: json!(Record {
                policy: model.balance.policy,
                law,
                level_seconds: decision.level_seconds,
                form: decision.form,
                model: Cow::Borrowed(&input),
                previous: Cow::Borrowed(&self.state),
                draining: Cow::Borrowed(&draining),
                groups: Some(Cow::Borrowed(&groups)),
            }),
        };
        self.state = decision.published();
        self.published = groups;
        self.latest = Some(decision);
        Some(steered)
    }

    /// Whether it is to be saved, as it changed or as what it remembers would soon be too old to be taken up.
    pub(super) fn is_to_be_saved(&mut self, has_changed: bool, now: DateTime<Utc>) -> bool {
        let lasts = self.relief.part > 0.0 || self.zones().next().is_some();
        let is_old = self.saved_at.is_none_or(|at| (now - at).as_seconds_f64().abs() >= SAVED_EVERY_SECONDS);
        let saves = has_changed || (lasts && is_old);
        if saves {
            self.saved_at = Some(now);
        }
        saves
    }

    /// What the model's Envoys should do.
    pub(super) fn intent(&self, model: &Model, config: &Config) -> ModelIntent {
        ModelIntent {
            name: model.name.clone(),
            timeouts: model.timeouts.clone(),
            health: HealthIntent::of(model, config),
            balance: model.balance.clone(),
            load_metrics: config.load_metrics(model),
            lanes: LanesIntent::default(),
            predictive_percent: 0,
            steered_proxies: None,
            groups: self.published.iter().map(|group| group_intent(group, config)).collect(),
            static_groups: Vec::new(),
            spare_groups: self.spare_intents(config),
            spare_part: self.relief.part,
            views: self.view_intents(),
        }
    }
}

fn group_intent(group: &PublishedGroup, config: &Config) -> GroupIntent {
    let pool = config.pool(&group.pool);
    let locality = pool.map(|pool| pool.locality.clone()).unwrap_or_default();
    let endpoint = |(address, draining): (&SocketAddr, &bool)| EndpointIntent {
        address: *address,
        draining: *draining,
        weight: group.endpoint_weights.get(address).copied().unwrap_or(1),
    };
    GroupIntent {
        region: locality.region,
        zone: locality.zone,
        name: group.name.clone(),
        is_checked: pool.is_none_or(|pool| pool.health_checks),
        weight: group.weight,
        endpoints: group.members.iter().map(endpoint).collect(),
    }
}

/// The law as it is configured.
fn law(model: &Model, balance: &Balance) -> Law {
    Law {
        cost_weight: model.balance.cost_weight,
        fill: model.slo.target_utilisation,
        correction_seconds: balance.correction_time.as_seconds().max(LEAST_CORRECTION),
        smoothing: balance.smoothing,
        floor: balance.floor,
        dead_band: balance.dead_band,
        ..Law::default()
    }
}

/// The groups as they are published; backends that drain stay where they are.
fn groups(decision: &WeightDecision, draining: &BTreeMap<SocketAddr, Place>) -> Vec<PublishedGroup> {
    let mut groups: BTreeMap<&str, (f64, PublishedGroup)> = decision
        .groups
        .iter()
        .map(|group| {
            let members = group.members.iter().map(|address| (*address, false)).collect();
            (group.group.as_str(), (group.share, published(&group.group, &group.pool, members)))
        })
        .collect();
    if decision.form == Form::Endpoints {
        for backend in &decision.backends {
            if let Some((_, group)) = groups.get_mut(backend.group.as_str()) {
                group.endpoint_weights.insert(backend.address, backend.weight);
            }
        }
    }
    for (address, Place { pool, group }) in draining {
        let group = groups.entry(group).or_insert_with(|| (0.0, published(group, pool, BTreeMap::new())));
        group.1.members.insert(*address, true);
    }
    let shares: Vec<f64> = groups.values().map(|(share, _)| *share).collect();
    let weights = whole_weights(&shares, WEIGHTS);
    let weighted = groups.into_values().zip(weights);
    weighted.map(|((_, group), weight)| PublishedGroup { weight, ..group }).collect()
}

fn published(name: &str, pool: &str, members: BTreeMap<SocketAddr, bool>) -> PublishedGroup {
    PublishedGroup {
        name: name.to_owned(),
        pool: pool.to_owned(),
        weight: 1,
        members,
        endpoint_weights: BTreeMap::new(),
    }
}

/// Who is a member of which pool's groups, and whether he drains.
fn members(groups: &[PublishedGroup]) -> BTreeMap<SocketAddr, (&str, bool)> {
    groups
        .iter()
        .flat_map(|group| {
            group.members.iter().map(|(address, draining)| (*address, (group.pool.as_str(), *draining)))
        })
        .collect()
}

#[cfg(test)]
mod tests;
