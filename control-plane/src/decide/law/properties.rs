//! What holds for every fleet.

use proptest::prelude::*;

use super::super::{Mix, Profile};
use super::tests::{address, at, backend, class, model, near};
use super::*;

/// A number that no sensor should have shown.
fn hostile() -> impl Strategy<Value = f64> {
    prop_oneof![
        4 => 0.0..100.0f64,
        1 => Just(0.0),
        1 => Just(-1.0),
        1 => Just(f64::NAN),
        1 => Just(f64::INFINITY),
        1 => Just(f64::NEG_INFINITY),
        1 => Just(1e300),
        1 => Just(1e-300),
    ]
}

fn hostile_profile() -> impl Strategy<Value = Profile> {
    let limit = || proptest::option::of(hostile());
    (hostile(), hostile(), hostile(), hostile(), limit(), limit(), limit()).prop_map(
        |(fixed, sequence, prompt, kv, max_sequences, kv_tokens, token_budget)| Profile {
            fixed_seconds: fixed,
            per_sequence_seconds: sequence,
            per_prompt_token_seconds: prompt,
            per_kv_token_seconds: kv,
            max_sequences,
            kv_tokens,
            token_budget,
        },
    )
}

fn hostile_backend() -> impl Strategy<Value = BackendInput> {
    let maybe = || proptest::option::of(hostile());
    let verdict = prop_oneof![Just(Verdict::Usual), Just(Verdict::Warming), Just(Verdict::Sick)];
    (
        (1u16..20, 0usize..3, proptest::option::of(hostile_profile()), verdict, hostile()),
        (hostile(), maybe(), maybe(), maybe(), maybe()),
    )
        .prop_map(
            |((port, pool, profile, verdict, warmed), (slowdown, capacity, at_ease, flight, age))| {
                BackendInput {
                    address: address(port),
                    pool: ["a", "b", "c"][pool].to_owned(),
                    zone: String::new(),
                    profile,
                    capacity_rps: capacity,
                    at_ease_rps: at_ease,
                    slowdown,
                    in_flight: flight,
                    age_seconds: age,
                    verdict,
                    warmed,
                    sign: None,
                    price_per_hour: None,
                }
            },
        )
}

/// A plausible backend: class, capacity (in place of the profile), slowdown, part of the batch in flight, age.
fn sane_backend(port: u16) -> impl Strategy<Value = BackendInput> {
    (0usize..4, proptest::option::weighted(0.2, 1.0..20.0f64), 0.8..5.0f64, 0.0..1.5f64, 0.0..20.0f64)
        .prop_map(move |(number, capacity_rps, slowdown, part, age)| {
            let profile = class(number);
            let in_flight = part * profile.max_sequences.unwrap();
            BackendInput {
                slowdown,
                age_seconds: Some(age),
                capacity_rps,
                at_ease_rps: None,
                profile: capacity_rps.is_none().then_some(profile),
                ..backend(port, ["a", "b", "c", "d"][number], profile, in_flight)
            }
        })
}

fn sane_fleet() -> impl Strategy<Value = Vec<BackendInput>> {
    (2u16..10).prop_flat_map(|count| (1..=count).map(sane_backend).collect::<Vec<_>>())
}

/// A verdict that is worse or as bad, and how far it has warmed up.
fn state() -> impl Strategy<Value = (Verdict, f64)> {
    let verdict = prop_oneof![3 => Just(Verdict::Usual), 1 => Just(Verdict::Sick)];
    (verdict, prop_oneof![2 => Just(1.0), 1 => 0.0..1.0f64])
}

fn put(backend: &mut BackendInput, (verdict, warmed): (Verdict, f64)) {
    let warms = verdict == Verdict::Usual && warmed < 1.0;
    (backend.verdict, backend.warmed) = (if warms { Verdict::Warming } else { verdict }, warmed);
}

fn fresh(mut backends: Vec<BackendInput>) -> Vec<BackendInput> {
    backends.iter_mut().for_each(|backend| backend.age_seconds = Some(0.0));
    backends
}

fn decided(input: &ModelInput) -> WeightDecision {
    decide_weights(input, &WeightState::default(), &Law::default(), at(0))
}

fn wanted(decision: &WeightDecision) -> Vec<f64> {
    decision.backends.iter().map(|backend| backend.terms.wanted_share).collect()
}

fn smoothed(decision: &WeightDecision) -> Vec<f64> {
    decision.backends.iter().map(|backend| backend.terms.smoothed_share).collect()
}

fn is_valid(decision: &WeightDecision) -> Result<(), TestCaseError> {
    let sums = [
        decision.backends.iter().map(|backend| backend.share).sum::<f64>(),
        smoothed(decision).iter().sum::<f64>(),
        wanted(decision).iter().sum::<f64>(),
        decision.groups.iter().map(|group| group.share).sum::<f64>(),
        decision.backends.iter().map(|backend| backend.capacity_share).sum::<f64>(),
    ];
    for sum in sums {
        prop_assert!(decision.backends.is_empty() || (sum - 1.0).abs() < 1e-9, "{sum}");
    }
    for backend in &decision.backends {
        prop_assert!(backend.share.is_finite() && backend.share > 0.0, "{backend:?}");
        prop_assert!(backend.weight >= 1 && !backend.reason.is_empty(), "{backend:?}");
    }
    // What cannot be read back could not be replayed: JSON has no NaN.
    let text = serde_json::to_string(decision).unwrap();
    prop_assert_eq!(&serde_json::from_str::<WeightDecision>(&text).unwrap(), decision);
    Ok(())
}

proptest! {
    #[test]
    fn whatever_comes_in_shares_go_out(
        rounds in proptest::collection::vec(
            (proptest::collection::vec(hostile_backend(), 0..12), hostile(), hostile(), hostile(), 0usize..100), 1..6)
    ) {
        let mut state = WeightState::default();
        for (second, (backends, arrivals_rps, prompt_tokens, output_tokens, envoys)) in rounds.into_iter().enumerate() {
            let mix = Mix { prompt_tokens, output_tokens, resident_tokens: prompt_tokens };
            let input = ModelInput {
                arrivals_rps,
                mix,
                envoys,
                steered_part: 1.0,
                observed_seconds: 3.0 * second as f64,
                backends,
            };
            let decision = decide_weights(&input, &state, &Law::default(), at(second as i64));
            is_valid(&decision)?;
            prop_assert_eq!(&decide_weights(&input, &state, &Law::default(), at(second as i64)), &decision);
            state = decision.state;
        }
    }

    #[test]
    fn hostile_settings_do_no_harm(values in proptest::collection::vec(hostile(), 12), fleet in sane_fleet()) {
        let law = Law {
            correction_seconds: values[0], barrier: values[1], waiting_price: values[2], floor: values[3],
            ceiling: values[4], smoothing: values[5], dead_band: values[6], largest_step: values[7],
            window_seconds: values[8], form_at: values[9], cost_weight: values[10], fill: values[11],
        };
        let first = decide_weights(&model(fleet.clone(), 20.0), &WeightState::default(), &law, at(0));
        is_valid(&first)?;
        is_valid(&decide_weights(&model(fleet, 5.0), &first.state, &law, at(1)))?;
    }

    #[test]
    fn floors_and_caps_are_kept(fleet in sane_fleet(), arrivals in 0.1..200.0f64) {
        let decision = decided(&model(fresh(fleet), arrivals));
        let usual = |backend: &BackendShare| backend.terms.capacity_rps * backend.terms.slowdown;
        let arrivals = arrivals.max(LEAST_LOAD * decision.backends.iter().map(usual).sum::<f64>());
        for backend in &decision.backends {
            let terms = &backend.terms;
            let inflow = terms.wanted_share * arrivals;
            prop_assert!(inflow >= 0.02 * arrivals * backend.capacity_share * (1.0 - 1e-6), "{backend:?}");
            prop_assert!(inflow <= terms.ceiling_rps * (1.0 + 1e-6), "{backend:?}");
        }
    }

    #[test]
    fn a_slower_backend_never_gains(
        fleet in sane_fleet(), index in 0usize..10, times in 1.0..10.0f64, arrivals in 0.1..200.0f64
    ) {
        let index = index % fleet.len();
        let before = decided(&model(fleet.clone(), arrivals));
        let mut slower = fleet;
        slower[index].slowdown *= times;
        let after = decided(&model(slower, arrivals));
        prop_assert!(wanted(&after)[index] <= wanted(&before)[index] + 1e-7, "{before:#?}\n{after:#?}");
    }

    #[test]
    fn a_sicker_backend_never_gains(
        fleet in sane_fleet(),
        states in proptest::collection::vec(state(), 10),
        (index, worse) in (0usize..10, state()),
        arrivals in 0.1..200.0f64,
    ) {
        let index = index % fleet.len();
        let mut fleet = fleet;
        fleet.iter_mut().zip(&states).for_each(|(backend, state)| put(backend, *state));
        let before = decided(&model(fleet.clone(), arrivals));
        is_valid(&before)?;
        let (verdict, warmed) = states[index];
        // One that warms up is given a part of its share even where the level would give it less.
        let warmed = if warmed < 1.0 { warmed.min(worse.1) } else { 1.0 };
        put(&mut fleet[index], (if verdict == Verdict::Sick { verdict } else { worse.0 }, warmed));
        // The one that makes most of them sick has nobody treated as sick any more.
        prop_assume!(2 * fleet.iter().filter(|backend| backend.verdict == Verdict::Sick).count() <= fleet.len());
        let after = decided(&model(fleet, arrivals));
        prop_assert!(wanted(&after)[index] <= wanted(&before)[index] + 1e-7, "{before:#?}\n{after:#?}");
    }

    #[test]
    fn where_all_are_sick_none_is_worse_off(fleet in sane_fleet(), arrivals in 0.1..200.0f64) {
        let well = decided(&model(fleet.clone(), arrivals));
        let mut fleet = fleet;
        fleet.iter_mut().for_each(|backend| backend.verdict = Verdict::Sick);
        let sick = decided(&model(fleet, arrivals));
        prop_assert_eq!(wanted(&well), wanted(&sick));
        prop_assert_eq!(well.groups, sick.groups);
    }

    #[test]
    fn what_is_sick_keeps_no_more_than_probes_it(
        fleet in sane_fleet(), index in 0usize..10, arrivals in 0.1..200.0f64
    ) {
        let mut fleet = fleet;
        let index = index % fleet.len();
        fleet[index].verdict = Verdict::Sick;
        let decision = decided(&model(fleet, arrivals));
        let backend = &decision.backends[index];
        prop_assert!(backend.terms.inflow_rps <= backend.terms.floor_rps, "{backend:?}");
        prop_assert!(backend.terms.wanted_share > 0.0 && backend.group.contains('/'), "{backend:?}");
    }

    #[test]
    fn neither_the_unit_of_time_nor_the_size_of_machines_matters(
        fleet in sane_fleet(), arrivals in 5.0..60.0f64, times in 0.1..10.0f64
    ) {
        // What probes a backend counts requests by the clock; with the largest floor it does not show.
        let law = Law { floor: MOST_PROBING, ..Law::default() };
        let mut fleet = fresh(fleet);
        fleet.iter_mut().filter(|backend| backend.profile.is_none()).for_each(|backend| backend.profile = Some(class(0)));
        let decide = |fleet: &[BackendInput], arrivals: f64, law: &Law| {
            wanted(&decide_weights(&model(fleet.to_vec(), arrivals), &WeightState::default(), law, at(0)))
        };
        let expected = decide(&fleet, arrivals, &law);
        let scaled = |seconds: f64, machines: f64| {
            let mut scaled = fleet.clone();
            for backend in &mut scaled {
                let profile = backend.profile.as_mut().unwrap();
                profile.fixed_seconds *= seconds;
                for cost in [&mut profile.per_sequence_seconds, &mut profile.per_prompt_token_seconds, &mut profile.per_kv_token_seconds] {
                    *cost *= seconds / machines;
                }
                profile.max_sequences = profile.max_sequences.map(|count| count * machines);
                backend.in_flight = backend.in_flight.map(|count| count * machines);
            }
            scaled
        };
        let slow = Law { correction_seconds: times * law.correction_seconds, ..law };
        prop_assert!(near(&decide(&scaled(times, 1.0), arrivals / times, &slow), &expected, 1e-6));
        prop_assert!(near(&decide(&scaled(1.0, 1.0 + times), arrivals * (1.0 + times), &law), &expected, 1e-6));
    }

    #[test]
    fn the_order_of_backends_does_not_matter(
        (fleet, turned) in sane_fleet().prop_flat_map(|fleet| (Just(fleet.clone()), Just(fleet).prop_shuffle()))
    ) {
        prop_assert_eq!(decided(&model(fleet, 20.0)), decided(&model(turned, 20.0)));
    }

    #[test]
    fn on_constant_input_shares_come_nearer_with_every_step(
        fleet in sane_fleet(), start in proptest::collection::vec(0.01..1.0f64, 10), arrivals in 0.1..100.0f64
    ) {
        let input = model(fresh(fleet), arrivals);
        let start = normalised(&start[..input.backends.len()]);
        let known: BTreeMap<_, _> = input.backends.iter().map(|backend| backend.address).zip(start).collect();
        let mut state = WeightState { shares: known.clone(), published: known, ..WeightState::default() };
        let mut before: Option<(Vec<f64>, Vec<f64>)> = None;
        for second in 0..120 {
            let decision = decide_weights(&input, &state, &Law::default(), at(second));
            let (now, target) = (smoothed(&decision), wanted(&decision));
            if let Some((last, _)) = &before {
                for ((last, now), target) in last.iter().zip(&now).zip(&target) {
                    let is_nearer = (now - target).abs() <= (last - target).abs() + 1e-9;
                    let stays_on_its_side = (now - target) * (last - target) >= -1e-12;
                    prop_assert!(is_nearer && stays_on_its_side, "{last} → {now}, {target}");
                }
            }
            state = decision.state;
            before = Some((now, target));
        }
        let (last, target) = before.unwrap();
        prop_assert!(near(&last, &target, 1e-3), "{last:?} {target:?}");
    }

    #[test]
    fn a_step_moves_little_but_for_what_fails(
        first in sane_fleet(), arrivals in (0.1..100.0f64, 0.1..100.0f64), flights in proptest::collection::vec(0.0..100.0f64, 10),
    ) {
        let law = Law { smoothing: 1.0, ..Law::default() };
        let before = decide_weights(&model(first.clone(), arrivals.0), &WeightState::default(), &law, at(0));
        let mut second = first;
        second.iter_mut().zip(flights).for_each(|(backend, count)| backend.in_flight = Some(count));
        let after = decide_weights(&model(second, arrivals.1), &before.state, &law, at(1));
        let falls = smoothed(&before).into_iter().zip(smoothed(&after)).zip(&after.backends);
        let fallen = falls
            .filter(|(_, backend)| backend.terms.slowdown <= 1.4)
            .map(|((before, after), _)| (before - after).max(0.0))
            .sum::<f64>();
        prop_assert!(fallen <= law.largest_step + 1e-9, "{fallen}");
    }

    #[test]
    fn without_telemetry_shares_are_those_of_capacity(fleet in sane_fleet(), arrivals in 0.0..200.0f64) {
        let mut input = model(fleet, arrivals);
        input.backends.iter_mut().for_each(|backend| backend.age_seconds = Some(FORGOTTEN_SECONDS));
        let by_capacity: Vec<f64> = capacity_shares(&input).into_values().collect();
        prop_assert!(near(&wanted(&decided(&input)), &by_capacity, 1e-9));
    }

    #[test]
    fn whole_weights_are_near_their_shares(shares in proptest::collection::vec(0.0..1.0f64, 1..200)) {
        let weights = whole_weights(&shares, 10_000);
        prop_assert_eq!(weights.iter().sum::<u32>(), 10_000);
        prop_assert!(weights.iter().all(|weight| *weight >= 1));
        let sum: f64 = shares.iter().sum();
        for (weight, share) in weights.iter().zip(&shares) {
            let exact = share / sum.max(f64::MIN_POSITIVE) * 10_000.0;
            prop_assert!(sum <= 0.0 || (f64::from(*weight) - exact).abs() <= 1.0 + 2.0 * shares.len() as f64 / 10.0);
        }
    }
}
