use super::*;

/// Mean absolute error of the median over the mean TTFT, of outcomes that come a second apart.
fn wape(model: &mut WaitModel, turns: std::ops::Range<u32>, outcome: impl Fn(u32, f64) -> f64) -> f64 {
    let (mut errors, mut total) = (0.0, 0.0);
    for turn in turns {
        let (query, ttft) = load(turn);
        let ttft = outcome(turn, ttft);
        errors += (live(model, &query, ttft).quantiles.median() - ttft).abs();
        total += ttft;
    }
    errors / total
}

#[test]
fn a_server_whose_speed_halves_is_followed() {
    let mut model = trained(600);
    wape(&mut model, 600..700, |turn, ttft| 2.0 * ttft * wobble(turn, 0.1));
    let after = wape(&mut model, 700..900, |turn, ttft| 2.0 * ttft * wobble(turn, 0.1));
    assert!(after < 0.12, "{after}");
}

#[test]
fn a_server_that_slowly_drifts_is_followed() {
    let mut model = trained(600);
    let drift = |turn: u32| 1.0 + f64::from(turn - 600) / 600.0;
    let wape = wape(&mut model, 600..1800, |turn, ttft| drift(turn) * ttft * wobble(turn, 0.1));
    assert!(wape < 0.12, "{wape}");
}

#[test]
fn an_idle_hour_changes_nothing_but_the_time() {
    let model = trained(600);
    for later in [0.0, 60.0, 3600.0, 1e9] {
        let (query, ttft) = load(600);
        let forecast = model.predict(&WaitQuery { now_seconds: query.now_seconds + later, ..query });
        let median = forecast.quantiles.median();
        assert!((0.5..2.0).contains(&(median / ttft)), "{median} after {later} s");
        assert!(forecast.quantiles.q99() < 600.0 && forecast.leader.is_some());
    }
}

#[test]
fn a_clock_that_goes_back_does_no_harm() {
    let mut model = trained(200);
    for turn in (0..200).rev() {
        let (query, ttft) = load(turn);
        let values = live(&mut model, &query, ttft).quantiles.values();
        assert!(values.iter().all(|value| value.is_finite() && *value > 0.0), "{values:?}");
    }
}

/// A backend that answers in 0.2 s and has little to do.
fn quiet(turn: u32) -> (WaitQuery, f64) {
    let (query, _) = server(f64::from(turn % 7 == 3), 1.0);
    (WaitQuery { now_seconds: 30.0 * f64::from(turn), ..query }, 0.2 * wobble(turn, 0.1))
}

#[test]
fn a_request_that_waits_at_a_quiet_backend_is_no_jam() {
    for outcomes in [1, 20, 200] {
        let mut model = WaitModel::new(WaitConfig::default());
        for turn in 0..outcomes {
            let (query, ttft) = quiet(turn);
            live(&mut model, &query, ttft);
        }
        for waiting in [1.0, 2.0] {
            for query in [server(waiting, 1.0).0, without_tokens(&server(waiting, 1.0).0)] {
                let seconds = model.predict(&query).quantiles.median();
                assert!(seconds < 0.9, "{seconds} with {waiting} waiting after {outcomes} outcomes");
            }
        }
    }
}

#[test]
fn a_quiet_hour_does_not_slow_the_service_that_was_seen_under_load() {
    let mut model = trained(200);
    for turn in 200..320 {
        let (query, ttft) = quiet(turn);
        live(&mut model, &query, ttft);
    }
    let seconds = model.predict(&server(50.0, 40.0).0).quantiles.median();
    assert!((6.0..15.0).contains(&seconds), "{seconds} for 50 waiting at 5 a second");
}

#[test]
fn a_regression_that_misleads_is_not_heard() {
    let mut model = trained(300);
    for turn in 300..390 {
        // Ten times faster at once, without a fit in between.
        let (query, ttft) = load(turn);
        let ticket = model.ask(&query);
        model.observe(&ticket, ttft / 10.0, 1.0, query.now_seconds);
    }
    let ticket = model.ask(&load(390).0);
    let standings = model.standings(&ticket);
    let rate = |expert: WaitExpert| standings[expert as usize].recent_error_seconds.unwrap();
    let best = standings.iter().filter_map(|standing| standing.recent_error_seconds).fold(f64::MAX, f64::min);
    let leader = ticket.forecast().leader.unwrap();
    assert!(rate(leader) < 2.0 * best, "{standings:?}");
}
