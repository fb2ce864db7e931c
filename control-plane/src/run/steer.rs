use std::collections::BTreeMap;
use std::net::SocketAddr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::compile::{EndpointIntent, GroupIntent, ModelIntent};
use crate::config::{Config, Model};
use crate::decide::{BackendInput, Law, WeightDecision, WeightState, decide_weights, fill_unknown};
use crate::fleet::{Backend, Fleet, Health, Membership};
use crate::view::Change;

/// Shares are told to Envoy in ten-thousandths.
const WEIGHT_SCALE: f64 = 10_000.0;
/// Time after the start during which saved weights stay untouched while telemetry is still missing, seconds.
const HOLD_SECONDS: f64 = 5.0;
/// A change of a backend's share below this is not worth a line.
const NOTABLE: f64 = 0.005;

/// The weights of one model: what is published, and what the law remembers.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Steering {
    pub(super) state: WeightState,
    pub(super) published: Vec<PublishedGroup>,
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
        demand_rps: f64,
        running_seconds: f64,
        now: DateTime<Utc>,
    ) -> Option<Steered> {
        let serving = serving(fleet, &model.name, &self.published, now);
        let inputs = inputs(&serving, config, now);
        let seen = inputs.iter().filter(|input| input.age_seconds.is_some()).count();
        let holds = running_seconds < HOLD_SECONDS && seen * 2 < inputs.len() && !self.published.is_empty();
        if holds {
            return None;
        }
        let law = Law {
            correction_seconds: config.balance.correction_time.as_seconds().max(0.1),
            smoothing: config.balance.smoothing,
            floor: config.balance.floor,
            dead_band: config.balance.dead_band,
        };
        let decision = decide_weights(&inputs, demand_rps, &self.state, &law);
        let groups = groups(&decision, &draining(fleet, &model.name, &serving));
        let joined_or_left = members(&groups) != members(&self.published);
        if !joined_or_left && !decision.publish {
            self.state = WeightState { published: self.state.published.clone(), ..decision.state.clone() };
            self.latest = Some(decision);
            return None;
        }
        let changes = changes(&self.state.published, &decision);
        let steered = Steered {
            kind: if joined_or_left { "membership" } else { "weights" },
            summary: summary(joined_or_left, &self.published, &groups, &changes, &decision),
            changes,
            inputs: json!({
                "demand_rps": demand_rps,
                "level_seconds": decision.level_seconds,
                "law": law,
                "backends": inputs,
                "previous": self.state,
            }),
        };
        let shares: BTreeMap<_, _> =
            decision.backends.iter().map(|backend| (backend.address, backend.share)).collect();
        self.state = WeightState { published: shares, ..decision.state.clone() };
        self.published = groups;
        self.latest = Some(decision);
        Some(steered)
    }

    /// What the model's Envoys should do.
    pub(super) fn intent(&self, model: &Model, config: &Config) -> ModelIntent {
        let group = |group: &PublishedGroup| {
            let locality = config.pool(&group.pool).map(|pool| pool.locality.clone()).unwrap_or_default();
            let endpoint = |(address, draining): (&SocketAddr, &bool)| EndpointIntent {
                address: *address,
                draining: *draining,
            };
            GroupIntent {
                region: locality.region,
                zone: locality.zone,
                name: group.name.clone(),
                weight: group.weight,
                endpoints: group.members.iter().map(endpoint).collect(),
            }
        };
        ModelIntent {
            name: model.name.clone(),
            timeouts: model.timeouts.clone(),
            load_metrics: config.load_metrics(model),
            groups: self.published.iter().map(group).collect(),
        }
    }
}

/// The backends that share the model's traffic. When most of them look dead it is our view that fails rather than the
/// fleet: then all that should serve do. And after a start nobody has been looked at yet: what serves already keeps its
/// place until its telemetry speaks against it.
fn serving<'a>(
    fleet: &'a Fleet,
    model: &str,
    published: &[PublishedGroup],
    now: DateTime<Utc>,
) -> Vec<&'a Backend> {
    let placed = members(published);
    let wanted: Vec<&Backend> = fleet
        .backends()
        .filter(|backend| backend.model == model && backend.membership == Membership::Active)
        .collect();
    let down = wanted.iter().filter(|backend| backend.health(now) == Health::Down).count();
    let believed = |backend: &&&Backend| {
        let keeps_place =
            backend.health(now) == Health::Waiting && placed.get(&backend.address) == Some(&false);
        backend.is_eligible(now) || keeps_place || (down * 2 > wanted.len() && backend.sample.is_some())
    };
    let eligible: Vec<&Backend> = wanted.iter().filter(believed).copied().collect();
    if eligible.is_empty() { wanted } else { eligible }
}

/// Backends that stay in their group to finish their streams: those that leave, and those that look dead.
fn draining<'a>(fleet: &'a Fleet, model: &str, serving: &[&Backend]) -> Vec<&'a Backend> {
    fleet
        .backends()
        .filter(|backend| {
            backend.model == model && !serving.iter().any(|other| other.address == backend.address)
        })
        .filter(|backend| backend.membership != Membership::Active || backend.sample.is_some())
        .collect()
}

fn inputs(serving: &[&Backend], config: &Config, now: DateTime<Utc>) -> Vec<BackendInput> {
    let capacities: Vec<Option<f64>> =
        serving.iter().map(|backend| pool_capacity(config, serving, &backend.pool)).collect();
    serving
        .iter()
        .zip(fill_unknown(&capacities))
        .map(|(backend, capacity_rps)| BackendInput {
            address: backend.address,
            pool: backend.pool.clone(),
            capacity_rps,
            slowdown: backend.slowdown(),
            predicted_wait_seconds: backend.predicted_wait_seconds(),
            age_seconds: backend.evidence_age_seconds(now),
        })
        .collect()
}

/// Requests/s of one backend of a pool: as configured, or the most that any of them was seen to serve.
pub(super) fn pool_capacity(config: &Config, backends: &[&Backend], pool: &str) -> Option<f64> {
    let learned = || {
        let of_pool = backends.iter().filter(|backend| backend.pool == pool);
        of_pool.filter_map(|backend| backend.capacity.rps()).max_by(f64::total_cmp)
    };
    config.pool(pool).and_then(|pool| pool.capacity_rps).or_else(learned)
}

fn groups(decision: &WeightDecision, draining: &[&Backend]) -> Vec<PublishedGroup> {
    let mut groups: Vec<PublishedGroup> = decision
        .groups
        .iter()
        .map(|group| PublishedGroup {
            name: group.group.clone(),
            pool: group.pool.clone(),
            weight: ((group.share * WEIGHT_SCALE).round() as u32).max(1),
            members: group.members.iter().map(|address| (*address, false)).collect(),
        })
        .collect();
    for backend in draining {
        match groups.iter_mut().find(|group| group.name == backend.pool) {
            Some(group) => {
                group.members.insert(backend.address, true);
            }
            None => groups.push(PublishedGroup {
                name: backend.pool.clone(),
                pool: backend.pool.clone(),
                weight: 1,
                members: BTreeMap::from([(backend.address, true)]),
            }),
        }
    }
    groups.sort_by(|left, right| left.name.cmp(&right.name));
    groups
}

fn members(groups: &[PublishedGroup]) -> BTreeMap<SocketAddr, bool> {
    groups
        .iter()
        .flat_map(|group| group.members.iter().map(|(address, draining)| (*address, *draining)))
        .collect()
}

fn changes(before: &BTreeMap<SocketAddr, f64>, decision: &WeightDecision) -> Vec<Change> {
    let mut changes: Vec<Change> = decision
        .backends
        .iter()
        .filter(|backend| {
            before.get(&backend.address).is_none_or(|share| (share - backend.share).abs() >= NOTABLE)
        })
        .map(|backend| Change {
            target: backend.address.to_string(),
            from: before.get(&backend.address).copied(),
            to: Some(backend.share),
            reason: backend.reason.clone(),
        })
        .collect();
    let is_gone = |address: &SocketAddr| !decision.backends.iter().any(|backend| backend.address == *address);
    changes.extend(before.iter().filter(|(address, _)| is_gone(address)).map(|(address, share)| Change {
        target: address.to_string(),
        from: Some(*share),
        to: None,
        reason: "takes no new requests".to_owned(),
    }));
    changes
}

fn summary(
    joined_or_left: bool,
    before: &[PublishedGroup],
    after: &[PublishedGroup],
    changes: &[Change],
    decision: &WeightDecision,
) -> String {
    if joined_or_left {
        return membership_summary(&members(before), &members(after));
    }
    let size = |change: &Change| (change.to.unwrap_or(0.0) - change.from.unwrap_or(0.0)).abs();
    let Some(largest) = changes.iter().max_by(|left, right| size(left).total_cmp(&size(right))) else {
        return format!("{} shares moved a little", decision.backends.len());
    };
    format!(
        "{} {:.0} % → {:.0} %: {}",
        largest.target,
        100.0 * largest.from.unwrap_or(0.0),
        100.0 * largest.to.unwrap_or(0.0),
        largest.reason
    )
}

fn membership_summary(before: &BTreeMap<SocketAddr, bool>, after: &BTreeMap<SocketAddr, bool>) -> String {
    if before.is_empty() {
        return format!("{} backends take requests", after.values().filter(|draining| !**draining).count());
    }
    let mut parts = Vec::new();
    let mut say = |what: &str, found: Vec<String>| {
        if !found.is_empty() {
            parts.push(format!("{} {what}", found.join(", ")));
        }
    };
    let takes = |set: &BTreeMap<SocketAddr, bool>, address: &SocketAddr| set.get(address) == Some(&false);
    let names = |filter: &dyn Fn(&SocketAddr) -> bool| {
        before
            .keys()
            .chain(after.keys().filter(|key| !before.contains_key(key)))
            .filter(|a| filter(a))
            .map(ToString::to_string)
            .collect()
    };
    say("takes requests", names(&|address| takes(after, address) && !takes(before, address)));
    say(
        "is draining",
        names(&|address| after.get(address) == Some(&true) && before.get(address) != Some(&true)),
    );
    say("left", names(&|address| !after.contains_key(address)));
    parts.join("; ")
}
