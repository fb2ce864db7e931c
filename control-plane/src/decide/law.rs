//! The law: how what is known of a model's backends becomes shares of its traffic.
//!
//! Each backend gets the inflow that would hold it at its target level, and a correction that leads it there:
//!
//! ```text
//! r_i(l) = clamp(X_i(n_i(l)) + (n_i(l) - n_i) / H, lo_i, hi_i)        sum of r_i(l) = arrivals
//! ```
//!
//! `l` is the cost of one more request, the same everywhere; `n_i(l)` the requests in flight at which backend `i` has that
//! cost, by the curve of its profile at the present mix and speed ([`Profile`](super::Profile)); `X_i` what it serves then;
//! `n_i` what it has in flight now. A share is `r_i` in parts of all, smoothed. Capacity and a target make it, never the
//! inverse of a congestion signal, which oscillates with delay.
//!
//! Telemetry counts the less the older it is: between 2.5 and 5 s the correction goes, between 5 and 15 s all the rest, and
//! the capacity share stays. Nothing but capacity counts before a whole window of telemetry was seen.
//!
//! A [`Verdict`] bounds `r_i` from above, however old telemetry is: a sick backend keeps what shows whether it is well again,
//! and one that has just started a part of its capacity share that grows, and at least where that begins.

mod capacity;
mod caps;
mod costs;
mod groups;
mod input;
mod level;
mod output;
mod reason;
mod steps;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use chrono::{DateTime, Utc};

use super::curve::Curve;
use super::shares::{normalised, whole_weights};

use level::Side;
use steps::step;

pub use capacity::capacity_shares;
pub use input::{BackendInput, Law, ModelInput, Verdict};
pub use output::{Aside, BackendShare, Clamp, Form, GroupShare, Terms, WeightDecision, WeightState};
pub use steps::moved;

/// Up to the first age telemetry counts fully; from there its correction fades, until the second one, seconds.
const FRESH_SECONDS: f64 = 2.5;
const STALE_SECONDS: f64 = 5.0;
/// From the last age on nothing of it counts, seconds.
const FORGOTTEN_SECONDS: f64 = 15.0;
/// A backend gets a request about as often as this, where a tenth of its capacity share is enough for it, seconds: what
/// gets nothing is not seen to be well again.
const PROBE_SECONDS: f64 = 10.0;
const MOST_PROBING: f64 = 0.1;
/// An idle fleet is decided on as if it had this load.
const LEAST_LOAD: f64 = 0.05;
/// More requests/s, or in flight, are none.
const MOST: f64 = 1e9;
/// Where a model's endpoints have weights they add up to this.
pub const ENDPOINT_WEIGHTS: u32 = 100_000;
/// Envoy divides an endpoint's weight by its active requests plus one to this power.
pub const ACTIVE_REQUEST_BIAS: f64 = 2.0;

/// Shares of a model's traffic. The same values give the same bytes, whatever the order of the backends; of two with one
/// address the first counts.
pub fn decide_weights(
    model: &ModelInput,
    previous: &WeightState,
    law: &Law,
    now: DateTime<Utc>,
) -> WeightDecision {
    let law = law.within_bounds();
    let mut backends: Vec<&BackendInput> = model.backends.iter().collect();
    backends.sort_by_key(|backend| backend.address);
    backends.dedup_by_key(|backend| backend.address);

    let usual = capacity::usual_curves(&backends, &model.mix, model.arrivals_rps);
    let by_capacity = normalised(&usual.iter().map(Curve::capacity_rps).collect::<Vec<_>>());
    let seen = capacity::curves_at_ease(usual.clone(), &backends, &model.mix);
    let (mut sides, arrivals_rps) = sides(model, &backends, &seen, &by_capacity, previous, &law);
    let sick = caps::sick(&backends);
    caps::cap(&mut sides, &backends, &sick, arrivals_rps);
    costs::prefer_cheap(&mut sides, &backends, &usual, arrivals_rps, &law);
    let level = level::solve(&sides, arrivals_rps, &law);
    let mut terms: Vec<Terms> = sides.iter().map(|side| side.terms(level, &law)).collect();
    let is_watched = model.observed_seconds >= law.window_seconds;
    let wanted = if is_watched {
        normalised(&terms.iter().map(|terms| terms.inflow_rps).collect::<Vec<_>>())
    } else {
        untouched(&backends, &by_capacity, previous)
    };

    let (alone, slow_since) = groups::alone(&backends, &sides, &sick, previous, now);
    // Backends are seen one after the other at first: who was first shall not have everything until all have risen.
    let shares = if is_watched {
        smoothed(&backends, &wanted, previous, &groups::failing(&sides, &sick), &law)
    } else {
        wanted.clone()
    };
    for ((terms, wanted), smoothed) in terms.iter_mut().zip(&wanted).zip(&shares) {
        (terms.wanted_share, terms.smoothed_share) = (*wanted, *smoothed);
    }
    let (groups, names) = groups::groups(&backends, &shares, &alone);
    let (form, other_form_since) =
        groups::form(&sides, groups.len(), model.envoys_in_parts(), &model.mix, &law, previous, now);
    let weights = endpoint_weights(&terms, model.envoys_in_parts());

    let decided: Vec<BackendShare> = (0..backends.len())
        .map(|index| {
            let group = &groups[&names[index]];
            let share = match form {
                Form::Groups => group.share / group.members.len() as f64,
                Form::Endpoints => shares[index],
            };
            BackendShare {
                address: backends[index].address,
                group: names[index].clone(),
                share,
                capacity_share: by_capacity[index],
                reason: reason::reason(model, backends[index], &terms[index], &law),
                terms: terms[index],
                weight: weights[index],
            }
        })
        .collect();
    let shares = backends.iter().map(|backend| backend.address).zip(shares).collect();
    let dead_band = law.dead_band.max(f64::MIN_POSITIVE);
    let publish = alone.keys().ne(previous.alone.keys())
        || form != previous.form
        || moved(&current(&decided), &previous.published) >= dead_band
        || is_held_back_anew(&sides, &decided, &previous.published)
        || (form == Form::Endpoints && moved(&by_weight(&decided), &previous.published_weights) >= dead_band);
    let decision = WeightDecision {
        state: WeightState { shares, alone, slow_since, form, other_form_since, ..previous.clone() },
        level_seconds: (!decided.is_empty()).then_some(level),
        backends: decided,
        groups: groups.into_values().collect(),
        form,
        publish,
    };
    if publish { WeightDecision { state: decision.published(), ..decision } } else { decision }
}

impl WeightDecision {
    /// What to remember once it is published.
    pub fn published(&self) -> WeightState {
        let weights = if self.form == Form::Endpoints { by_weight(&self.backends) } else { BTreeMap::new() };
        WeightState { published: current(&self.backends), published_weights: weights, ..self.state.clone() }
    }
}

/// A verdict has moved a share by this part of it: that is told, however little it is for all.
const NOTABLE_PART: f64 = 1.0 / 3.0;

/// Whether a backend that its verdict holds back was published with a share that is far from what it is left.
fn is_held_back_anew(
    sides: &[Side],
    decided: &[BackendShare],
    published: &BTreeMap<SocketAddr, f64>,
) -> bool {
    let is_off = |(side, backend): (&Side, &BackendShare)| {
        let before = published.get(&backend.address).copied().unwrap_or(0.0);
        side.cap.is_some() && (backend.share - before).abs() > NOTABLE_PART * before.max(backend.share)
    };
    sides.iter().zip(decided).any(is_off)
}

fn current(backends: &[BackendShare]) -> BTreeMap<SocketAddr, f64> {
    backends.iter().map(|backend| (backend.address, backend.share)).collect()
}

/// Weights of endpoints, of sum 1.
fn by_weight(backends: &[BackendShare]) -> BTreeMap<SocketAddr, f64> {
    let part = |weight: u32| f64::from(weight) / f64::from(ENDPOINT_WEIGHTS);
    backends.iter().map(|backend| (backend.address, part(backend.weight))).collect()
}

/// The backends as the level sees them, and the arrivals that are shared out.
fn sides(
    model: &ModelInput,
    backends: &[&BackendInput],
    usual: &[Curve],
    by_capacity: &[f64],
    previous: &WeightState,
    law: &Law,
) -> (Vec<Side>, f64) {
    let slowdowns: Vec<(f64, f64)> = backends
        .iter()
        .map(|backend| {
            let slowdown =
                if backend.slowdown.is_finite() { backend.slowdown.clamp(0.1, 100.0) } else { 1.0 };
            let trust = fades(backend.age_seconds, STALE_SECONDS, FORGOTTEN_SECONDS);
            (1.0 + trust * (slowdown - 1.0), trust)
        })
        .collect();
    let present: Vec<Curve> =
        usual.iter().zip(&slowdowns).map(|(curve, (slowdown, _))| curve.slowed(*slowdown)).collect();
    let capacity: f64 = present.iter().map(Curve::capacity_rps).sum();
    let offered = if model.arrivals_rps.is_finite() { model.arrivals_rps.clamp(0.0, MOST) } else { 0.0 };
    let usual_capacity: f64 = usual.iter().map(Curve::capacity_rps).sum();
    let arrivals = offered.max(LEAST_LOAD * usual_capacity);
    let most = law.ceiling * (arrivals / capacity.max(f64::MIN_POSITIVE)).max(1.0);
    let side = |index: usize| {
        let (backend, curve) = (backends[index], present[index]);
        let (slowdown, trust) = slowdowns[index];
        let part = arrivals * by_capacity[index];
        let floor_rps = (1.0 / PROBE_SECONDS).min(MOST_PROBING * part).max(law.floor * part);
        let before = previous.published.get(&backend.address).copied().unwrap_or(0.0);
        Side {
            curve,
            slowdown,
            in_flight: in_flight_now(backend, &curve, offered * before),
            freshness: if curve.is_generic {
                0.0
            } else {
                fades(backend.age_seconds, FRESH_SECONDS, STALE_SECONDS)
            },
            trust,
            floor_rps,
            ceiling_rps: (most * curve.capacity_rps()).max(floor_rps),
            capacity_part_rps: part,
            cap: None,
            surcharge_seconds: 0.0,
        }
    };
    ((0..backends.len()).map(side).collect(), arrivals)
}

/// 1 up to an age, 0 from another on, and on the way between.
fn fades(age_seconds: Option<f64>, from: f64, to: f64) -> f64 {
    match age_seconds {
        Some(age) if age.is_finite() => ((to - age) / (to - from)).clamp(0.0, 1.0),
        _ => 0.0,
    }
}

/// Requests that a backend has now: those at its newest sample, and what came and went since. What comes at one rate leads to
/// as many as it then completes them at, and never beyond.
fn in_flight_now(backend: &BackendInput, curve: &Curve, sent_rps: f64) -> Option<f64> {
    let count = |count: f64| (count.is_finite() && (0.0..=MOST).contains(&count)).then_some(count);
    let then = backend.in_flight.and_then(count)?;
    let elapsed = backend.age_seconds.and_then(count)?.min(STALE_SECONDS);
    let sent_rps = count(sent_rps).unwrap_or(0.0);
    let led_to = if sent_rps < curve.capacity_rps() { curve.in_flight_of_rate(sent_rps) } else { MOST };
    let moved = then + (sent_rps - curve.rate(then)) * elapsed;
    Some(if then < led_to { moved.min(led_to) } else { moved.max(led_to) }.clamp(0.0, MOST))
}

/// Those of which there are shares of before keep them, beside the others, which have those of capacity.
fn untouched(backends: &[&BackendInput], by_capacity: &[f64], previous: &WeightState) -> Vec<f64> {
    let before = |backend: &BackendInput| known_share(backend, previous);
    let pairs = backends.iter().zip(by_capacity);
    let of_new: f64 = pairs.filter(|(backend, _)| before(backend).is_none()).map(|(_, share)| share).sum();
    let known: f64 = backends.iter().filter_map(|backend| before(backend)).sum();
    let share = |(backend, by_capacity): (&&BackendInput, &f64)| {
        before(backend).map_or(*by_capacity, |share| (1.0 - of_new) * share / known)
    };
    normalised(&backends.iter().zip(by_capacity).map(share).collect::<Vec<_>>())
}

fn known_share(backend: &BackendInput, previous: &WeightState) -> Option<f64> {
    let share = previous.shares.get(&backend.address).copied();
    share.filter(|share| share.is_finite() && *share > 0.0)
}

/// A step towards the wanted shares. The first evaluation takes them whole; a newcomer rises from nothing.
fn smoothed(
    backends: &[&BackendInput],
    wanted: &[f64],
    previous: &WeightState,
    is_failing: &[bool],
    law: &Law,
) -> Vec<f64> {
    let before: Vec<f64> =
        backends.iter().map(|backend| known_share(backend, previous).unwrap_or(0.0)).collect();
    if before.iter().all(|share| *share <= 0.0) {
        return wanted.to_vec();
    }
    step(&normalised(&before), wanted, is_failing, law)
}

/// Weights of endpoints by which Envoy hands out the shares when each has as many requests as it should.
fn endpoint_weights(terms: &[Terms], envoys: f64) -> Vec<u32> {
    let raised = |terms: &Terms| {
        let active = terms.target_in_flight / envoys;
        terms.smoothed_share * (active + 1.0).powf(ACTIVE_REQUEST_BIAS)
    };
    whole_weights(&terms.iter().map(raised).collect::<Vec<_>>(), ENDPOINT_WEIGHTS)
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
