//! What the statistics are good for, by chance that is drawn: how often they give an alarm without any harm, and how soon
//! one with harm.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;

/// Requests of one part: how many come in a second, which part of them fails or is late, and their times, of which a few are
/// longer by a factor.
#[derive(Clone, Copy)]
struct Part {
    rps: f64,
    failing: f64,
    late: f64,
    median_seconds: f64,
    slow: f64,
}

const USUAL: Part = Part { rps: 5.0, failing: 0.002, late: 0.003, median_seconds: 0.3, slow: 10.0 };

/// A deviate of mean 0 and variance 1, nearly normal.
fn normal(random: &mut StdRng) -> f64 {
    3f64.sqrt() * ((0..4).map(|_| random.random::<f64>()).sum::<f64>() - 2.0)
}

fn block(part: &Part, seconds: f64, random: &mut StdRng) -> Outcomes {
    let mut outcomes = Outcomes::default();
    // Twice as many could come, each by chance.
    for _ in 0..(2.0 * part.rps * seconds) as u64 {
        if random.random::<bool>() {
            continue;
        }
        outcomes.requests += 1;
        if random.random::<f64>() < part.failing {
            outcomes.failures += 1;
            continue;
        }
        let slow = if random.random::<f64>() < 0.02 { part.slow } else { 1.0 };
        let time = slow * part.median_seconds * (0.5 * normal(random)).exp();
        let promised = if random.random::<f64>() < part.late { 0.0 } else { f64::INFINITY };
        outcomes.count_first_byte(time, promised, false);
    }
    outcomes
}

/// Runs a canary that does as `steered` from block `harmed_from` on, and as `unsteered` before. Returns the block at which it
/// stepped back.
fn run(
    steered: &Part,
    unsteered: &Part,
    harmed_from: usize,
    blocks: usize,
    law: &CanaryLaw,
    seed: u64,
) -> Option<(usize, Measure)> {
    let random = &mut StdRng::seed_from_u64(seed);
    let mut state = CanaryState::default();
    let mut past: Vec<PartOutcomes> = Vec::new();
    let begin = DateTime::from_timestamp(1_700_000_000, 0).unwrap();
    for number in 0..blocks {
        let healthy = Part { rps: steered.rps, ..*unsteered };
        let of_steered = if number < harmed_from { &healthy } else { steered };
        let parts = PartOutcomes {
            steered: block(of_steered, law.block_seconds, random),
            unsteered: block(unsteered, law.block_seconds, random),
        };
        // Of past blocks single times do not matter.
        let of = |part: &Outcomes| Outcomes { times: Vec::new(), ..part.clone() };
        past.push(PartOutcomes { steered: of(&parts.steered), unsteered: of(&parts.unsteered) });
        let from = later(begin, number as f64 * law.block_seconds);
        let window = |seconds: i64| {
            let mut sum = PartOutcomes::default();
            let blocks = (seconds as f64 / law.block_seconds) as usize;
            past.iter().rev().take(blocks).for_each(|parts| sum.add(parts));
            Window { seconds, parts: sum }
        };
        let input = CanaryInput {
            steered_percent: 50,
            steered_since: begin,
            block: Block { from, until: later(from, law.block_seconds), parts },
            windows: CANARY_WINDOWS.map(window).to_vec(),
        };
        let decision = decide_canary(&input, &state, law);
        state = decision.state;
        if let Some(measure) = decision.step_back {
            return Some((number, measure));
        }
    }
    None
}

#[test]
fn without_a_difference_fewer_than_one_hour_in_a_hundred_has_an_alarm() {
    // Whatever the harm: the evidence alone keeps what is stated.
    let law = CanaryLaw {
        least_requests: 0,
        least_failures: -1.0,
        least_late: -1.0,
        least_first_byte_ratio: 0.0,
        ..CanaryLaw::default()
    };
    let some = Part { failing: 0.05, late: 0.05, slow: 1000.0, ..USUAL };
    let kinds = [
        (USUAL, USUAL, 60),
        (some, some, 60),
        // A tenth is steered.
        (Part { rps: 2.0, ..some }, Part { rps: 18.0, ..some }, 30),
    ];
    let alarms = kinds.map(|(steered, unsteered, hours)| {
        let alarms = (0..hours).filter_map(|seed| run(&steered, &unsteered, 0, 720, &law, seed));
        alarms.collect::<Vec<_>>()
    });
    // Of 150 hours 1.2 at most are stated, in the mean; with five that would be wrong, by 99 %.
    assert!(alarms.iter().flatten().count() < 5, "{alarms:?}");
}

#[test]
fn ten_points_of_harm_at_five_requests_a_second_are_found_within_a_minute() {
    const RUNS: usize = 120;
    let harms = [
        ("failures", Part { failing: USUAL.failing + 0.1, ..USUAL }),
        ("late", Part { late: USUAL.late + 0.1, ..USUAL }),
        ("slower by three quarters", Part { median_seconds: 1.75 * USUAL.median_seconds, ..USUAL }),
    ];
    for (name, steered) in harms {
        // From the beginning, and after five good minutes and a bit.
        for harmed_from in [0, 61] {
            let is_found = |seed: usize| {
                let until = harmed_from + 12;
                let found = run(&steered, &USUAL, harmed_from, until, &CanaryLaw::default(), seed as u64);
                found.is_some_and(|(at, _)| at >= harmed_from)
            };
            let found = (0..RUNS).filter(|seed| is_found(*seed)).count();
            assert!(10 * found >= 9 * RUNS, "{name} from block {harmed_from}: {found} of {RUNS} within 60 s");
        }
    }
}

#[test]
fn harm_that_both_parts_have_is_nobodys() {
    let harmed = Part { failing: 0.3, late: 0.3, median_seconds: 3.0, ..USUAL };
    for seed in 0..20 {
        assert_eq!(run(&harmed, &harmed, 0, 120, &CanaryLaw::default(), seed), None);
    }
}

#[test]
fn a_steered_part_that_does_better_goes_on() {
    let (better, worse) = (USUAL, Part { failing: 0.2, late: 0.2, median_seconds: 1.0, ..USUAL });
    for seed in 0..20 {
        assert_eq!(run(&better, &worse, 0, 120, &CanaryLaw::default(), seed), None);
    }
}
