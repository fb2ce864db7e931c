//! Spare pools: groups without a share, which Envoy uses only while no group with one has a backend that it can use, and for a
//! part of the requests while the others come back.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::json;

use crate::compile::GroupIntent;
use crate::config::{Config, Model, Pool};
use crate::decide::{Relief, ReliefInput, decide_relief, fill_unknown, whole_weights};
use crate::fleet::{Backend, Fleet, Health, Membership};
use crate::store::DecisionRow;
use crate::view::Change;

use super::inputs::trusted_capacity;
use super::{PublishedGroup, Steered, Steering, WEIGHTS, group_intent, members, published};

/// A backend that has just started counts for this part of its capacity, as in the law.
const WARMING_FROM: f64 = 0.2;
/// Nobody counts for more than ten times what is usual.
const LEAST_SLOWDOWN: f64 = 0.1;

/// What a change of the spare backends' part is about.
const SPARE_BACKENDS: &str = "spare backends";

/// What a decision about spare backends says of one of them, made again from its record.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ExplainedSpare {
    /// Its pool.
    pub(crate) pool: String,
    /// The part of the model's requests that all spare backends take, 0 to 1.
    pub(crate) part: f64,
    /// Why that had changed, where it had.
    pub(crate) reason: Option<String>,
}

/// What is recorded of a decision about spare backends.
#[derive(Deserialize)]
struct Inputs {
    groups: Vec<PublishedGroup>,
    relief: ReliefRecord,
}

#[derive(Deserialize)]
struct ReliefRecord {
    input: ReliefInput,
    previous: Relief,
}

/// What a decision about spare backends says of one backend; none where it is not one of them, or where another version of
/// Clairvoy wrote the record.
pub(crate) fn explain_spare(row: &DecisionRow, backend: SocketAddr) -> Option<ExplainedSpare> {
    let inputs = Inputs::deserialize(&row.inputs).ok()?;
    let group = inputs.groups.into_iter().find(|group| group.members.contains_key(&backend))?;
    let mut changes = row.changes.as_array().into_iter().flatten();
    let change = changes.find(|change| change["target"] == SPARE_BACKENDS);
    Some(ExplainedSpare {
        pool: group.pool,
        part: decide_relief(&inputs.relief.input, &inputs.relief.previous).part,
        reason: change.and_then(|change| change["reason"].as_str()).map(str::to_owned),
    })
}

/// The spare pools of a model.
fn pools<'a>(model: &'a Model, config: &'a Config) -> impl Iterator<Item = &'a Pool> {
    model.pools.iter().filter_map(|name| config.pool(name)).filter(|pool| pool.spare)
}

/// Whether a backend is of a spare pool.
pub(super) fn is_spare(backend: &Backend, config: &Config) -> bool {
    config.pool(&backend.pool).is_some_and(|pool| pool.spare)
}

/// Whether any spare backend of a model shows that it serves. One with all the load may be late to show it.
pub(super) fn stands_by(fleet: &Fleet, config: &Config, model: &str, now: DateTime<Utc>) -> bool {
    fleet.of_model(model).any(|backend| {
        is_spare(backend, config)
            && backend.membership == Membership::Active
            && matches!(backend.health(now), Health::Ready | Health::Stale)
    })
}

impl Steering {
    /// Looks at the spare backends; returns a decision when other ones stand by than before, or when they are to take another
    /// part of the requests that come.
    pub(in crate::run) fn stand_by(
        &mut self,
        model: &Model,
        config: &Config,
        fleet: &Fleet,
        offered_rps: f64,
        now: DateTime<Utc>,
    ) -> Option<Steered> {
        let groups = groups(model, config, fleet, now);
        if groups.is_empty() && self.spare.is_empty() {
            self.relief = Relief::default();
            return None;
        }
        let input = ReliefInput {
            spare: standing(&groups),
            others: standing(&self.published),
            members: wanted(fleet, config, &model.name),
            capacity_rps: self.capacity_rps(model, config, fleet, now),
            target_utilisation: model.slo.target_utilisation,
            offered_rps,
        };
        let previous = std::mem::take(&mut self.relief);
        self.relief = decide_relief(&input, &previous);
        let before = std::mem::replace(&mut self.spare, groups);
        if before == self.spare && self.relief.part == previous.part {
            return None;
        }
        let mut changes = changes(&before, &self.spare);
        let summary = if self.relief.part == previous.part {
            format!("{} spare backends stand by", input.spare)
        } else {
            let reason = reason(&input, &self.relief);
            let summary =
                format!("spare backends take {:.0} % of the requests: {reason}", 100.0 * self.relief.part);
            changes.push(Change {
                target: SPARE_BACKENDS.to_owned(),
                from: Some(previous.part),
                to: Some(self.relief.part),
                reason,
            });
            summary
        };
        let relief = json!({ "input": input, "previous": previous });
        Some(Steered {
            kind: "membership",
            summary,
            changes,
            inputs: json!({ "part": "spare", "groups": self.spare, "relief": relief }),
        })
    }

    /// The part of the requests that spare backends take, 0 to 1.
    pub(in crate::run) fn spare_part(&self) -> f64 {
        self.relief.part
    }

    /// The spare backends that take requests; none while they only stand by.
    pub(in crate::run) fn spare_in_use(&self) -> impl Iterator<Item = SocketAddr> {
        let is_in_use = self.relief.part > 0.0;
        let members = self.spare.iter().flat_map(|group| &group.members);
        members.filter(move |(_, draining)| is_in_use && !**draining).map(|(address, _)| *address)
    }

    /// Requests/s that the other backends that take requests serve, at their speed and as far as they are warm; none where
    /// that is not known of each.
    fn capacity_rps(&self, model: &Model, config: &Config, fleet: &Fleet, now: DateTime<Utc>) -> Option<f64> {
        let of_model: Vec<&Backend> = fleet.of_model(&model.name).collect();
        let mix = fleet.mix(&model.name, now);
        let known: BTreeMap<&str, Option<f64>> = self
            .published
            .iter()
            .map(|group| group.pool.as_str())
            .map(|pool| (pool, trusted_capacity(config, &of_model, pool, &mix)))
            .collect();
        let members = self.published.iter().flat_map(|group| {
            let takes = group.members.iter().filter(|(_, draining)| !**draining);
            takes.map(|(address, _)| (*address, group.pool.as_str()))
        });
        let capacity = |(address, pool): (SocketAddr, &str)| {
            let backend = fleet.backend(address)?;
            let warm = WARMING_FROM + (1.0 - WARMING_FROM) * backend.judged().warmed().clamp(0.0, 1.0);
            Some(warm * (*known.get(pool)?)? / backend.slowdown().max(LEAST_SLOWDOWN))
        };
        members.map(capacity).sum()
    }

    /// The spare groups, as they are compiled.
    pub(super) fn spare_intents(&self, config: &Config) -> Vec<GroupIntent> {
        self.spare.iter().map(|group| group_intent(group, config)).collect()
    }
}

/// Members of groups that take requests.
fn standing(groups: &[PublishedGroup]) -> usize {
    groups.iter().flat_map(|group| group.members.values()).filter(|draining| !**draining).count()
}

/// Other backends of a model that are to take requests, whether they can or not.
fn wanted(fleet: &Fleet, config: &Config, model: &str) -> usize {
    let is_wanted =
        |backend: &&Backend| backend.membership == Membership::Active && !is_spare(backend, config);
    fleet.of_model(model).filter(is_wanted).count()
}

/// Who stands by and did not, and the other way round.
fn changes(before: &[PublishedGroup], after: &[PublishedGroup]) -> Vec<Change> {
    let (before, after) = (members(before), members(after));
    let named: BTreeSet<SocketAddr> = before.keys().chain(after.keys()).copied().collect();
    let change = |address: SocketAddr| {
        let stands =
            |set: &BTreeMap<SocketAddr, (&str, bool)>| set.get(&address).is_some_and(|(_, drains)| !drains);
        let reason = if stands(&after) { "stands by as a spare" } else { "stands by no more" };
        (stands(&before) != stands(&after)).then(|| Change {
            target: address.to_string(),
            from: None,
            to: None,
            reason: reason.to_owned(),
        })
    };
    named.into_iter().filter_map(change).collect()
}

fn reason(input: &ReliefInput, relief: &Relief) -> String {
    let others = input.others;
    let usual = relief.usual.round().max(others as f64);
    match input.capacity_rps {
        _ if input.spare == 0 => "none of them takes requests".to_owned(),
        _ if others == 0 => "no other backend can".to_owned(),
        Some(rps) => format!(
            "{others} of {usual} others are back, with {rps:.1} of the {:.1} requests/s that are offered",
            input.offered_rps
        ),
        None => format!("{others} of {usual} others are back"),
    }
}

/// A group for each spare pool. Their weights, by configured capacity, count only where no other group has any backend.
fn groups(model: &Model, config: &Config, fleet: &Fleet, now: DateTime<Utc>) -> Vec<PublishedGroup> {
    let mut pools: Vec<&Pool> = pools(model, config).collect();
    pools.sort_by(|left, right| left.name.cmp(&right.name));
    let capacities = fill_unknown(&pools.iter().map(|pool| pool.capacity_rps).collect::<Vec<_>>());
    let groups: Vec<PublishedGroup> = pools
        .iter()
        .map(|pool| {
            let of_pool: Vec<&Backend> =
                fleet.of_model(&model.name).filter(|backend| backend.pool == pool.name).collect();
            let serves = |backend: &&Backend| {
                backend.membership == Membership::Active && backend.health(now) != Health::Down
            };
            // Where all look dead it may be that none was seen yet, and there is nothing to lose.
            let any_serves = of_pool.iter().any(serves);
            let drains = |backend: &&&Backend| {
                !(serves(backend) || (!any_serves && backend.membership == Membership::Active))
            };
            let members = of_pool.iter().map(|backend| (backend.address, drains(&backend))).collect();
            published(&pool.name, &pool.name, members)
        })
        .filter(|group| !group.members.is_empty())
        .collect();
    let capacity: BTreeMap<&str, f64> = pools.iter().map(|pool| pool.name.as_str()).zip(capacities).collect();
    let shares: Vec<f64> = groups
        .iter()
        .map(|group| {
            let takes = group.members.values().filter(|draining| !**draining).count();
            takes as f64 * capacity.get(group.pool.as_str()).copied().unwrap_or(1.0)
        })
        .collect();
    let weights = whole_weights(&shares, WEIGHTS);
    groups.into_iter().zip(weights).map(|(group, weight)| PublishedGroup { weight, ..group }).collect()
}
