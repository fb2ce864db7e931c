use proptest::prelude::*;

use super::*;

/// A server of 10 requests/s whose latencies grow as it fills up; noise of some per cent.
fn window(turn: u32, most_rps: f64) -> LoadWindow {
    let noise = |pace: f64| (f64::from(turn) * pace).sin();
    let rps = most_rps * (0.52 + 0.48 * noise(0.37));
    let (room, saturated) = ((1.0 - rps / 10.0).max(0.02), rps >= 10.0);
    LoadWindow {
        arrived_rps: Some(rps),
        completed_rps: Some(rps.min(10.0)),
        waiting: Some(if saturated { 20.0 } else { 0.0 }),
        running: Some(3.0 * rps),
        ttft_seconds: Some(0.1 / room * (1.0 + 0.1 * noise(2.3))),
        inter_token_seconds: Some(0.02 * (1.0 + rps / 10.0) * (1.0 + 0.05 * noise(1.7))),
    }
}

fn trained(most_rps: f64) -> CapacityModel {
    let mut model = CapacityModel::default();
    (0..400).for_each(|turn| model.observe(&window(turn, most_rps)));
    model
}

fn ttft(seconds: f64) -> LatencyTarget {
    LatencyTarget { ttft_seconds: Some(seconds), inter_token_seconds: None }
}

#[test]
fn finds_the_rate_at_which_the_target_is_just_met() {
    let model = trained(11.0);
    // 0.1 s / (1 - rate / 10) is 0.5 s at 8 requests/s, and 0.2 s at 5.
    for (target, expected) in [(0.5, 8.0), (0.2, 5.0)] {
        let CapacityEstimate::Known { rps, lower_rps, upper_rps } = model.estimate(&ttft(target)) else {
            panic!("{:?}", model.estimate(&ttft(target)));
        };
        assert!((rps - expected).abs() < 0.4, "{rps} for {target} s");
        assert!(lower_rps < rps && rps < upper_rps, "{lower_rps} {rps} {upper_rps}");
        assert!(upper_rps - lower_rps < 2.0, "{lower_rps} to {upper_rps}");
    }
}

#[test]
fn the_tighter_of_two_targets_decides() {
    let model = trained(11.0);
    // 0.02 s (1 + rate / 10) is 0.028 s at 4 requests/s.
    let both = LatencyTarget { ttft_seconds: Some(0.5), inter_token_seconds: Some(0.028) };
    let rps = model.estimate(&both).rps().unwrap();
    assert!((rps - 4.0).abs() < 0.5, "{rps}");
}

#[test]
fn what_was_not_met_is_not_guessed() {
    let model = trained(6.0);
    let CapacityEstimate::AtLeast { rps } = model.estimate(&ttft(2.0)) else { panic!("never near 2 s") };
    assert!((5.0..=6.0).contains(&rps), "{rps}");
    let CapacityEstimate::Below { rps } = model.estimate(&ttft(0.01)) else {
        panic!("never as fast as 10 ms")
    };
    assert!(rps < 1.0, "{rps}");
    assert_eq!(model.estimate(&LatencyTarget::default()), CapacityEstimate::Unknown);
    assert_eq!(CapacityModel::default().estimate(&ttft(1.0)), CapacityEstimate::Unknown);
}

#[test]
fn a_jam_counts_at_the_rate_that_goes_through() {
    let mut model = CapacityModel::default();
    for turn in 0..400 {
        let mut jam = window(turn, 30.0);
        if jam.waiting == Some(20.0) {
            jam.ttft_seconds = Some(8.0);
        }
        model.observe(&jam);
    }
    let rps = model.estimate(&ttft(2.0)).rps().unwrap();
    assert!((8.0..=10.0).contains(&rps), "{rps}");
}

#[test]
fn a_server_that_slows_down_is_known_anew() {
    let mut model = trained(11.0);
    for turn in 0..500 {
        let fast = window(turn, 11.0);
        let half = |rate: Option<f64>| rate.map(|rate| rate / 2.0);
        let (arrived_rps, completed_rps) = (half(fast.arrived_rps), half(fast.completed_rps));
        model.observe(&LoadWindow { arrived_rps, completed_rps, ..fast });
    }
    let rps = model.estimate(&ttft(0.5)).rps().unwrap();
    assert!((rps - 4.0).abs() < 0.3, "{rps}");
}

#[test]
fn memory_is_bounded_and_a_saved_model_says_the_same() {
    let mut model = trained(11.0);
    (0..2000).for_each(|turn| model.observe(&window(turn, 11.0)));
    let saved = serde_json::to_string(&model).unwrap();
    assert!(saved.len() < 60_000, "{}", saved.len());
    assert_eq!(serde_json::from_str::<CapacityModel>(&saved).unwrap(), model);
    let other = saved.replacen("\"version\":1", "\"version\":2", 1);
    assert!(serde_json::from_str::<CapacityModel>(&other).is_err());
}

fn any_window() -> impl Strategy<Value = LoadWindow> {
    let number = || prop::option::of(prop_oneof![4 => 0.0..100.0, 1 => prop::num::f64::ANY]);
    (number(), number(), number(), number(), number(), number()).prop_map(
        |(arrived_rps, completed_rps, waiting, running, ttft_seconds, inter_token_seconds)| LoadWindow {
            arrived_rps,
            completed_rps,
            waiting,
            running,
            ttft_seconds,
            inter_token_seconds,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn rates_are_finite_and_grow_with_the_target(
        windows in prop::collection::vec(any_window(), 0..300),
        mut targets in prop::collection::vec(0.001..200.0_f64, 2..20),
    ) {
        let mut model = CapacityModel::default();
        windows.iter().for_each(|window| model.observe(window));
        targets.sort_by(f64::total_cmp);
        let mut before = (0.0, 0.0, 0.0);
        for target in targets {
            let seen = match model.estimate(&ttft(target)) {
                CapacityEstimate::Unknown | CapacityEstimate::Below { .. } => (0.0, 0.0, 0.0),
                CapacityEstimate::Known { rps, lower_rps, upper_rps } => (lower_rps, rps, upper_rps),
                CapacityEstimate::AtLeast { rps } => (rps, rps, rps),
            };
            prop_assert!([seen.0, seen.1, seen.2].iter().all(|rate| rate.is_finite() && *rate >= 0.0));
            prop_assert!(seen.0 <= seen.1 && seen.1 <= seen.2, "{:?}", seen);
            prop_assert!(before.0 <= seen.0 && before.1 <= seen.1 && before.2 <= seen.2, "{:?} {:?}", before, seen);
            before = seen;
        }
    }
}
