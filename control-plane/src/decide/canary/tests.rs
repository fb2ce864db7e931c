use proptest::prelude::*;

use super::*;

fn at(second: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_700_000_000 + second, 300_000_000).unwrap()
}

fn part(requests: u64, failures: u64) -> Outcomes {
    Outcomes { requests, failures, ..Outcomes::default() }
}

/// The same outcomes in the block and in all windows.
fn input(steered: Outcomes, unsteered: Outcomes) -> CanaryInput {
    let parts = PartOutcomes { steered, unsteered };
    let windows = CANARY_WINDOWS.map(|seconds| Window { seconds, parts: parts.clone() }).to_vec();
    CanaryInput {
        steered_percent: 10,
        steered_since: at(-100),
        block: Block { from: at(0), until: at(5), parts },
        windows,
    }
}

/// What is decided of the first block.
fn first(steered: Outcomes, unsteered: Outcomes) -> CanaryDecision {
    decide_canary(&input(steered, unsteered), &CanaryState::default(), &CanaryLaw::default())
}

#[test]
fn a_block_is_due_every_five_seconds_after_what_was_steered_has_settled() {
    let law = CanaryLaw::default();
    let mut state = CanaryState::default();
    assert_eq!(state.next_block(at(0), &law, at(10)), None);
    let (from, until) = state.next_block(at(0), &law, at(11)).unwrap();
    assert_eq!((from.timestamp(), until.timestamp()), (1_700_000_006, 1_700_000_011));
    state.until = Some(until);
    assert_eq!(state.next_block(at(0), &law, at(15)), None);
    assert_eq!(state.next_block(at(0), &law, at(16)).unwrap().0, until);
    assert_eq!(state.next_block(at(10), &law, at(20)), None, "what is steered has changed meanwhile");
    let ahead = CanaryState { until: Some(at(5000)), ..CanaryState::default() };
    assert!(ahead.next_block(at(0), &law, at(20)).is_some(), "the clock was set back");
    let (from, until) = state.next_block(at(0), &law, at(1000)).unwrap();
    assert_eq!((until - from).num_seconds(), 120, "of more there is nothing");
}

#[test]
fn evidence_alone_is_not_enough_and_harm_alone_is_not_either() {
    let clear = first(part(1000, 100), part(1000, 5));
    assert_eq!(clear.step_back, Some(Measure::Failures));
    assert!(
        clear.reason.contains("10.0 % of the steered requests failed, and 0.5 % of the others"),
        "{}",
        clear.reason
    );
    // Of a million requests half a point is no chance, and less than counts.
    let small = first(part(1_000_000, 15_000), part(1_000_000, 10_000));
    assert!(small.terms[0].evidence > 1.0, "{:?}", small.terms);
    assert_eq!(small.step_back, None);
    // Four points, of which chance makes nothing else now and then.
    let chance = first(part(100, 5), part(100, 1));
    assert!(chance.terms[0].harm.unwrap() > 0.03 && chance.terms[0].evidence < 1.0, "{:?}", chance.terms);
    assert_eq!(chance.step_back, None);
    // All of few requests.
    let few = first(part(30, 30), part(30, 0));
    assert_eq!((few.step_back, few.reason.as_str()), (None, "too few requests in one part to tell"));
}

proptest! {
    #[test]
    fn whatever_comes_numbers_are_numbers_and_a_healthy_part_stays(
        blocks in prop::collection::vec((0u64..5000, 0u64..5000, 0.0f64..=1.0, 0.0f64..=1.0), 1..40),
    ) {
        let law = CanaryLaw::default();
        let (mut state, mut healthy) = (CanaryState::default(), CanaryState::default());
        for (drawn, others, steered, unsteered) in blocks {
            let of = |requests: u64, part_of: f64| part(requests, (requests as f64 * part_of) as u64);
            let decision = decide_canary(&input(of(drawn, steered), of(others, unsteered)), &state, &law);
            prop_assert!(decision.state.evidence.iter().flatten().all(|evidence| evidence.is_finite()));
            state = decision.state;
            let decision = decide_canary(&input(of(drawn, 0.0), of(others, unsteered)), &healthy, &law);
            prop_assert_eq!(decision.step_back, None);
            healthy = decision.state;
        }
    }
}

/// What is lost in many good blocks is nothing, and then comes what exceeds all numbers.
#[test]
fn harm_after_any_number_of_good_blocks_is_found() {
    let law = CanaryLaw::default();
    let mut state = CanaryState::default();
    for _ in 0..100 {
        let good = input(part(5000, 0), part(5000, 4000));
        state = decide_canary(&good, &state, &law).state;
    }
    let blocks = (1..).find(|_| {
        let decision = decide_canary(&input(part(5000, 5000), part(5000, 0)), &state, &law);
        assert!(decision.state.evidence.iter().flatten().all(|evidence| evidence.is_finite()));
        state = decision.state;
        decision.step_back == Some(Measure::Failures)
    });
    assert!(blocks.is_some_and(|blocks| blocks <= law.blocks_a_start), "{blocks:?}");
}
