use std::collections::BTreeMap;
use std::net::SocketAddr;

use chrono::{DateTime, TimeDelta, Utc};

use super::super::Mix;
use super::input::{BackendInput, Law};
use super::level::Side;
use super::output::{Aside, Clamp, Form, GroupShare, WeightState};

/// A backend this much slower than its pool gets a group of its own: within a group Envoy takes all backends for equal. Not before the
/// third evaluation in a row: a healthy one looks like that for a second now and then, and would have it alone for a minute.
const LEAVES_AT: f64 = 1.4;
const LEAVES_AFTER: TimeDelta = TimeDelta::milliseconds(1500);
/// Below this it comes back: at once when it has no requests and was only slow, else after a time. Regrouping costs a backend its connections and Envoy's
/// count of its requests, so it is done seldom.
const RETURNS_BELOW: f64 = 1.15;
const RETURNS_AFTER: TimeDelta = TimeDelta::seconds(60);
const IDLE_BELOW: f64 = 0.5;

/// Mean prompt from which endpoints get weights of their own at twice as many requests: single requests differ too much
/// for their number to say anything.
const HEAVY_PROMPT_TOKENS: f64 = 8000.0;
/// The form changes back at so many times the threshold, and only when that has lasted.
const FORM_HYSTERESIS: f64 = 1.5;
const FORM_LASTS: TimeDelta = TimeDelta::seconds(30);

/// Backends that have a group of their own from now on, and since when the others are slow that are.
pub(super) fn alone(
    backends: &[&BackendInput],
    sides: &[Side],
    sick: &[bool],
    previous: &WeightState,
    now: DateTime<Utc>,
) -> (BTreeMap<SocketAddr, Aside>, BTreeMap<SocketAddr, DateTime<Utc>>) {
    let slownesses = slownesses(backends, sides);
    // A clock that was set back begins anew.
    let since = |before: Option<DateTime<Utc>>| before.filter(|since| *since <= now).unwrap_or(now);
    let slow = backends.iter().zip(&slownesses).filter(|(_, slowness)| **slowness > LEAVES_AT);
    let slow_since: BTreeMap<SocketAddr, DateTime<Utc>> = slow
        .map(|(backend, _)| (backend.address, since(previous.slow_since.get(&backend.address).copied())))
        .collect();
    let place = |backend: &BackendInput, side: &Side, slowness: f64, is_sick: bool| {
        // One that warms up but is needed whole is like the others.
        let warms_up = side.cap.is_some_and(|cap| cap.clamp == Clamp::Warming);
        if is_sick || warms_up {
            return Some(Aside { well_since: None, by_verdict: true });
        }
        let Some(aside) = previous.alone.get(&backend.address) else {
            let leaves = slow_since.get(&backend.address).is_some_and(|since| now - *since >= LEAVES_AFTER);
            return leaves.then(Aside::default);
        };
        // Silence does not make it well.
        if side.trust < 1.0 {
            return Some(*aside);
        }
        if slowness >= RETURNS_BELOW {
            return Some(Aside { well_since: None, ..*aside });
        }
        let since = since(aside.well_since);
        let is_idle = !aside.by_verdict && side.in_flight.is_some_and(|count| count < IDLE_BELOW);
        (!is_idle && now - since < RETURNS_AFTER).then_some(Aside { well_since: Some(since), ..*aside })
    };
    let places = backends.iter().zip(sides).zip(&slownesses).zip(sick);
    let alone: BTreeMap<SocketAddr, Aside> = places
        .filter_map(|(((backend, side), slowness), sick)| {
            Some((backend.address, place(backend, side, *slowness, *sick)?))
        })
        .collect();
    let still_with_others =
        slow_since.into_iter().filter(|(address, _)| !alone.contains_key(address)).collect();
    (alone, still_with_others)
}

/// How many times longer a request takes at each backend than at the others of its pool, with as many requests as these have
/// in the mean: now, whether or not that has become usual for it. Those who are all slower alike are still equals.
///
/// The pool's is the median of its backends that tell of themselves, the lower one of two.
fn slownesses(backends: &[&BackendInput], sides: &[Side]) -> Vec<f64> {
    let mut pools: BTreeMap<(&str, bool), Vec<&Side>> = BTreeMap::new();
    for (backend, side) in backends.iter().zip(sides).filter(|(_, side)| side.trust > 0.0) {
        pools.entry(peers(backend, side)).or_default().push(side);
    }
    let usual = |members: Vec<&Side>| {
        let counts: Vec<f64> = members.iter().filter_map(|side| side.in_flight).collect();
        let in_flight = counts.iter().sum::<f64>() / counts.len().max(1) as f64;
        let mut seconds: Vec<f64> =
            members.iter().map(|side| side.curve.request_seconds(in_flight)).collect();
        seconds.sort_by(f64::total_cmp);
        (in_flight, seconds[(seconds.len() - 1) / 2])
    };
    let pools: BTreeMap<(&str, bool), (f64, f64)> =
        pools.into_iter().map(|(pool, members)| (pool, usual(members))).collect();
    let slowness = |(backend, side): (&&BackendInput, &Side)| {
        let (in_flight, seconds) = pools.get(&peers(backend, side))?;
        Some(side.curve.request_seconds(*in_flight) / seconds)
    };
    backends.iter().zip(sides).map(|of| slowness(of).unwrap_or(1.0)).collect()
}

/// Whom a backend is compared with: those of its pool, but a guess is compared with guesses only.
fn peers<'a>(backend: &'a BackendInput, side: &Side) -> (&'a str, bool) {
    (&backend.pool, side.curve.is_generic)
}

/// Whether a backend fails: it is sick or much slower than usual, and most of the model's are not. Where most are it is what
/// is usual that is mistaken.
pub(super) fn failing(sides: &[Side], sick: &[bool]) -> Vec<bool> {
    let all: Vec<bool> =
        sides.iter().zip(sick).map(|(side, sick)| *sick || side.slowdown > LEAVES_AT).collect();
    let most = 2 * all.iter().filter(|failing| **failing).count() > all.len();
    if most { vec![false; all.len()] } else { all }
}

/// The groups, by name, with the sum of their shares.
pub(super) fn groups(
    backends: &[&BackendInput],
    shares: &[f64],
    alone: &BTreeMap<SocketAddr, Aside>,
) -> (BTreeMap<String, GroupShare>, Vec<String>) {
    let mut groups: BTreeMap<String, GroupShare> = BTreeMap::new();
    let mut names = Vec::with_capacity(backends.len());
    for (backend, share) in backends.iter().zip(shares) {
        let name = if alone.contains_key(&backend.address) {
            format!("{}/{}", backend.pool, backend.address)
        } else {
            backend.pool.clone()
        };
        let group = groups.entry(name.clone()).or_insert_with(|| GroupShare {
            group: name.clone(),
            pool: backend.pool.clone(),
            zone: backend.zone.clone(),
            members: Vec::new(),
            share: 0.0,
        });
        group.members.push(backend.address);
        group.share += share;
        names.push(name);
    }
    (groups, names)
}

/// The form of the weights, and since when the other one would do better.
///
/// Envoy's own choice inside a group needs requests to compare. Many Envoys with few requests each have none; a single
/// one sees everything, and among equals there is nothing that it would not know better.
pub(super) fn form(
    sides: &[Side],
    groups: usize,
    envoys: f64,
    mix: &Mix,
    law: &Law,
    previous: &WeightState,
    now: DateTime<Utc>,
) -> (Form, Option<DateTime<Utc>>) {
    let seen: Vec<f64> = sides.iter().filter_map(|side| side.in_flight).collect();
    let per_endpoint = seen.iter().sum::<f64>() / (seen.len().max(1) as f64 * envoys);
    let threshold = law.form_at * if mix.prompt_tokens >= HEAVY_PROMPT_TOKENS { 2.0 } else { 1.0 };
    let wanted = if seen.is_empty() || groups < 2 || envoys < 2.0 {
        Form::Groups
    } else if per_endpoint < threshold {
        Form::Endpoints
    } else if per_endpoint > FORM_HYSTERESIS * threshold {
        Form::Groups
    } else {
        previous.form
    };
    if wanted == previous.form {
        return (wanted, None);
    }
    let since = previous.other_form_since.filter(|since| *since <= now).unwrap_or(now);
    if now - since < FORM_LASTS { (previous.form, Some(since)) } else { (wanted, None) }
}
