use proptest::prelude::*;

use super::*;

mod drift;
mod judged;

/// A server that works off 5 requests of 400 tokens a second, in order.
pub(super) fn server(waiting: f64, running: f64) -> (WaitQuery, f64) {
    let inter_token = 0.02 + 0.0005 * running;
    let state = WaitState {
        waiting: Some(waiting),
        waiting_prompt_tokens: Some(400.0 * waiting),
        running: Some(running),
        kv_used: Some((running / 64.0).min(1.0)),
        gpu_utilisation: Some(0.97),
        inter_token_seconds: Some(inter_token),
        ..WaitState::default()
    };
    let query = WaitQuery { state, prompt_tokens: Some(400.0), ..WaitQuery::default() };
    (query, 0.2 + 0.2 * waiting + 2.0 * inter_token)
}

/// Load that comes and goes, at a pace that the last TTFT cannot follow.
pub(super) fn load(turn: u32) -> (WaitQuery, f64) {
    let waiting = (10.0 + 10.0 * (f64::from(turn) * 0.9).sin()).round();
    let (query, ttft) = server(waiting, 32.0 + 31.0 * (f64::from(turn) * 0.37).cos());
    (WaitQuery { now_seconds: f64::from(turn), ..query }, ttft)
}

/// The same as a control plane sees it.
pub(super) fn without_tokens(query: &WaitQuery) -> WaitQuery {
    let state = WaitState { waiting_prompt_tokens: None, ..query.state };
    WaitQuery { state, prompt_tokens: None, ..*query }
}

pub(super) fn wobble(turn: u32, size: f64) -> f64 {
    1.0 + size * (f64::from(turn) * 2.3).sin()
}

/// Asks, and shows the outcome as soon as the next question comes.
pub(super) fn live(model: &mut WaitModel, query: &WaitQuery, ttft: f64) -> WaitForecast {
    let ticket = model.ask(query);
    model.observe(&ticket, ttft, 1.0, query.now_seconds + 0.5);
    if model.outcomes_since_fit() >= 100 {
        model.refit();
    }
    ticket.forecast()
}

pub(super) fn trained(outcomes: u32) -> WaitModel {
    let mut model = WaitModel::new(WaitConfig::default());
    for turn in 0..outcomes {
        let (query, ttft) = load(turn);
        live(&mut model, &query, ttft * wobble(turn, 0.1));
    }
    model
}

fn median(model: &WaitModel, query: &WaitQuery) -> f64 {
    model.predict(query).quantiles.median()
}

#[test]
fn without_data_nothing_is_claimed() {
    let forecast = WaitModel::new(WaitConfig::default()).predict(&server(40.0, 3.0).0);
    assert_eq!((forecast.leader, forecast.known_seconds(), forecast.source_name()), (None, None, "none"));
    assert!(forecast.quantiles.q10() > 0.0);
}

#[test]
fn a_first_scrape_is_better_than_nothing() {
    let (mut query, _) = server(0.0, 3.0);
    query.state.recent_ttft_seconds = Some(0.4);
    let forecast = WaitModel::new(WaitConfig::default()).predict(&query);
    assert_eq!(forecast.leader, Some(WaitExpert::LastObserved));
    assert_eq!(forecast.known_seconds(), Some(0.4));
    assert!(forecast.quantiles.q90() > 0.6, "nothing is known of the spread: {forecast:?}");
}

#[test]
fn a_queue_that_comes_and_goes_is_followed_in_both_views() {
    let mut views = [trained(300), trained(300)];
    for turn in 300..400 {
        let (query, ttft) = load(turn);
        for (model, query) in views.iter_mut().zip([query, without_tokens(&query)]) {
            let forecast = live(model, &query, ttft * wobble(turn, 0.1));
            let error = forecast.quantiles.median() / ttft - 1.0;
            assert!(error.abs() < 0.2, "turn {turn}: {forecast:?} for {ttft}");
            assert_ne!(forecast.leader, Some(WaitExpert::LastObserved));
        }
    }
}

#[test]
fn the_experts_show_what_they_say_and_how_they_did() {
    let model = trained(300);
    let ticket = model.ask(&load(300).0);
    let standings = model.standings(&ticket);
    let shares: f64 = standings.iter().map(|standing| standing.share).sum();
    assert!((shares - 1.0).abs() < 1e-9);
    let error = |expert: WaitExpert| standings[expert as usize].recent_error_seconds.unwrap();
    assert!(error(WaitExpert::LastObserved) > 5.0 * error(WaitExpert::Regression), "{standings:?}");
    let best = standings.iter().max_by(|a, b| a.share.total_cmp(&b.share)).unwrap();
    assert_eq!(ticket.forecast().leader, Some(best.expert));
}

#[test]
fn a_jam_beyond_all_that_was_met_takes_the_time_that_the_rate_of_service_needs() {
    let model = trained(300);
    for query in [server(500.0, 40.0).0, without_tokens(&server(500.0, 40.0).0)] {
        let seconds = median(&model, &query);
        assert!((80.0..120.0).contains(&seconds), "{seconds}");
    }
    let mut before = 0.0;
    for waiting in [20.0, 40.0, 100.0, 500.0, 1000.0] {
        let seconds = median(&model, &server(waiting, 40.0).0);
        assert!(seconds > before, "{waiting}: {seconds}");
        before = seconds;
    }
}

#[test]
fn what_was_sent_since_the_state_counts_and_what_was_served_does_not() {
    let model = trained(300);
    let query = server(10.0, 40.0).0;
    let older = WaitQuery { state: WaitState { age_seconds: 1.0, ..query.state }, ..query };
    let ask =
        |sent: f64| WaitQuery { sent_requests: Some(sent), sent_prompt_tokens: Some(400.0 * sent), ..older };
    let (none, as_served, many) =
        (median(&model, &ask(0.0)), median(&model, &ask(5.0)), median(&model, &ask(30.0)));
    assert!((as_served / median(&model, &query) - 1.0).abs() < 0.3, "{as_served}");
    assert!(none < as_served && as_served + 3.0 < many, "{none} {as_served} {many}");
}

#[test]
fn an_older_state_has_a_wider_bound() {
    let model = trained(300);
    let (query, _) = server(0.0, 20.0);
    let width = |age_seconds: f64| {
        let state = WaitState { age_seconds, ..query.state };
        let quantiles = model.predict(&WaitQuery { state, ..query }).quantiles;
        quantiles.q90() / quantiles.median()
    };
    let widths = [0.0, 1.0, 2.0, 5.0, 10.0, 20.0, 100.0].map(width);
    assert!(widths.is_sorted() && widths[6] > 1.5 * widths[0].max(1.0 + 1e-9) - 0.5, "{widths:?}");
}

#[test]
fn the_bounds_hold_as_often_as_they_say() {
    let mut model = trained(300);
    let mut held = [0.0; 4];
    for turn in 300..1500 {
        let (query, ttft) = load(turn);
        let ttft = ttft * wobble(turn, 0.3);
        let quantiles = live(&mut model, &query, ttft).quantiles;
        let bounds = [quantiles.q10(), quantiles.q90(), quantiles.q95(), quantiles.q99()];
        held.iter_mut().zip(bounds).for_each(|(held, bound)| *held += f64::from(ttft <= bound) / 1200.0);
    }
    for (held, level) in held.into_iter().zip([0.1, 0.9, 0.95, 0.99]) {
        assert!((held - level).abs() < 0.03, "{held} at {level}");
    }
}

#[test]
fn what_cannot_be_an_outcome_is_ignored() {
    let mut model = trained(150);
    let before = model.clone();
    let ticket = model.ask(&load(150).0);
    for (ttft, count) in [(f64::NAN, 1.0), (-1.0, 1.0), (1.0, 0.0), (1.0, f64::INFINITY)] {
        model.observe(&ticket, ttft, count, 151.0);
    }
    assert_eq!(model, before);
}

#[test]
fn memory_does_not_grow_with_age() {
    let size = |model: &WaitModel| serde_json::to_string(model).unwrap().len();
    let (young, old) = (size(&trained(1200)), size(&trained(3000)));
    assert!(old < young + young / 10, "{old} after {young}");
    assert!(size_of::<Outcome>() * WaitConfig::default().outcomes < 70_000, "{}", size_of::<Outcome>());
    assert!(size_of::<WaitTicket>() < 400, "{}", size_of::<WaitTicket>());
}

#[test]
fn a_saved_model_goes_on_as_if_it_had_not_been_saved() {
    let mut model = trained(330);
    let open = model.ask(&load(329).0);
    let saved = serde_json::to_string(&(&model, &open)).unwrap();
    let (mut resumed, reopened): (WaitModel, WaitTicket) = serde_json::from_str(&saved).unwrap();
    model.observe(&open, 1.5, 2.0, 331.0);
    resumed.observe(&reopened, 1.5, 2.0, 331.0);
    for turn in 330..450 {
        let (query, ttft) = load(turn);
        for model in [&mut model, &mut resumed] {
            live(model, &query, ttft * wobble(turn, 0.1));
        }
    }
    let json = |model: &WaitModel| serde_json::to_string(&(model, model.predict(&load(450).0))).unwrap();
    assert_eq!(json(&model), json(&resumed));
}

#[test]
fn refuses_a_state_of_another_version() {
    let text = serde_json::to_string(&trained(150)).unwrap();
    let error =
        serde_json::from_str::<WaitModel>(&text.replacen("\"version\":2", "\"version\":9", 1)).unwrap_err();
    assert!(error.to_string().contains("state version 9: this library reads 2"), "{error}");
}

fn any_query() -> impl Strategy<Value = WaitQuery> {
    let number = || prop_oneof![4 => 0.0..100.0, 1 => prop::num::f64::ANY];
    let maybe = move || prop::option::of(number());
    let state = (maybe(), maybe(), maybe(), maybe(), (maybe(), maybe(), maybe(), maybe()), maybe(), number());
    (state, number(), maybe(), maybe(), maybe()).prop_map(|(state, now_seconds, prompt, requests, tokens)| {
        let (waiting, waiting_prompt_tokens, running, kv_used, rates, gpu_utilisation, age_seconds) = state;
        let state = WaitState {
            waiting,
            waiting_prompt_tokens,
            running,
            kv_used,
            gpu_utilisation,
            inter_token_seconds: rates.0,
            output_tps: rates.1,
            prompt_tps: rates.1,
            arrived_rps: rates.2,
            recent_wait_seconds: rates.3,
            recent_ttft_seconds: rates.3,
            age_seconds,
        };
        WaitQuery {
            state,
            now_seconds,
            prompt_tokens: prompt,
            sent_requests: requests,
            sent_prompt_tokens: tokens,
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_state_gives_a_lawful_forecast(
        outcomes in prop::collection::vec((any_query(), 0.0..50.0_f64, 0.0..20.0_f64), 0..200),
        queries in prop::collection::vec(any_query(), 1..20),
    ) {
        let mut model = WaitModel::new(WaitConfig { outcomes: 100, outcomes_min: 20 });
        for (index, (query, ttft, count)) in outcomes.iter().enumerate() {
            let ticket = model.ask(query);
            model.observe(&ticket, *ttft, *count, query.now_seconds);
            if index % 50 == 49 {
                model.refit();
            }
        }
        for query in &queries {
            let ticket = model.ask(query);
            let values = ticket.forecast().quantiles.values();
            prop_assert!(values.is_sorted() && values[0] > 0.0 && values[4] <= 600.0, "{:?}", values);
            let standings = model.standings(&ticket);
            prop_assert!(standings.iter().all(|standing| (0.0..=1.0).contains(&standing.share)));
            prop_assert!(ticket.residual(1.0).is_finite());
        }
        let saved = serde_json::to_string(&model).unwrap();
        prop_assert_eq!(serde_json::from_str::<WaitModel>(&saved).unwrap(), model);
    }
}
