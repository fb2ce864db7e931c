use super::input::{BackendInput, Verdict};
use super::level::Side;
use super::output::Clamp;

/// A backend that has just started is given this part of its capacity share, and more the longer it is up: no less, so that
/// it gets warm and shows how fast it is, unless that is more than this part of what it serves.
const WARMING_FROM: f64 = 0.2;
const WARMING_LOADED_TO: f64 = 0.5;
/// One, as far as sums are exact.
const WHOLE: f64 = 1.0 - 1e-6;
/// The others are loaded to this part of their capacity before those that warm up get more than that.
const FIRST_LOADED_TO: f64 = 0.9;

/// The most that a verdict leaves a backend.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cap {
    pub(super) rps: f64,
    pub(super) clamp: Clamp,
}

/// Which backends are treated as sick. Where most of the model's are it is the judgement that is mistaken, or nobody there
/// to take their place.
pub(super) fn sick(backends: &[&BackendInput]) -> Vec<bool> {
    let all: Vec<bool> = backends.iter().map(|backend| backend.verdict == Verdict::Sick).collect();
    let most = 2 * all.iter().filter(|sick| **sick).count() > all.len();
    if most { vec![false; all.len()] } else { all }
}

/// Bounds the inflow of those that are sick, and of those that warm up.
pub(super) fn cap(sides: &mut [Side], backends: &[&BackendInput], sick: &[bool], arrivals_rps: f64) {
    let part = |backend: &BackendInput| {
        let warmed = if backend.warmed.is_finite() { backend.warmed.clamp(0.0, 1.0) } else { 1.0 };
        (warmed < 1.0).then_some(WARMING_FROM + (1.0 - WARMING_FROM) * warmed)
    };
    let looks_sick = |index: usize| backends[index].verdict == Verdict::Sick;
    // What is left for those that warm up when the others have what they should have at most, in parts of their share.
    let (mut left, mut theirs) = (arrivals_rps, 0.0);
    for (index, side) in sides.iter().enumerate() {
        if looks_sick(index) {
            left -= side.floor_rps;
        } else if part(backends[index]).is_some() {
            theirs += side.capacity_part_rps;
        } else {
            left -= FIRST_LOADED_TO * side.curve.capacity_rps();
        }
    }
    let needed = if theirs > 0.0 { (left / theirs).max(0.0) } else { 0.0 };
    for (index, side) in sides.iter_mut().enumerate() {
        let warming = part(backends[index]).and_then(|part| match looks_sick(index) {
            true => Some(part),
            // Where they are needed whole they are like the others.
            false => (needed < WHOLE).then_some(part.max(needed)),
        });
        if part(backends[index]).is_some() && !looks_sick(index) {
            let least = WARMING_FROM * side.capacity_part_rps;
            let least = least.min(WARMING_LOADED_TO * side.curve.capacity_rps());
            side.floor_rps = side.floor_rps.max(least);
        }
        side.cap = if sick[index] {
            Some(Cap { rps: side.floor_rps, clamp: Clamp::Sick })
        } else {
            let rps = |part: f64| (part * side.capacity_part_rps).max(side.floor_rps);
            warming.map(|part| Cap { rps: rps(part), clamp: Clamp::Warming })
        };
    }
    // What those give up has to go somewhere, however much that is for the others.
    let bounded: f64 = sides.iter().filter_map(|side| side.cap).map(|cap| cap.rps).sum();
    let open: f64 = sides.iter().filter(|side| side.cap.is_none()).map(|side| side.ceiling_rps).sum();
    let times = (arrivals_rps - bounded) / open.max(f64::MIN_POSITIVE);
    if times > 1.0 && open > 0.0 {
        sides.iter_mut().filter(|side| side.cap.is_none()).for_each(|side| side.ceiling_rps *= times);
    }
}
