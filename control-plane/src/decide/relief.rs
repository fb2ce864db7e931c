//! Relief: which part of a model's requests its spare backends keep while the others come back.
//!
//! Spare backends take over when no other can, all at once. The way back is longer: the first that is there again would get
//! what many had before. So the spare ones keep what those that are back cannot serve, and let go in bounded steps.

use serde::{Deserialize, Serialize};

/// Most that the spare ones let go in one evaluation, in parts of all requests.
const LARGEST_STEP: f64 = 0.1;
/// A part that would move by less stays as it is.
const DEAD_BAND: f64 = 0.02;
/// Whoever is back gets this part of the requests at least, or the one that he had where that was less: what gets nothing does not
/// show what it can.
const LEAST_FOR_OTHERS: f64 = 0.1;
/// Where capacities are not known, backends that are back get up to so many times what they had before.
const UNKNOWN_CARRY: f64 = 2.0;
/// What is remembered of the usual number of backends fades by this part with each evaluation: to a third in ten minutes.
const FORGOTTEN: f64 = 1.0 / 600.0;
/// The same while spare ones take requests, of those that are not even members any more: to a third in an hour. Discovery takes
/// out what is dead, too, and it may be back by then.
const FORGOTTEN_MEANWHILE: f64 = 1.0 / 3600.0;

/// What relief is decided on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ReliefInput {
    /// Spare backends that take requests.
    pub spare: usize,
    /// Other backends that take requests.
    pub others: usize,
    /// Other backends that are to take requests, dead ones among them.
    #[serde(default)]
    pub members: usize,
    /// Requests/s that those serve that do; none: not known of all.
    pub capacity_rps: Option<f64>,
    /// Part of it up to which they keep their objective, 0 to 1.
    pub target_utilisation: f64,
    /// Requests/s that come, those that are refused among them.
    pub offered_rps: f64,
}

/// What is remembered of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Relief {
    /// The part of the requests that the spare backends take, 0 to 1.
    pub part: f64,
    /// Other backends that took requests before these were lost.
    pub usual: f64,
}

/// The part of the requests that spare backends take from now on. The same values give the same part.
pub fn decide_relief(input: &ReliefInput, previous: &Relief) -> Relief {
    let others = input.others as f64;
    let usual = if previous.usual.is_finite() { previous.usual.max(0.0) } else { 0.0 };
    let before = if previous.part.is_finite() { previous.part.clamp(0.0, 1.0) } else { 0.0 };
    if input.others == 0 {
        return Relief { part: if input.spare > 0 { 1.0 } else { 0.0 }, usual };
    }
    if input.spare == 0 || before <= 0.0 {
        return Relief { part: 0.0, usual: others.max(usual * (1.0 - FORGOTTEN)) };
    }
    let expected = others.max(input.members as f64);
    let usual = if usual > expected { expected.max(usual * (1.0 - FORGOTTEN_MEANWHILE)) } else { usual };
    let is_whole = usual > 0.0 && others + 0.5 > usual;
    let wanted = if is_whole { 0.0 } else { (1.0 - covered(input, usual)).clamp(0.0, most(input, usual)) };
    let next = wanted.max(before - LARGEST_STEP);
    let next = if next < DEAD_BAND / 2.0 { 0.0 } else { next };
    let stays = (next - before).abs() < DEAD_BAND && next > 0.0;
    Relief { part: if stays { before } else { next }, usual }
}

/// The most that the spare ones keep beside those who are back: of a large fleet the first gets no more than it had.
fn most(input: &ReliefInput, usual: f64) -> f64 {
    let others = input.others as f64;
    1.0 - if usual > others { LEAST_FOR_OTHERS.min(others / usual) } else { LEAST_FOR_OTHERS }
}

/// The part of the requests that those who are back can serve.
fn covered(input: &ReliefInput, usual: f64) -> f64 {
    let positive = |value: f64| value.is_finite() && value > 0.0;
    match input.capacity_rps.filter(|rps| rps.is_finite()) {
        Some(rps) if positive(input.offered_rps) => {
            input.target_utilisation.clamp(0.0, 1.0) * rps / input.offered_rps
        }
        None if usual > 0.0 => UNKNOWN_CARRY * input.others as f64 / usual,
        _ => 1.0,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn input(others: usize, capacity_rps: Option<f64>) -> ReliefInput {
        let members = others.max(4);
        ReliefInput { spare: 2, others, members, capacity_rps, target_utilisation: 0.8, offered_rps: 20.0 }
    }

    /// Evaluates for some seconds; returns each part.
    fn parts(state: &mut Relief, input: &ReliefInput, seconds: usize) -> Vec<f64> {
        let step = |_| {
            *state = decide_relief(input, state);
            (100.0 * state.part).round() / 100.0
        };
        (0..seconds).map(step).collect()
    }

    #[test]
    fn spare_backends_take_all_when_no_other_can_and_go_when_those_that_are_back_cover_the_demand() {
        let mut state = Relief::default();
        assert_eq!(parts(&mut state, &input(4, Some(40.0)), 3), [0.0; 3]);
        assert_eq!(parts(&mut state, &input(1, Some(10.0)), 3), [0.0; 3], "a shortage is no reason");
        assert_eq!(parts(&mut state, &input(0, None), 2), [1.0; 2]);
        // One of 10 requests/s serves 8 of 20, two serve 16, three all.
        assert_eq!(parts(&mut state, &input(1, Some(10.0)), 6), [0.9, 0.8, 0.7, 0.6, 0.6, 0.6]);
        assert_eq!(parts(&mut state, &input(2, Some(20.0)), 6), [0.5, 0.4, 0.3, 0.2, 0.2, 0.2]);
        assert_eq!(parts(&mut state, &input(1, Some(10.0)), 1), [0.6], "lost again, at once");
        assert_eq!(parts(&mut state, &input(3, Some(30.0)), 7), [0.5, 0.4, 0.3, 0.2, 0.1, 0.0, 0.0]);
    }

    #[test]
    fn as_many_as_usual_take_all_whatever_is_known_of_them() {
        let mut state = Relief::default();
        parts(&mut state, &input(3, Some(5.0)), 1);
        parts(&mut state, &input(0, None), 1);
        // Learned from little load, capacities are too low.
        assert_eq!(*parts(&mut state, &input(2, Some(5.0)), 20).last().unwrap(), 0.8);
        assert_eq!(*parts(&mut state, &input(3, Some(5.0)), 20).last().unwrap(), 0.0);
    }

    #[test]
    fn of_unknown_capacity_half_has_to_be_back() {
        let mut state = Relief::default();
        parts(&mut state, &input(4, None), 1);
        parts(&mut state, &input(0, None), 1);
        assert_eq!(*parts(&mut state, &input(1, None), 20).last().unwrap(), 0.5);
        assert_eq!(*parts(&mut state, &input(2, None), 20).last().unwrap(), 0.0);
        // Nothing is known of what was there before.
        let mut new = Relief { part: 1.0, usual: 0.0 };
        assert_eq!(*parts(&mut new, &input(1, None), 20).last().unwrap(), 0.0);
    }

    #[test]
    fn those_that_went_one_after_the_other_are_all_missed() {
        let mut state = Relief::default();
        for others in [4, 3, 2, 1] {
            parts(&mut state, &input(others, None), 20);
        }
        parts(&mut state, &input(0, None), 300);
        assert!(*parts(&mut state, &input(1, None), 20).last().unwrap() > 0.4, "{state:?}");
        // What is so for long is usual.
        let mut fewer = Relief::default();
        parts(&mut fewer, &input(4, None), 1);
        parts(&mut fewer, &input(1, None), 3000);
        assert_eq!(fewer.usual, 1.0);
    }

    #[test]
    fn those_that_were_taken_away_are_not_waited_for_without_end() {
        for capacity_rps in [None, Some(5.0)] {
            let lost = || {
                let mut state = Relief::default();
                parts(&mut state, &input(4, capacity_rps), 1);
                parts(&mut state, &input(0, None), 7200);
                state
            };
            let (mut dead, mut gone) = (lost(), lost());
            assert!(parts(&mut dead, &input(1, capacity_rps), 7200)[7199] >= 0.5, "they are to come back");
            let fewer = ReliefInput { members: 1, ..input(1, capacity_rps) };
            assert!(parts(&mut gone, &fewer, 900)[899] >= 0.3, "they may come back");
            assert_eq!(parts(&mut gone, &fewer, 3600)[3599], 0.0);
        }
    }

    proptest! {
        #[test]
        fn steps_are_bounded_and_parts_are_parts(
            inputs in prop::collection::vec((0usize..3, 0usize..5, proptest::option::of(0.0..100.0f64), 0.0..100.0f64), 1..60),
        ) {
            let mut state = Relief::default();
            for (spare, others, capacity_rps, offered_rps) in inputs {
                let members = others;
                let input =
                    ReliefInput { spare, others, members, capacity_rps, target_utilisation: 0.8, offered_rps };
                let next = decide_relief(&input, &state);
                prop_assert!((0.0..=1.0).contains(&next.part));
                prop_assert!(spare == 0 || next.part >= state.part - LARGEST_STEP - 1e-9);
                prop_assert!(others == 0 || next.part <= 1.0 - LEAST_FOR_OTHERS || next.part <= most(&input, next.usual) + DEAD_BAND || spare == 0);
                prop_assert!(others > 0 || spare == 0 || next.part == 1.0);
                prop_assert!(others == 0 || state.part > 0.0 || next.part == 0.0);
                state = next;
            }
        }
    }
}
