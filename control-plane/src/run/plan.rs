use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use clairvoy_forecaster::DemandForecast;

use crate::config::{Config, Model};
use crate::decide::{PoolInput, PoolPlan, plan_replicas};
use crate::fleet::{Backend, Fleet, Health, Membership};

use super::steer::pool_capacity;

/// The largest 90 % quantile that the forecast has for any step up to now + cold start, and the step where the horizon of
/// the cold start ends: `(horizon in steps, q50, q90)`.
pub(super) fn at_cold_start(
    forecast: &DemandForecast,
    cold_start_seconds: f64,
    step_seconds: u32,
) -> Option<(u32, f64, f64)> {
    // The step in which a replica would start to serve: the present step is the first one ahead of the origin.
    let wanted = 1 + (cold_start_seconds / f64::from(step_seconds.max(1))).ceil() as u32;
    let reach = forecast
        .points
        .iter()
        .map(|point| point.horizon_steps)
        .find(|horizon| *horizon >= wanted)
        .or_else(|| forecast.points.last().map(|point| point.horizon_steps))?;
    let within = forecast.points.iter().filter(|point| point.horizon_steps <= reach);
    let median = forecast.points.iter().find(|point| point.horizon_steps == reach)?.quantiles.q50();
    let upper = within.map(|point| point.quantiles.q90()).max_by(f64::total_cmp)?;
    Some((reach, median, upper))
}

/// Plans the pools of one model.
pub(super) fn plan(
    model: &Model,
    config: &Config,
    fleet: &Fleet,
    forecast: Option<&DemandForecast>,
    demand_rps: f64,
    previous: &BTreeMap<String, PoolPlan>,
    now: DateTime<Utc>,
) -> Vec<PoolPlan> {
    let backends: Vec<&Backend> = fleet.of_model(&model.name).collect();
    let step_seconds = config.forecast.step.as_seconds() as u32;
    let pools: Vec<PoolInput> = model
        .pools
        .iter()
        .filter_map(|name| config.pool(name))
        // Spare ones serve nothing that can be planned by.
        .filter(|pool| !pool.spare)
        .map(|pool| {
            let cold_start_seconds = pool.replicas.cold_start.as_seconds();
            let ahead =
                forecast.and_then(|forecast| at_cold_start(forecast, cold_start_seconds, step_seconds));
            PoolInput {
                pool: pool.name.clone(),
                present: present(&backends, &pool.name),
                capacity_rps: pool_capacity(config, &backends, &pool.name),
                min: pool.replicas.min,
                max: pool.replicas.max,
                forecast_rps: ahead.map(|(_, _, q90)| q90),
                cold_start_seconds,
                demand_is_complete: fleet.demand_is_complete(&model.name, now),
                scale_down_after_seconds: pool.replicas.scale_down_after.as_seconds(),
                previous: previous.get(&pool.name).cloned(),
            }
        })
        .collect();
    plan_replicas(&pools, demand_rps, model.slo.target_utilisation, now)
}

/// Replicas of a pool that are meant to serve, whether or not they show telemetry.
pub(super) fn present(backends: &[&Backend], pool: &str) -> u32 {
    let meant = |backend: &&&Backend| backend.pool == pool && backend.membership == Membership::Active;
    u32::try_from(backends.iter().filter(meant).count()).unwrap_or(u32::MAX)
}

/// Replicas of a pool that take requests.
pub(super) fn ready(backends: &[&Backend], pool: &str, now: DateTime<Utc>) -> u32 {
    let serves = |backend: &&&Backend| {
        backend.pool == pool
            && backend.membership == Membership::Active
            && matches!(backend.health(now), Health::Ready | Health::Stale)
    };
    u32::try_from(backends.iter().filter(serves).count()).unwrap_or(u32::MAX)
}
