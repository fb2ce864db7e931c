use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};

use crate::compile::{EndpointIntent, GroupIntent, ModelIntent};
use crate::config::{Config, Model};
use crate::decide::{PoolCapacity, StaticCapacities};
use crate::fleet::Backend;

use super::super::steer::{PublishedGroup, Steering, WEIGHTS, share_capacity};
use super::Core;

impl Core {
    /// What the Envoys should do about each model, sorted by name. With `steers` false all go by capacity.
    pub(in crate::run) fn intents(&self, steers: bool, now: DateTime<Utc>) -> Vec<ModelIntent> {
        let intent = |configured: &Model| {
            let model = &*self.in_effect(configured);
            let steering = self.steering.get(&model.name)?;
            let static_groups = static_groups(steering, &self.config);
            let relied_on = if steers { self.relied_on(&model.name, now) } else { 0 };
            let intent = steering.intent(model, &self.config);
            Some(ModelIntent {
                predictive_percent: if model.balance.policy.has_groups() {
                    relied_on.min(model.predictive_percent())
                } else {
                    // Envoy's own policy, for users' routes that ask the layer.
                    if steers { 100 } else { 0 }
                },
                // One that has stepped back keeps its groups of Envoys, in which then nothing is steered.
                steered_proxies: configured.steered_proxies(),
                // Where nothing is to be steered, nothing that was predicted leaves the house.
                groups: if model.follows_decisions() { intent.groups } else { static_groups.clone() },
                views: if model.follows_decisions() { intent.views } else { Vec::new() },
                static_groups,
                lanes: self.lanes_intent(model, steers),
                ..intent
            })
        };
        let mut models: Vec<ModelIntent> = self.config.models.iter().filter_map(intent).collect();
        models.sort_by(|left, right| left.name.cmp(&right.name));
        models
    }

    /// Takes the capacities anew of which a model's static shares are made; true when they are other ones.
    pub(super) fn take_capacities(&mut self, model: &str, now: DateTime<Utc>) -> bool {
        let of_model: Vec<&Backend> = self.fleet.of_model(model).collect();
        let mix = self.fleet.mix(model, now);
        let Some(steering) = self.steering.get_mut(model) else { return false };
        let pools: Vec<PoolCapacity> = serving(&steering.published)
            .map(|(pool, backends)| PoolCapacity {
                capacity_rps: share_capacity(&self.config, &of_model, &pool, &mix),
                pool,
                backends,
            })
            .collect();
        let next = StaticCapacities::next(steering.capacities.as_ref(), &pools, now);
        let is_new = steering.capacities.as_ref() != Some(&next);
        steering.capacities = Some(next);
        is_new
    }
}

/// The pools of groups, and how many backends of each take requests.
fn serving(published: &[PublishedGroup]) -> impl Iterator<Item = (String, usize)> {
    let mut pools = BTreeMap::<String, usize>::new();
    for group in published {
        let takes = group.members.values().filter(|draining| !**draining).count();
        *pools.entry(group.pool.clone()).or_default() += takes;
    }
    pools.into_iter()
}

/// The published backends of a model by pool, with the shares that their capacities give them.
pub(in crate::run) fn static_groups(steering: &Steering, config: &Config) -> Vec<GroupIntent> {
    let pools: Vec<PoolCapacity> = serving(&steering.published)
        .map(|(pool, backends)| PoolCapacity { pool, backends, capacity_rps: None })
        .collect();
    let nothing = StaticCapacities { rps: BTreeMap::new(), at: DateTime::UNIX_EPOCH };
    let shares = steering.capacities.as_ref().unwrap_or(&nothing).shares(&pools);
    let group = |(pool, share): (&String, &f64)| {
        let settings = config.pool(pool);
        let locality = settings.map(|pool| pool.locality.clone()).unwrap_or_default();
        let of_pool = steering.published.iter().filter(|group| group.pool == *pool);
        let members: BTreeSet<_> = of_pool.flat_map(|group| &group.members).collect();
        GroupIntent {
            region: locality.region,
            zone: locality.zone,
            name: pool.clone(),
            is_checked: settings.is_none_or(|pool| pool.health_checks),
            weight: ((share * f64::from(WEIGHTS)).round() as u32).max(1),
            endpoints: members
                .into_iter()
                .map(|(address, draining)| EndpointIntent {
                    address: *address,
                    draining: *draining,
                    weight: 1,
                })
                .collect(),
        }
    };
    shares.iter().map(group).collect()
}

#[cfg(test)]
mod tests;
