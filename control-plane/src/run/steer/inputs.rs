use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::config::{Config, Model};
use crate::decide::{BackendInput, Mix, ModelInput};
use crate::fleet::{Backend, Fleet, Health, Membership};
use crate::telemetry::Sample;

use super::spare::{is_spare, stands_by};
use super::{PublishedGroup, members};

/// The backends that share the model's traffic; spare ones do not. When most of them look dead it is our view that fails rather than the
/// fleet: then all that should serve do, but for those that were taken out long ago. And after a start nobody has been looked
/// at yet: what serves already keeps its place until its telemetry speaks against it. Where all are dead for sure and spare ones are not, none shares it; from then
/// on, while the spare ones relieve them, only those do that show themselves again.
pub(super) fn serving<'a>(
    fleet: &'a Fleet,
    config: &Config,
    model: &str,
    published: &[PublishedGroup],
    is_relieved: bool,
    now: DateTime<Utc>,
) -> Vec<&'a Backend> {
    let placed = members(published);
    let wanted: Vec<&Backend> = fleet
        .of_model(model)
        .filter(|backend| backend.membership == Membership::Active && !is_spare(backend, config))
        .collect();
    let down = wanted.iter().filter(|backend| backend.health(now) == Health::Down).count();
    // Envoys may well reach what we do not.
    let is_served = |backend: &&Backend| {
        backend.gateway.served_at.is_some_and(|at| (now - at).as_seconds_f64() <= SERVED_SECONDS)
    };
    let stands_by = || stands_by(fleet, config, model, now);
    if down == wanted.len() && !wanted.iter().any(is_served) && stands_by() {
        return Vec::new();
    }
    if is_relieved && stands_by() {
        return wanted.into_iter().filter(|backend| backend.is_eligible(now)).collect();
    }
    let believed = |backend: &&&Backend| {
        let keeps_place = backend.health(now) == Health::Waiting
            && placed.get(&backend.address) == Some(&(backend.pool.as_str(), false));
        backend.is_eligible(now)
            || keeps_place
            || (down * 2 > wanted.len() && backend.sample.is_some() && placed.contains_key(&backend.address))
    };
    let eligible: Vec<&Backend> = wanted.iter().filter(believed).copied().collect();
    if eligible.is_empty() { wanted } else { eligible }
}

/// A backend of which Envoys brought an answer so lately serves them, seconds.
const SERVED_SECONDS: f64 = 15.0;

/// Where a backend finishes its streams.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    pub(super) pool: String,
    pub(super) group: String,
}

/// Backends that stay in their group to finish their streams: those that leave, and those that look dead, for the time that
/// streams have to finish. In another group Envoy would take each for a new one.
pub(super) fn draining(
    fleet: &Fleet,
    config: &Config,
    model: &str,
    serving: &[&Backend],
    published: &[PublishedGroup],
    now: DateTime<Utc>,
) -> BTreeMap<SocketAddr, Place> {
    let serves: BTreeSet<SocketAddr> = serving.iter().map(|backend| backend.address).collect();
    let drain_seconds = config.balance.drain_time.as_seconds();
    let is_gone =
        |backend: &Backend| backend.down_seconds(now).is_some_and(|seconds| seconds >= drain_seconds);
    let place = |backend: &Backend| {
        let is_in = |group: &&PublishedGroup| {
            group.pool == backend.pool && group.members.contains_key(&backend.address)
        };
        let group = published.iter().find(is_in).map_or(&backend.pool, |group| &group.name);
        Place { pool: backend.pool.clone(), group: group.clone() }
    };
    fleet
        .of_model(model)
        .filter(|backend| !serves.contains(&backend.address) && !is_spare(backend, config))
        .filter(|backend| match backend.membership {
            // What is dead for longer than a stream has to finish is only in the way: Envoy counts it as a host.
            Membership::Active => backend.sample.is_some() && !is_gone(backend),
            _ => true,
        })
        .map(|backend| (backend.address, place(backend)))
        .collect()
}

/// What the law sees of a model.
pub(super) fn model_input(
    model: &Model,
    serving: &[&Backend],
    config: &Config,
    fleet: &Fleet,
    demand_rps: f64,
    observed_seconds: f64,
    now: DateTime<Utc>,
) -> ModelInput {
    let pools: BTreeSet<&str> = serving.iter().map(|backend| backend.pool.as_str()).collect();
    let of_pools = |of_pool: &dyn Fn(&str) -> Option<f64>| -> BTreeMap<&str, f64> {
        pools.iter().filter_map(|pool| Some((*pool, of_pool(pool)?))).collect()
    };
    let capacities = of_pools(&|pool| pool_capacity(config, serving, pool));
    let at_ease = of_pools(&|pool| pool_at_ease(serving, pool));
    let mix = fleet.mix(&model.name, now);
    let input = |backend: &&Backend| {
        let capacity_rps = capacities.get(backend.pool.as_str()).copied();
        let at_ease_rps = at_ease.get(backend.pool.as_str()).copied();
        BackendInput { at_ease_rps, ..backend_input(backend, capacity_rps, config, &mix, now) }
    };
    ModelInput {
        arrivals_rps: demand_rps,
        mix,
        envoys: fleet.reports().reporters().max(1),
        steered_part: model.steered_part(),
        observed_seconds,
        backends: serving.iter().map(input).collect(),
    }
}

fn backend_input(
    backend: &Backend,
    capacity_rps: Option<f64>,
    config: &Config,
    mix: &Mix,
    now: DateTime<Utc>,
) -> BackendInput {
    let pool = config.pool(&backend.pool);
    let (locality, configured) = (pool.map(|pool| &pool.locality), pool.and_then(|pool| pool.capacity_rps));
    let in_flight = |sample: &Sample| match (sample.running, sample.queue_depth) {
        (None, None) => None,
        (running, waiting) => Some(running.unwrap_or(0.0) + waiting.unwrap_or(0.0)),
    };
    let judged = backend.judged();
    BackendInput {
        address: backend.address,
        pool: backend.pool.clone(),
        zone: locality.map(|place| format!("{}/{}", place.region, place.zone)).unwrap_or_default(),
        profile: backend.profile().map(|profile| match configured {
            Some(rps) => profile.of_capacity(rps, mix),
            None => profile,
        }),
        capacity_rps,
        at_ease_rps: None,
        slowdown: backend.slowdown(),
        in_flight: backend.sample.as_ref().and_then(in_flight),
        age_seconds: backend.age_seconds(now),
        verdict: judged.verdict(),
        price_per_hour: pool.and_then(|pool| pool.price_per_hour),
        warmed: judged.warmed(),
        sign: judged.sign(),
    }
}

/// Requests/s of one backend of a pool by which shares go: as configured, what the profiles of its backends say at the
/// present mix (their median), or the most that any of them was seen to serve.
pub(in crate::run) fn share_capacity(
    config: &Config,
    backends: &[&Backend],
    pool: &str,
    mix: &Mix,
) -> Option<f64> {
    trusted_capacity(config, backends, pool, mix).or_else(|| pool_capacity(config, backends, pool))
}

/// The same, as far as it does not depend on how busy the backends were.
pub(super) fn trusted_capacity(config: &Config, backends: &[&Backend], pool: &str, mix: &Mix) -> Option<f64> {
    let profiled = || {
        let of_pool = backends.iter().filter(|backend| backend.pool == pool);
        let mut known: Vec<f64> =
            of_pool.filter_map(|backend| Some(backend.profile()?.capacity_rps(mix))).collect();
        known.retain(|rps| *rps > 0.0);
        known.sort_by(f64::total_cmp);
        known.get(known.len() / 2).copied()
    };
    let configured = config.pool(pool).and_then(|pool| pool.capacity_rps);
    configured.or_else(profiled)
}

/// Requests/s of one backend of a pool: as configured, or the most that any of them was seen to serve.
pub(in crate::run) fn pool_capacity(config: &Config, backends: &[&Backend], pool: &str) -> Option<f64> {
    let learned = || {
        let of_pool = backends.iter().filter(|backend| backend.pool == pool);
        of_pool.filter_map(|backend| backend.capacity.rps()).max_by(f64::total_cmp)
    };
    config.pool(pool).and_then(|pool| pool.capacity_rps).or_else(learned)
}

/// The most requests/s that any backend of a pool was seen to serve while none waited.
fn pool_at_ease(backends: &[&Backend], pool: &str) -> Option<f64> {
    let of_pool = backends.iter().filter(|backend| backend.pool == pool);
    of_pool.filter_map(|backend| backend.capacity.at_ease_rps()).max_by(f64::total_cmp)
}
