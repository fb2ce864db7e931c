use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::super::Mix;
use super::super::curve::Curve;
use super::super::shares::normalised;
use super::input::{BackendInput, ModelInput};
use super::{FRESH_SECONDS, MOST, STALE_SECONDS, fades};

/// Where nothing is known of any capacity, the fleet counts as half loaded; so does what serves at ease.
const UNKNOWN_LOAD: f64 = 0.5;

/// Shares by capacity alone: requests/s of each backend's profile at the present mix, else what is configured or learned,
/// else the mean of the others; equal when nothing is known of any. They add up to 1.
pub fn capacity_shares(input: &ModelInput) -> BTreeMap<SocketAddr, f64> {
    let backends: Vec<&BackendInput> = input.backends.iter().collect();
    let curves = usual_curves(&backends, &input.mix, input.arrivals_rps);
    let shares = normalised(&curves.iter().map(Curve::capacity_rps).collect::<Vec<_>>());
    backends.iter().map(|backend| backend.address).zip(shares).collect()
}

/// The curve of each backend at its usual speed.
pub(super) fn usual_curves(backends: &[&BackendInput], mix: &Mix, arrivals_rps: f64) -> Vec<Curve> {
    let known: Vec<Option<Curve>> = backends.iter().map(|backend| known_curve(backend, mix)).collect();
    let capacities: Vec<f64> = known.iter().flatten().map(Curve::capacity_rps).collect();
    let filled = if capacities.is_empty() {
        let half_loaded = arrivals_rps / (UNKNOWN_LOAD * backends.len().max(1) as f64);
        if half_loaded.is_finite() { half_loaded.max(1.0) } else { 1.0 }
    } else {
        mean(&capacities)
    };
    known.into_iter().map(|curve| curve.unwrap_or_else(|| Curve::generic(filled, mix))).collect()
}

/// The same, where those of which nothing is known count as half loaded by what they served at ease, as far as they have
/// fewer requests in flight than those that are known.
///
/// What waits first is known first, and serves least: by its mean the fast ones would stay idle. That they have fewer in flight
/// bounds the guess where an engine does not tell what waits.
pub(super) fn curves_at_ease(mut usual: Vec<Curve>, backends: &[&BackendInput], mix: &Mix) -> Vec<Curve> {
    let (known, unknown): (Vec<usize>, Vec<usize>) =
        (0..backends.len()).partition(|index| known_curve(backends[*index], mix).is_some());
    let lawful = |value: Option<f64>| value.filter(|value| (0.0..=MOST).contains(value));
    let fresh = |index: &usize| {
        let backend = backends[*index];
        let freshness = fades(backend.age_seconds, FRESH_SECONDS, STALE_SECONDS);
        lawful(backend.in_flight).filter(|_| freshness > 0.0).map(|in_flight| (in_flight, freshness))
    };
    let theirs = mean(&known.iter().filter_map(fresh).map(|(in_flight, _)| in_flight).collect::<Vec<_>>());
    for index in unknown {
        let (Some((in_flight, freshness)), Some(rps)) = (fresh(&index), lawful(backends[index].at_ease_rps))
        else {
            continue;
        };
        let room = if theirs > 0.0 { (1.0 - in_flight / theirs).max(0.0) } else { 0.0 };
        let by_mean = usual[index].capacity_rps();
        let more = (rps / UNKNOWN_LOAD - by_mean).max(0.0);
        usual[index] = Curve::generic(by_mean + freshness * room * more, mix);
    }
    usual
}

/// 0 of nothing.
fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

fn known_curve(backend: &BackendInput, mix: &Mix) -> Option<Curve> {
    let profiled = backend.profile.as_ref().and_then(|profile| Curve::of_profile(profile, mix));
    profiled.or_else(|| {
        let capacity = backend.capacity_rps.filter(|rps| rps.is_finite() && *rps > 0.0)?;
        Some(Curve::generic(capacity, mix))
    })
}
