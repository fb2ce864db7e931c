use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::super::Mix;
use super::super::curve::Curve;
use super::super::shares::normalised;
use super::input::{BackendInput, ModelInput};

/// Where nothing is known of any capacity, the fleet counts as half loaded; so does a backend of which only is known that
/// nothing waited.
const UNKNOWN_LOAD: f64 = 0.5;

/// Shares by capacity alone: requests/s of each backend's profile at the present mix, else what is configured or learned,
/// else the mean of the others or twice what it was seen to serve at ease, whichever is more; equal when nothing is known of
/// any. They add up to 1.
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
    let filled = |backend: &BackendInput| {
        if capacities.is_empty() {
            let half_loaded = arrivals_rps / (UNKNOWN_LOAD * backends.len().max(1) as f64);
            return if half_loaded.is_finite() { half_loaded.max(1.0) } else { 1.0 };
        }
        // Those that wait first are those that serve least: their mean alone would keep the fast ones idle.
        let mean = capacities.iter().sum::<f64>() / capacities.len() as f64;
        let at_ease = backend.at_ease_rps.filter(|rps| rps.is_finite()).unwrap_or(0.0);
        mean.max(at_ease / UNKNOWN_LOAD)
    };
    let curves = known.into_iter().zip(backends);
    curves.map(|(curve, backend)| curve.unwrap_or_else(|| Curve::generic(filled(backend), mix))).collect()
}

fn known_curve(backend: &BackendInput, mix: &Mix) -> Option<Curve> {
    let profiled = backend.profile.as_ref().and_then(|profile| Curve::of_profile(profile, mix));
    profiled.or_else(|| {
        let capacity = backend.capacity_rps.filter(|rps| rps.is_finite() && *rps > 0.0)?;
        Some(Curve::generic(capacity, mix))
    })
}
