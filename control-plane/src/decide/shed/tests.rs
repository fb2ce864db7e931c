use proptest::prelude::*;

use super::*;

pub(super) fn at(seconds: f64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_000_000, 0).unwrap() + TimeDelta::milliseconds((1000.0 * seconds) as i64)
}

/// Twice of what can be served, and all shows it.
pub(super) fn overload() -> ShedInput {
    ShedInput {
        admitted_rps: 200.0,
        refused: Some(Refused::default()),
        batch_part: Some(0.6),
        by_request: true,
        in_force: InForce { at: at(0.0), batch: 0.0, interactive: 0.0 },
        forecast: None,
        capacity_rps: Some(100.0),
        backends: 4,
        in_flight: Some(300.0),
        waiting: 50.0,
        places: Some(256.0),
        most_interactive: 1.0,
        is_fresh: true,
    }
}

/// Evaluates once a second with the same input.
fn evaluate(input: &ShedInput, state: &ShedState, seconds: std::ops::Range<i32>) -> ShedDecision {
    let law = ShedLaw::default();
    let mut decision = decide_shed(input, state, &law, at(f64::from(seconds.start)));
    for second in seconds.skip(1) {
        decision = decide_shed(input, &decision.state, &law, at(f64::from(second)));
    }
    decision
}

#[test]
fn batch_goes_first_and_as_fast_as_the_ramp_allows() {
    let first = evaluate(&overload(), &ShedState::default(), 0..1);
    assert_eq!((first.batch, first.interactive), (0.0, 0.0), "no time has passed yet");
    let second = evaluate(&overload(), &ShedState::default(), 0..2);
    assert!((second.batch - 0.2).abs() < 1e-9 && second.interactive == 0.0, "{second:?}");
    assert!(second.reason.starts_with("200.0 requests/s come: 202 % of the 100.0"), "{}", second.reason);
    let later = evaluate(&overload(), &ShedState::default(), 0..20);
    // 85 less the 2.5 that serve those that wait are let in.
    assert!((later.batch - 117.5 / 120.0).abs() < 1e-9 && later.interactive == 0.0, "{later:?}");
}

#[test]
fn interactive_requests_are_refused_only_as_far_as_is_allowed_and_needed() {
    let all_batch_refused = ShedInput {
        admitted_rps: 150.0,
        refused: Some(Refused { batch_rps: 50.0, interactive_rps: 0.0 }),
        in_force: InForce { at: at(0.0), batch: 1.0, interactive: 0.0 },
        waiting: 0.0,
        ..overload()
    };
    let before = ShedState { batch: 1.0, is_on: true, at: Some(at(-1.0)), ..ShedState::default() };
    let decision = evaluate(&all_batch_refused, &before, 0..20);
    let expected = (150.0 - 85.0) / 150.0;
    assert!((decision.interactive - expected).abs() < 1e-9, "{decision:?}");
    let forbidden = ShedInput { most_interactive: 0.0, ..all_batch_refused };
    assert_eq!(evaluate(&forbidden, &before, 0..20).interactive, 0.0);
    let a_little = ShedInput { most_interactive: 0.1, ..all_batch_refused };
    assert_eq!(evaluate(&a_little, &before, 0..20).interactive, 0.1);
}

#[test]
fn what_is_not_known_refuses_nothing_and_says_so() {
    for (input, cause) in [
        (ShedInput { capacity_rps: None, ..overload() }, ShedCause::UnknownCapacity),
        (ShedInput { capacity_rps: Some(f64::NAN), ..overload() }, ShedCause::UnknownCapacity),
        (ShedInput { batch_part: None, ..overload() }, ShedCause::UnknownLanes),
        (ShedInput { in_flight: None, ..overload() }, ShedCause::UnknownQueue),
        (ShedInput { is_fresh: false, ..overload() }, ShedCause::Stale),
    ] {
        let decision = evaluate(&input, &ShedState::default(), 0..30);
        assert_eq!((decision.batch, decision.interactive), (0.0, 0.0), "{input:?}");
        assert_eq!(decision.terms.cause, Some(cause));
        assert_eq!(decision.reason, cause.to_string());
    }
}

#[test]
fn capacities_are_estimates_and_idle_servers_show_that_one_is_wrong() {
    let idle = ShedInput { in_flight: Some(20.0), waiting: 0.0, ..overload() };
    assert_eq!(evaluate(&idle, &ShedState::default(), 0..30).batch, 0.0);
    let filling = ShedInput { in_flight: Some(130.0), waiting: 0.0, ..overload() };
    assert!(evaluate(&filling, &ShedState::default(), 0..30).batch > 0.0);
}

#[test]
fn what_is_forecast_begins_it_earlier_and_no_chance_does() {
    let close = ShedInput { admitted_rps: 92.0, in_flight: Some(150.0), waiting: 0.0, ..overload() };
    assert_eq!(evaluate(&close, &ShedState::default(), 0..30).batch, 0.0);
    let rising = ShedInput { forecast: Some(Ahead { rps: 150.0, seconds: 60.0 }), ..close };
    let decision = evaluate(&rising, &ShedState::default(), 0..30);
    assert!((decision.terms.ahead_rps - 106.5).abs() < 1e-9, "{decision:?}");
    assert!((decision.batch - (92.0 - 85.0) / (0.6 * 92.0)).abs() < 1e-9, "{decision:?}");
    let falling = ShedInput { forecast: Some(Ahead { rps: 10.0, seconds: 60.0 }), ..overload() };
    assert!(evaluate(&falling, &ShedState::default(), 0..30).batch > 0.5);
    // A little more than begins it, but within what chance does to a count.
    let by_chance = ShedInput { admitted_rps: 97.0, ..close };
    assert_eq!(evaluate(&by_chance, &ShedState::default(), 0..30).batch, 0.0);
}

#[test]
fn it_is_over_when_the_load_was_low_for_a_while() {
    let on = evaluate(&overload(), &ShedState::default(), 0..10).state;
    let calm = ShedInput { admitted_rps: 60.0, waiting: 0.0, in_flight: Some(10.0), ..overload() };
    let soon = evaluate(&calm, &on, 10..12);
    assert_eq!((soon.batch, soon.state.is_on), (0.0, true), "nothing is above the target");
    assert!(!evaluate(&calm, &on, 10..30).state.is_on);
    let back = ShedInput { admitted_rps: 92.0, waiting: 0.0, ..overload() };
    assert!(evaluate(&back, &on, 10..30).batch > 0.0, "between the two it goes on");
    let over = evaluate(&calm, &on, 10..30).state;
    assert_eq!(evaluate(&back, &over, 30..50).batch, 0.0, "and does not begin");
}

#[test]
fn a_capacity_that_is_said_too_low_refuses_nothing_for_long() {
    let on = evaluate(&overload(), &ShedState::default(), 0..10).state;
    assert!(on.is_on && on.batch > 0.95, "{on:?}");
    // Backends have next to nothing to do, and still more comes than they are said to take.
    let idle = ShedInput { waiting: 0.0, in_flight: Some(20.0), ..overload() };
    assert!(evaluate(&idle, &on, 10..40).state.is_on);
    let falls = evaluate(&idle, &on, 10..51);
    assert!(!falls.state.is_on && (0.7..0.8).contains(&falls.batch), "{falls:?}");
    assert_eq!(evaluate(&idle, &on, 10..95).batch, 0.0);
    // As soon as they show that they are busy it goes on from there.
    let busy = ShedInput { waiting: 0.0, ..overload() };
    let again = evaluate(&busy, &falls.state, 51..53);
    assert!(again.state.is_on && again.batch > falls.batch, "{again:?}");
    let one_waits = ShedInput { waiting: 1.0, ..idle };
    assert!(evaluate(&one_waits, &on, 10..90).state.is_on, "that is not nothing");
}

#[test]
fn where_hardly_any_batch_was_seen_a_little_of_it_is_refused_until_that_tells_how_much_comes() {
    let unseen = ShedInput { batch_part: Some(0.001), ..overload() };
    let asking = evaluate(&unseen, &ShedState::default(), 0..6);
    assert!(asking.batch == 0.2 && asking.interactive == 0.0 && !asking.terms.is_told, "{asking:?}");
    let told = |batch_rps| {
        let in_force = InForce { at: at(0.0), batch: 0.2, interactive: 0.0 };
        let refused = Some(Refused { batch_rps, interactive_rps: 0.0 });
        let input = ShedInput { admitted_rps: 200.0 - batch_rps, refused, in_force, ..unseen.clone() };
        evaluate(&input, &asking.state, 6..20)
    };
    // A fifth of 160 a second is refused: these can make up for the excess.
    let many = told(32.0);
    assert!(many.terms.is_told && many.interactive == 0.0, "{many:?}");
    assert!((many.batch - 117.5 / 160.0).abs() < 1e-9, "{many:?}");
    let none = told(0.0);
    assert!(none.batch == 1.0 && none.interactive > 0.5, "{none:?}");
    let never = ShedInput { by_request: false, batch_part: Some(0.0), ..overload() };
    let others = evaluate(&never, &ShedState::default(), 0..6);
    assert!(others.batch == 0.0 && others.interactive > 0.5, "{others:?}");
}

#[test]
fn stale_telemetry_leads_back_to_nothing_step_by_step() {
    let on = evaluate(&overload(), &ShedState::default(), 0..10).state;
    assert!(on.batch > 0.95, "{on:?}");
    let stale = ShedInput { is_fresh: false, ..overload() };
    let seen: Vec<f64> = (11..17).map(|end| (10.0 * evaluate(&stale, &on, 10..end).batch).round()).collect();
    assert_eq!(seen, [8.0, 6.0, 4.0, 2.0, 0.0, 0.0]);
}

fn rates() -> impl Strategy<Value = f64> {
    prop_oneof![8 => 0.0..500.0f64, 1 => Just(f64::NAN), 1 => Just(f64::INFINITY), 1 => Just(-1.0), 1 => Just(1e300)]
}

fn inputs() -> impl Strategy<Value = ShedInput> {
    let known = |rate| prop_oneof![4 => proptest::strategy::Strategy::prop_map(rate, Some), 1 => Just(None)];
    (
        (rates(), prop::option::of((rates(), rates())), known(rates()), rates(), rates()),
        (known(rates()), rates(), known(rates()), 0.0..=1.0f64, prop::bool::weighted(0.9)),
        (known(rates()), 0.0..120.0f64, 0.0..=1.0f64, 0.0..=1.0f64),
    )
        .prop_map(|(demand, servers, more)| ShedInput {
            admitted_rps: demand.0,
            refused: demand.1.map(|(batch_rps, interactive_rps)| Refused { batch_rps, interactive_rps }),
            batch_part: demand.2.map(|part| part / 500.0),
            by_request: servers.4,
            in_force: InForce { at: at(0.0), batch: more.2, interactive: more.3 },
            forecast: more.0.map(|rps| Ahead { rps, seconds: more.1 }),
            capacity_rps: servers.0,
            backends: 3,
            in_flight: servers.2,
            waiting: servers.1,
            places: Some(demand.3),
            most_interactive: servers.3,
            is_fresh: servers.4,
        })
}

proptest! {
    #[test]
    fn whatever_comes_parts_are_parts_and_rise_by_the_ramp(
        inputs in prop::collection::vec((inputs(), 0.0..4.0f64), 1..60),
        ramp in 0.01..1.0f64,
    ) {
        let law = ShedLaw { ramp_per_second: ramp, ..ShedLaw::default() };
        let (mut state, mut now) = (ShedState::default(), 0.0);
        for (input, pause) in inputs {
            now += pause;
            let decision = decide_shed(&input, &state, &law, at(now));
            let most = ramp * pause.min(LONGEST_STEP_SECONDS) + 1e-3;
            for (before, after) in [(state.batch, decision.batch), (state.interactive, decision.interactive)] {
                prop_assert!((0.0..=1.0).contains(&after) && after <= before + most, "{:?}", decision);
            }
            prop_assert!(decision.state.recent.len() <= 100);
            let terms = &decision.terms;
            if terms.cause.is_none() {
                // Never below the target: what is let in, and what serves those that wait.
                let others = terms.offered_rps - terms.offered_batch_rps;
                let refused = decision.batch * terms.offered_batch_rps + decision.interactive * others;
                let kept = terms.offered_rps - refused + terms.waiting_rps;
                let target = law.target_utilisation * terms.capacity_rps;
                prop_assert!(refused <= 1e-6 * terms.offered_rps || kept >= target * (1.0 - 1e-6), "{:?}", terms);
                prop_assert!(decision.interactive <= input.most_interactive);
            }
            let again = decide_shed(&input, &state, &law, at(now));
            prop_assert_eq!(&again, &decision);
            let text = serde_json::to_string(&decision).unwrap();
            let read: ShedDecision = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(serde_json::to_string(&read).unwrap(), text, "it is as it was when it is read again");
            state = decision.state;
        }
    }

    #[test]
    fn small_loads_are_never_refused(
        load in 0.0..0.85f64, forecast in 0.0..1000.0f64, part in 0.0..=1.0f64, in_flight in 0.0..1000.0f64,
    ) {
        let input = ShedInput {
            admitted_rps: 100.0 * load,
            batch_part: Some(part),
            forecast: Some(Ahead { rps: forecast, seconds: 60.0 }),
            in_flight: Some(in_flight),
            waiting: 0.0,
            ..overload()
        };
        let decision = evaluate(&input, &ShedState::default(), 0..40);
        prop_assert_eq!((decision.batch, decision.interactive), (0.0, 0.0));
    }
}
