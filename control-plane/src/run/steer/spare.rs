//! Spare pools: groups without a share, which Envoy uses only while no group with one has a backend that it can use.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use chrono::{DateTime, Utc};
use serde_json::json;

use crate::compile::GroupIntent;
use crate::config::{Config, Model, Pool};
use crate::decide::{fill_unknown, whole_weights};
use crate::fleet::{Backend, Fleet, Health, Membership};
use crate::view::Change;

use super::{PublishedGroup, Steered, Steering, WEIGHTS, group_intent, members, published};

/// The spare pools of a model.
fn pools<'a>(model: &'a Model, config: &'a Config) -> impl Iterator<Item = &'a Pool> {
    model.pools.iter().filter_map(|name| config.pool(name)).filter(|pool| pool.spare)
}

/// Whether a backend is of a spare pool.
pub(super) fn is_spare(backend: &Backend, config: &Config) -> bool {
    config.pool(&backend.pool).is_some_and(|pool| pool.spare)
}

/// Whether any spare backend of a model shows that it serves.
pub(super) fn stands_by(fleet: &Fleet, config: &Config, model: &str, now: DateTime<Utc>) -> bool {
    fleet.of_model(model).any(|backend| {
        is_spare(backend, config)
            && backend.membership == Membership::Active
            && backend.health(now) == Health::Ready
    })
}

impl Steering {
    /// Looks at the spare backends; returns a decision when other ones stand by than before.
    pub(in crate::run) fn stand_by(
        &mut self,
        model: &Model,
        config: &Config,
        fleet: &Fleet,
        now: DateTime<Utc>,
    ) -> Option<Steered> {
        let groups = groups(model, config, fleet, now);
        if groups == self.spare {
            return None;
        }
        let (before, after) = (members(&self.spare), members(&groups));
        let named: BTreeSet<SocketAddr> = before.keys().chain(after.keys()).copied().collect();
        let change = |address: SocketAddr| {
            let stands = |set: &BTreeMap<SocketAddr, (&str, bool)>| {
                set.get(&address).is_some_and(|(_, drains)| !drains)
            };
            let reason = if stands(&after) { "stands by as a spare" } else { "stands by no more" };
            (stands(&before) != stands(&after)).then(|| Change {
                target: address.to_string(),
                from: None,
                to: None,
                reason: reason.to_owned(),
            })
        };
        let changes: Vec<Change> = named.into_iter().filter_map(change).collect();
        let standing = after.values().filter(|(_, drains)| !drains).count();
        self.spare = groups;
        Some(Steered {
            kind: "membership",
            summary: format!("{standing} spare backends stand by"),
            changes,
            inputs: json!({ "part": "spare", "groups": self.spare }),
        })
    }

    /// The spare groups, as they are compiled.
    pub(super) fn spare_intents(&self, config: &Config) -> Vec<GroupIntent> {
        self.spare.iter().map(|group| group_intent(group, config)).collect()
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
