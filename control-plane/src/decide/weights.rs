use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// Telemetry up to this age is trusted fully; from there trust falls to nothing at `STALE_SECONDS`.
const FRESH_SECONDS: f64 = 2.5;
const STALE_SECONDS: f64 = 5.0;
/// A backend this much slower than usual gets a group of its own, and comes back below the second value: within a
/// group Envoy takes all backends for equal, and regrouping costs the backend its connections, so it is done seldom.
const LEAVE_GROUP_AT: f64 = 1.6;
const RETURN_TO_GROUP_AT: f64 = 1.25;
/// Nobody gets more than this times its capacity share.
const CEILING: f64 = 2.0;
/// Load below which the correction does not grow further: an idle fleet's waits are all short.
const LEAST_UTILISATION: f64 = 0.25;

/// Parameters of the weight law.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Law {
    /// Time within which a backend above the common wait is brought back to it, seconds.
    pub correction_seconds: f64,
    /// Part of the way to the wanted shares that is gone with each evaluation, 0 to 1.
    pub smoothing: f64,
    /// Least part of its capacity share that a backend keeps.
    pub floor: f64,
    /// Part of the traffic that has to move before new weights are published.
    pub dead_band: f64,
}

/// What the law sees of one backend.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackendInput {
    /// Its address.
    pub address: SocketAddr,
    /// Its pool; backends of a pool are of one kind and in one place.
    pub pool: String,
    /// Requests/s that it serves at its usual speed; more than 0.
    pub capacity_rps: f64,
    /// How many times longer than usual its iterations take; 1 as usual.
    pub slowdown: f64,
    /// Predicted time to first token of the next request, seconds; none when nothing is known.
    pub predicted_wait_seconds: Option<f64>,
    /// Age of the telemetry behind the prediction, seconds; none without any.
    pub age_seconds: Option<f64>,
}

/// What the law remembers from one evaluation to the next.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WeightState {
    /// Smoothed share of each backend.
    pub shares: BTreeMap<SocketAddr, f64>,
    /// Shares when weights were last published.
    pub published: BTreeMap<SocketAddr, f64>,
    /// Backends in a group of their own.
    pub alone: BTreeSet<SocketAddr>,
}

/// The share of one backend, with its reasons.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackendShare {
    /// The backend.
    pub address: SocketAddr,
    /// Its group.
    pub group: String,
    /// Its share of the model's traffic, 0 to 1.
    pub share: f64,
    /// Its share if only (usual) capacity counted.
    pub capacity_share: f64,
    /// What moved it, in words.
    pub reason: String,
}

/// The share of one group: what Envoy is told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupShare {
    /// The group's name.
    pub group: String,
    /// The pool of its backends.
    pub pool: String,
    /// Its members, sorted.
    pub members: Vec<SocketAddr>,
    /// Share of the model's traffic, 0 to 1.
    pub share: f64,
}

/// One evaluation of the law for one model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WeightDecision {
    /// What to remember.
    pub state: WeightState,
    /// Shares by backend, sorted by address.
    pub backends: Vec<BackendShare>,
    /// Shares by group, sorted by name.
    pub groups: Vec<GroupShare>,
    /// Capacity-weighted mean of the predicted waits: the level that all are led to; none when nothing is known.
    pub level_seconds: Option<f64>,
    /// Whether the change is worth publishing.
    pub publish: bool,
}

/// Shares of a model's traffic: capacity shares, corrected towards a common wait.
///
/// With capacity `mu_i` (at the present speed), predicted wait `w_i`, level `w = sum(mu_i w_i) / sum(mu_i)` and
/// utilisation `rho = lambda / sum(mu_i)`, backend `i` holds about `mu_i w_i` requests' worth of waiting; working the
/// surplus over the level off within the time `H` asks for the inflow `mu_i rho - mu_i (w_i - w) / H`, so
///
/// `share_i ~ mu_i (1 + trust_i (w - w_i) / (H rho))`, bounded, smoothed.
///
/// Trust falls with the age of the telemetry, so a backend that falls silent goes back to its capacity share.
pub fn decide_weights(
    inputs: &[BackendInput],
    demand_rps: f64,
    previous: &WeightState,
    law: &Law,
) -> WeightDecision {
    let total_usual: f64 = inputs.iter().map(|input| input.capacity_rps).sum();
    let present: Vec<f64> = inputs.iter().map(|input| input.capacity_rps / slowdown(input)).collect();
    let total: f64 = present.iter().sum();
    let utilisation = (demand_rps / total.max(f64::MIN_POSITIVE)).clamp(LEAST_UTILISATION, 1.0);
    let level = level(inputs, &present);

    let mut wanted = Vec::with_capacity(inputs.len());
    let mut reasons = Vec::with_capacity(inputs.len());
    for (input, present) in inputs.iter().zip(&present) {
        let usual_share = input.capacity_rps / total_usual;
        let correction = correction(input, level, utilisation, law);
        let share = (present / total * correction)
            .clamp(law.floor * usual_share, CEILING * usual_share.max(present / total));
        wanted.push(share);
        reasons.push(reason(input, level, correction));
    }
    let wanted = normalised(&wanted);
    let shares = smoothed(inputs, &wanted, previous, law.smoothing);
    let alone = regrouped(inputs, &previous.alone);

    let group_of = |input: &BackendInput| {
        if alone.contains(&input.address) {
            format!("{}/{}", input.pool, input.address)
        } else {
            input.pool.clone()
        }
    };
    let mut backends: Vec<BackendShare> = Vec::with_capacity(inputs.len());
    let mut groups: BTreeMap<String, GroupShare> = BTreeMap::new();
    for ((input, share), reason) in inputs.iter().zip(&shares).zip(reasons) {
        let name = group_of(input);
        let group = groups.entry(name.clone()).or_insert_with(|| GroupShare {
            group: name.clone(),
            pool: input.pool.clone(),
            members: Vec::new(),
            share: 0.0,
        });
        group.members.push(input.address);
        group.share += share;
        backends.push(BackendShare {
            address: input.address,
            group: name,
            share: *share,
            capacity_share: input.capacity_rps / total_usual,
            reason,
        });
    }
    backends.sort_by_key(|backend| backend.address);
    groups.values_mut().for_each(|group| group.members.sort_unstable());

    let current: BTreeMap<_, _> = backends.iter().map(|backend| (backend.address, backend.share)).collect();
    let publish = alone != previous.alone || moved(&current, &previous.published) >= law.dead_band;
    let published = if publish { current.clone() } else { previous.published.clone() };
    WeightDecision {
        state: WeightState { shares: current, published, alone },
        backends,
        groups: groups.into_values().collect(),
        level_seconds: level,
        publish,
    }
}

fn slowdown(input: &BackendInput) -> f64 {
    // Small departures are the mix of prompts, not the machine.
    const USUAL_UP_TO: f64 = 1.3;
    let trusted = trusted_slowdown(input);
    if trusted > USUAL_UP_TO { trusted } else { 1.0 }
}

/// The slowdown as far as its telemetry is fresh: what was seen long ago is not held against a backend.
fn trusted_slowdown(input: &BackendInput) -> f64 {
    1.0 + trust(input) * (input.slowdown - 1.0)
}

fn trust(input: &BackendInput) -> f64 {
    let Some(age) = input.age_seconds else { return 0.0 };
    ((STALE_SECONDS - age) / (STALE_SECONDS - FRESH_SECONDS)).clamp(0.0, 1.0)
}

fn level(inputs: &[BackendInput], capacities: &[f64]) -> Option<f64> {
    let mut weighted = 0.0;
    let mut weight = 0.0;
    for (input, capacity) in inputs.iter().zip(capacities) {
        if let Some(wait) = input.predicted_wait_seconds {
            let part = capacity * trust(input);
            weighted += part * wait;
            weight += part;
        }
    }
    (weight > 0.0).then(|| weighted / weight)
}

fn correction(input: &BackendInput, level: Option<f64>, utilisation: f64, law: &Law) -> f64 {
    let (Some(wait), Some(level)) = (input.predicted_wait_seconds, level) else { return 1.0 };
    (1.0 + trust(input) * (level - wait) / (law.correction_seconds * utilisation)).max(0.0)
}

fn reason(input: &BackendInput, level: Option<f64>, correction: f64) -> String {
    let mut parts = Vec::new();
    if slowdown(input) > 1.0 {
        parts.push(format!("runs {:.1} times slower than usual", slowdown(input)));
    }
    match (input.predicted_wait_seconds, level) {
        (Some(wait), Some(level)) if trust(input) > 0.0 => {
            if (correction - 1.0).abs() >= 0.02 {
                let side = if wait > level { "above" } else { "below" };
                parts.push(format!("predicted wait {wait:.2} s is {side} the level {level:.2} s"));
            }
        }
        (Some(_), _) => parts.push("telemetry is stale: capacity share".to_owned()),
        (None, _) => parts.push("no prediction yet: capacity share".to_owned()),
    }
    if parts.is_empty() { "at the level: capacity share".to_owned() } else { parts.join("; ") }
}

fn normalised(shares: &[f64]) -> Vec<f64> {
    let sum: f64 = shares.iter().sum();
    shares.iter().map(|share| if sum > 0.0 { share / sum } else { 1.0 / shares.len() as f64 }).collect()
}

/// A step towards the wanted shares. The first evaluation takes them whole; a newcomer rises from nothing.
fn smoothed(inputs: &[BackendInput], wanted: &[f64], previous: &WeightState, smoothing: f64) -> Vec<f64> {
    let known = inputs.iter().any(|input| previous.shares.contains_key(&input.address));
    if !known {
        return wanted.to_vec();
    }
    let stepped: Vec<f64> = inputs
        .iter()
        .zip(wanted)
        .map(|(input, wanted)| {
            let before = previous.shares.get(&input.address).copied().unwrap_or(0.0);
            before + smoothing * (wanted - before)
        })
        .collect();
    normalised(&stepped)
}

fn regrouped(inputs: &[BackendInput], alone: &BTreeSet<SocketAddr>) -> BTreeSet<SocketAddr> {
    inputs
        .iter()
        .filter(|input| {
            let threshold = if alone.contains(&input.address) { RETURN_TO_GROUP_AT } else { LEAVE_GROUP_AT };
            trusted_slowdown(input) > threshold
        })
        .map(|input| input.address)
        .collect()
}

/// Part of the traffic that moves between two sets of shares, 0 to 1.
fn moved(current: &BTreeMap<SocketAddr, f64>, published: &BTreeMap<SocketAddr, f64>) -> f64 {
    if current.keys().ne(published.keys()) {
        return 1.0;
    }
    current.iter().map(|(address, share)| (share - published[address]).abs()).sum::<f64>() / 2.0
}

#[cfg(test)]
mod tests;
