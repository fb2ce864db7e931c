use super::*;

/// A server that works off 4 requests a second, and gets between 1 and 7.
fn record(rows: u32) -> Vec<WaitRow> {
    let (mut now, mut free_at) = (0.0_f64, 0.0_f64);
    let rows = (0..rows).map(|turn| {
        let phase = f64::from(turn) * 0.01;
        now += 0.15 + 0.13 * phase.sin() + 0.05 * (f64::from(turn) * 1.3).sin();
        let prompt_tokens = 600.0 + 500.0 * (f64::from(turn) * 0.7).sin();
        let backlog = (free_at - now).max(0.0);
        let (waiting, ttft) = ((4.0 * backlog).floor(), backlog + prompt_tokens / 2400.0);
        let ttft = ttft * wobble(turn * turn, 0.2);
        free_at = now + ttft;
        let state = WaitState {
            waiting: Some(waiting),
            waiting_prompt_tokens: Some(2400.0 * backlog),
            running: Some(8.0),
            inter_token_seconds: Some(0.02),
            ..WaitState::default()
        };
        WaitRow { at_seconds: now, state, prompt_tokens, ttft_seconds: ttft }
    });
    rows.collect()
}

fn backtest(view: WaitView, age_seconds: f64) -> WaitBacktest {
    WaitBacktest { view, age_seconds, config: WaitConfig::default() }
}

#[test]
fn the_model_beats_both_baselines_in_both_views() {
    let rows = record(2000);
    let alone = |said: Vec<f64>| said.into_iter().map(|value| (value, value)).collect::<Vec<_>>();
    for age_seconds in [0.0, 1.0, 5.0] {
        let last = score_waits(&rows, &alone(last_observed_waits(&rows))).unwrap();
        let little = score_waits(&rows, &alone(little_waits(&rows, age_seconds))).unwrap();
        for view in [WaitView::Router, WaitView::ControlPlane] {
            let said: Vec<(f64, f64)> =
                backtest_waits(&rows, &backtest(view, age_seconds)).iter().map(Into::into).collect();
            let own = score_waits(&rows, &said).unwrap();
            assert!(
                own.wape < 0.8 * last.wape.min(little.wape),
                "{view:?} {age_seconds}: {own:?} {last:?} {little:?}"
            );
            assert!((0.84..=0.96).contains(&own.coverage), "{view:?} {age_seconds}: {own:?}");
        }
    }
}

#[test]
fn scores_are_those_of_the_definitions() {
    let row = |ttft_seconds| WaitRow { ttft_seconds, ..WaitRow::default() };
    let rows: Vec<WaitRow> = [9.0, 9.0, 1.0, 2.0, 3.0].map(row).into();
    let said = [(0.0, 0.0), (0.0, 0.0), (1.0, 2.0), (1.0, 1.5), (4.0, 3.0)];
    let score = score_waits(&rows, &said).unwrap();
    assert!((score.wape - 2.0 / 6.0).abs() < 1e-12);
    // Ranks 1.5, 1.5, 3 against 1, 2, 3.
    assert!((score.spearman - 1.5 / (1.5_f64 * 2.0).sqrt()).abs() < 1e-12, "{}", score.spearman);
    assert!((score.coverage - 2.0 / 3.0).abs() < 1e-12);
    assert_eq!(score_waits(&rows, &said[1..]), None);
}

#[test]
fn a_control_plane_does_not_see_what_a_router_does() {
    let rows = record(400);
    let blind: Vec<WaitRow> = rows
        .iter()
        .map(|row| {
            let state = WaitState { waiting_prompt_tokens: Some(1e6), ..row.state };
            WaitRow { state, prompt_tokens: 7.0, ..*row }
        })
        .collect();
    for age_seconds in [0.0, 1.0] {
        let backtest = backtest(WaitView::ControlPlane, age_seconds);
        assert_eq!(backtest_waits(&rows, &backtest), backtest_waits(&blind, &backtest));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Everything that comes after a row is noise: nothing is said otherwise up to it.
    #[test]
    fn nothing_is_known_before_it_happened(
        cut in 50_usize..350,
        noise in prop::collection::vec((0.0..100.0_f64, 0.0..100.0_f64, 1.0..9000.0_f64), 400),
        age_seconds in prop_oneof![Just(0.0), Just(1.0), Just(5.0)],
        router in any::<bool>(),
    ) {
        let rows = record(400);
        let now = rows[cut].at_seconds;
        let other: Vec<WaitRow> = rows.iter().zip(&noise).enumerate().map(|(index, (row, noise))| {
            let state = WaitState { waiting: Some(noise.0), waiting_prompt_tokens: Some(noise.1), ..row.state };
            let late = WaitRow { ttft_seconds: now - row.at_seconds + 0.001 + noise.1, ..*row };
            match index {
                _ if index > cut => WaitRow { state, prompt_tokens: noise.2, ttft_seconds: noise.1, ..*row },
                // Its first token has not come yet.
                _ if row.at_seconds + row.ttft_seconds > now => late,
                _ => *row,
            }
        }).collect();
        let view = if router { WaitView::Router } else { WaitView::ControlPlane };
        let backtest = backtest(view, age_seconds);
        prop_assert_eq!(&backtest_waits(&rows, &backtest)[..=cut], &backtest_waits(&other, &backtest)[..=cut]);
    }
}
