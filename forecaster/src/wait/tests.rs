use proptest::prelude::*;

use super::*;

/// A server that admits in order: a request waits for those before it, then for its own prompt.
fn server(queue: f64, running: f64, shown: f64) -> (WaitState, f64) {
    let inter_token = 0.02 + 0.0005 * running;
    let state = WaitState {
        queue_depth: queue,
        running,
        kv_used: (running / 64.0).min(1.0),
        gpu_utilisation: Some(0.97),
        inter_token_seconds: Some(inter_token),
        completed_rps: 5.0,
        ttft_seconds: Some(shown),
        age_seconds: 0.2,
    };
    (state, 0.1 + 0.2 * queue + 2.0 * inter_token)
}

/// Load that comes and goes, at a pace that the last TTFT cannot follow.
fn load(turn: u32) -> (WaitState, f64) {
    let queue = (10.0 + 10.0 * (f64::from(turn) * 0.9).sin()).round();
    let running = 32.0 + 31.0 * (f64::from(turn) * 0.37).cos();
    let before = 0.1 + 0.2 * (10.0 + 10.0 * (f64::from(turn) * 0.9 - 2.7).sin());
    server(queue, running, before)
}

fn trained(outcomes: u32) -> WaitModel {
    let mut model = WaitModel::new(WaitConfig::default());
    for turn in 0..outcomes {
        let (state, ttft) = load(turn);
        model.observe(&state, ttft * (1.0 + 0.1 * (f64::from(turn) * 2.3).sin()), 4.0);
        if turn % 100 == 99 {
            model.refit();
        }
    }
    model
}

#[test]
fn without_data_nothing_is_claimed() {
    let model = WaitModel::new(WaitConfig::default());
    let prediction =
        model.predict(&WaitState { queue_depth: 40.0, completed_rps: 5.0, ..Default::default() });
    assert_eq!(prediction.source, WaitSource::None);
    assert_eq!((prediction.mean_seconds, prediction.upper_seconds), (0.0, 0.0));
    assert_eq!(prediction.known_seconds(), None);
}

#[test]
fn a_first_scrape_is_better_than_nothing() {
    let model = WaitModel::new(WaitConfig::default());
    let prediction = model.predict(&server(0.0, 3.0, 0.4).0);
    assert_eq!((prediction.source, prediction.mean_seconds), (WaitSource::LastObserved, 0.4));
    assert!(prediction.upper_seconds > 0.7, "nothing is known of the spread: {prediction:?}");
}

#[test]
fn a_regression_that_predicts_better_takes_over() {
    let model = trained(300);
    for turn in 300..330 {
        let (state, ttft) = load(turn);
        let prediction = model.predict(&state);
        assert_eq!(prediction.source, WaitSource::Regression);
        assert!((prediction.mean_seconds / ttft - 1.0).abs() < 0.25, "{prediction:?} for {ttft}");
        assert!(prediction.upper_seconds > ttft, "{prediction:?} for {ttft}");
    }
}

#[test]
fn a_regression_that_misleads_is_not_heard() {
    let mut model = trained(300);
    // The server became ten times faster, and what is shown says so.
    for turn in 300..450 {
        let (state, ttft) = load(turn);
        model.observe(&WaitState { ttft_seconds: Some(ttft / 10.0), ..state }, ttft / 10.0, 4.0);
    }
    let (state, ttft) = load(450);
    let prediction = model.predict(&WaitState { ttft_seconds: Some(ttft / 10.0), ..state });
    assert_eq!(prediction.source, WaitSource::LastObserved);
    assert!((prediction.mean_seconds - ttft / 10.0).abs() < 1e-9, "{prediction:?}");
}

#[test]
fn an_exploding_queue_raises_the_prediction_beyond_all_that_was_met() {
    let model = trained(300);
    for completed_rps in [5.0, 0.0] {
        let mut before = model.predict(&server(20.0, 40.0, 4.0).0).mean_seconds;
        for queue in [40.0, 100.0, 500.0, 1000.0] {
            let state = WaitState { completed_rps, ..server(queue, 40.0, 4.0).0 };
            let prediction = model.predict(&state);
            assert!(prediction.mean_seconds > before, "queue {queue}, {completed_rps} rps: {prediction:?}");
            assert!(prediction.mean_seconds >= queue / 5.0 || completed_rps == 0.0, "{prediction:?}");
            before = prediction.mean_seconds;
        }
    }
}

/// A backend that answers in 0.2 s and has had little to do; the last requests are long past.
fn quiet(turn: u32) -> (WaitState, f64) {
    let ttft = 0.2 * (1.0 + 0.1 * (f64::from(turn) * 2.3).sin());
    let completed_rps = 0.5 * (1.0 + 0.3 * (f64::from(turn) * 0.7).cos());
    (WaitState { completed_rps, ..server(f64::from(turn % 7 == 3), 1.0, 0.2).0 }, ttft)
}

#[test]
fn one_request_in_the_queue_of_a_quiet_backend_is_no_jam() {
    let one_waits = WaitState { completed_rps: 0.01, ..server(1.0, 1.0, 0.2).0 };
    let two_wait = WaitState { queue_depth: 2.0, ..one_waits };
    for outcomes in [1, 20, 200] {
        let mut model = WaitModel::new(WaitConfig::default());
        for turn in 0..outcomes {
            let (state, ttft) = quiet(turn);
            model.observe(&state, ttft, 1.0);
        }
        for _ in 0..2 {
            for state in [one_waits, two_wait] {
                let prediction = model.predict(&state);
                assert!(prediction.mean_seconds < 0.8, "after {outcomes}: {prediction:?}");
            }
            model.refit();
        }
    }
}

#[test]
fn a_quiet_hour_does_not_slow_the_service_that_was_seen_under_load() {
    let mut model = trained(200);
    for turn in 0..100 {
        let (state, ttft) = quiet(turn);
        model.observe(&WaitState { queue_depth: 0.0, ..state }, ttft, 1.0);
    }
    model.refit();
    let state = WaitState { completed_rps: 0.01, ..server(1.0, 1.0, 0.2).0 };
    let prediction = model.predict(&state);
    assert!(prediction.mean_seconds < 1.0, "{prediction:?}");
}

#[test]
fn a_jam_takes_the_time_that_the_rate_under_load_needs() {
    let mut model = WaitModel::new(WaitConfig::default());
    for turn in 0..60 {
        let queue = f64::from(turn % 6);
        let state = WaitState { completed_rps: 2.0, ..server(queue, 8.0, 0.3).0 };
        model.observe(&state, 0.3 + 0.5 * queue, 1.0);
    }
    for _ in 0..2 {
        for completed_rps in [2.0, 0.1] {
            let prediction = model.predict(&WaitState { completed_rps, ..server(100.0, 8.0, 2.0).0 });
            assert!((50.0..100.0).contains(&prediction.mean_seconds), "{prediction:?}");
        }
        model.refit();
    }
}

#[test]
fn an_older_state_widens_the_bound_and_leaves_the_estimate() {
    let model = trained(300);
    let state = load(300).0;
    let [fresh, old, older] =
        [0.0, 3.0, 20.0].map(|age_seconds| model.predict(&WaitState { age_seconds, ..state }));
    assert_eq!((fresh.mean_seconds, fresh.mean_seconds), (old.mean_seconds, older.mean_seconds));
    assert!(fresh.upper_seconds < old.upper_seconds && old.upper_seconds < older.upper_seconds);
}

#[test]
fn the_upper_bound_holds_nine_outcomes_in_ten() {
    let mut model = trained(300);
    let mut held = 0.0;
    for turn in 300..700 {
        let (state, ttft) = load(turn);
        let ttft = ttft * (1.0 + 0.3 * (f64::from(turn) * 2.3).sin());
        held += f64::from(ttft <= model.predict(&state).upper_seconds);
        model.observe(&state, ttft, 4.0);
        if turn % 100 == 99 {
            model.refit();
        }
    }
    assert!((held / 400.0 - 0.9_f64).abs() < 0.05, "{}", held / 400.0);
}

#[test]
fn what_cannot_be_an_outcome_is_ignored() {
    let mut model = trained(150);
    let before = model.clone();
    for (ttft, count) in [(f64::NAN, 1.0), (-1.0, 1.0), (1.0, 0.0), (1.0, f64::INFINITY)] {
        model.observe(&load(150).0, ttft, count);
    }
    assert_eq!(model, before);
}

#[test]
fn memory_does_not_grow_with_age() {
    let size = |model: &WaitModel| serde_json::to_string(model).unwrap().len();
    let (young, old) = (size(&trained(800)), size(&trained(2400)));
    assert!(old < young + young / 10, "{old} after {young}");
}

#[test]
fn a_saved_model_goes_on_as_if_it_had_not_been_saved() {
    let mut model = trained(330);
    let saved = serde_json::to_string(&model).unwrap();
    let mut resumed: WaitModel = serde_json::from_str(&saved).unwrap();
    for turn in 330..450 {
        let (state, ttft) = load(turn);
        for model in [&mut model, &mut resumed] {
            model.observe(&state, ttft, 2.0);
            if turn == 400 {
                model.refit();
            }
        }
    }
    let json = |model: &WaitModel| serde_json::to_string(&(model, model.predict(&load(450).0))).unwrap();
    assert_eq!(json(&model), json(&resumed));
}

#[test]
fn refuses_a_state_of_another_version() {
    let text = serde_json::to_string(&trained(150)).unwrap();
    let error =
        serde_json::from_str::<WaitModel>(&text.replacen("\"version\":1", "\"version\":9", 1)).unwrap_err();
    assert!(error.to_string().contains("state version 9: this library reads 1"), "{error}");
}

fn any_state() -> impl Strategy<Value = WaitState> {
    let number = || prop_oneof![4 => 0.0..100.0, 1 => prop::num::f64::ANY];
    let maybe = move || prop::option::of(number());
    (number(), number(), number(), maybe(), maybe(), number(), maybe(), number()).prop_map(
        |(queue_depth, running, kv_used, gpu, inter_token, completed_rps, ttft_seconds, age_seconds)| {
            WaitState {
                queue_depth,
                running,
                kv_used,
                gpu_utilisation: gpu,
                inter_token_seconds: inter_token,
                completed_rps,
                ttft_seconds,
                age_seconds,
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_state_gives_a_lawful_prediction(
        outcomes in prop::collection::vec((any_state(), 0.0..50.0_f64, 0.0..20.0_f64), 0..200),
        states in prop::collection::vec(any_state(), 1..20),
    ) {
        let mut model = WaitModel::new(WaitConfig::default());
        for (state, ttft, count) in &outcomes {
            model.observe(state, *ttft, *count);
        }
        model.refit();
        for state in &states {
            let prediction = model.predict(state);
            prop_assert!((0.0..=600.0).contains(&prediction.mean_seconds), "{:?}", prediction);
            prop_assert!((prediction.mean_seconds..=600.0).contains(&prediction.upper_seconds), "{:?}", prediction);
        }
        let saved = serde_json::to_string(&model).unwrap();
        prop_assert_eq!(serde_json::from_str::<WaitModel>(&saved).unwrap(), model);
    }
}
