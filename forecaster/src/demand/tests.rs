mod young;

use std::f64::consts::TAU;

use proptest::prelude::*;

use super::*;

const SEASON: u32 = 24;

fn config(horizons: &[u32]) -> DemandConfig {
    DemandConfig { grid: Grid { step_seconds: 600, season_steps: SEASON }, horizons: horizons.to_vec() }
}

fn train(horizons: &[u32], series: &[Option<f64>]) -> DemandModel {
    DemandModel::train(&config(horizons), 1000, series).unwrap()
}

fn steps(count: usize, rate: impl Fn(i64) -> f64) -> Vec<Option<f64>> {
    (0..count as i64).map(|i| Some(rate(1000 + i))).collect()
}

/// A daily wave with a little unrest that repeats with no season.
fn wave(step: i64) -> f64 {
    let phase = TAU * step as f64 / f64::from(SEASON);
    100.0 - 60.0 * phase.cos() + 4.0 * (step as f64 * 1.7).sin()
}

/// Rises through the season and falls back at its end.
fn ramp(step: i64) -> f64 {
    10.0 + step.rem_euclid(i64::from(SEASON)) as f64
}

fn assert_lawful(forecast: &DemandForecast) {
    for point in &forecast.points {
        let values = point.quantiles.values();
        assert!(values.iter().all(|value| value.is_finite() && *value >= 0.0), "{point:?}");
        assert!(values.is_sorted(), "{point:?}");
        assert!(point.error_ratio.is_none_or(|ratio| ratio.is_finite() && ratio >= 0.0), "{point:?}");
    }
}

/// The recent error of the issued medians, for each horizon.
fn ratios(model: &DemandModel) -> Vec<f64> {
    model.forecast().points.iter().map(|point| point.error_ratio.unwrap()).collect()
}

#[test]
fn forecasts_the_future_and_not_the_present() {
    let horizons = [1, 3, 6, 10];
    let mut model = train(&horizons, &steps(8 * SEASON as usize, ramp));
    for _ in 0..SEASON {
        let step = model.newest_step() + 1;
        model.observe(step, Some(ramp(step)));
        let forecast = model.forecast();
        assert_eq!(forecast.origin_step, step);
        for point in &forecast.points {
            let (then, now) = (ramp(step + i64::from(point.horizon_steps)), ramp(step));
            let median = point.quantiles.median();
            let (ahead, behind) = ((median - then).abs(), (median - now).abs());
            assert!(ahead < behind, "step {step}: {median} for {then}, now {now}: {point:?}");
        }
    }
}

#[test]
fn both_baselines_are_beaten_where_there_is_something_to_learn() {
    // The level moves from day to day, so the season before is off, and the last value lags the wave.
    let drift = |step: i64| wave(step) * (1.0 + 0.5 * (step as f64 / 61.0).sin());
    let mut model = train(&[3], &steps(12 * SEASON as usize, drift));
    let champion = model.forecast().points[0].expert;
    let baselines = [Expert::LastValue, Expert::SeasonalNaive];
    assert!(!baselines.contains(&champion), "{champion:?} carries the first forecast");

    let (mut errors, mut demand) = ([0.0; 3], 0.0);
    for _ in 0..3 * SEASON {
        let step = model.newest_step() + 1;
        model.observe(step, Some(drift(step)));
        let target = step + 3;
        let median = model.forecast().points[0].quantiles.median();
        for (sum, guess) in errors.iter_mut().zip([median, drift(step), drift(target - i64::from(SEASON))]) {
            *sum += (drift(target) - guess).abs();
        }
        demand += drift(target);
    }
    let [chosen, last_value, seasonal_naive] = errors.map(|sum| sum / demand);
    assert!(chosen < 0.5 * last_value.min(seasonal_naive), "{chosen} {last_value} {seasonal_naive}");
    assert!((ratios(&model)[0] - chosen).abs() < 0.02, "{:?} reported, {chosen} measured", ratios(&model));
}

#[test]
fn nothing_is_lost_where_there_is_nothing_to_learn() {
    let mut state = 7_u64;
    let mut level = 100.0;
    let walk = (0..10 * SEASON).map(|_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        level = (level + (state >> 33) as f64 / f64::from(1_u32 << 31) * 10.0 - 5.0).max(10.0);
        Some(level)
    });
    let series: Vec<_> = walk.collect();
    let last = series[series.len() - 1].unwrap();
    let point = train(&[1], &series).forecast().points.remove(0);
    assert!((point.quantiles.median() - last).abs() < 10.0, "{point:?} after {last}");
    assert!(point.error_ratio.unwrap() < 0.06, "{point:?}");
}

#[test]
fn three_points_are_enough_for_a_forecast() {
    let forecast = train(&[1, 6], &[Some(5.0), None, Some(7.0)]).forecast();
    for point in &forecast.points {
        assert_eq!((point.expert, point.quantiles.median()), (Expert::LastValue, 7.0));
        assert!(point.quantiles.q10() < 7.0 && point.quantiles.q99() > 10.0, "few residuals, wide bounds");
    }
    assert_lawful(&forecast);
}

#[test]
fn nothing_observed_is_a_forecast_of_zero() {
    for series in [vec![], vec![None; 500], vec![Some(0.0); 500]] {
        let mut model = train(&[1, 6], &series);
        assert_eq!(model.newest_step(), 999 + series.len() as i64);
        model.refit();
        for point in model.forecast().points {
            assert_eq!(point.quantiles.values(), [0.0; 5]);
            assert_eq!(point.error_ratio, None);
        }
    }
}

#[test]
fn a_constant_stays_constant() {
    for rate in [42.0, 42.37, 1_000_001.0, 1e-5] {
        let forecast = train(&[1, 6], &steps(200, |_| rate)).forecast();
        for point in &forecast.points {
            for value in point.quantiles.values() {
                assert!((value / rate - 1.0).abs() < 1e-6, "{point:?}");
            }
        }
    }
}

#[test]
fn follows_a_new_level_within_a_few_steps() {
    let mut model = train(&[1], &steps(8 * SEASON as usize, wave));
    for _ in 0..6 {
        let step = model.newest_step() + 1;
        model.observe(step, Some(5.0 * wave(step)));
    }
    let next = 5.0 * wave(model.newest_step() + 1);
    let quantiles = model.forecast().points[0].quantiles;
    assert!((quantiles.median() / next - 1.0).abs() < 0.5, "{quantiles:?} for {next}");
    assert!(quantiles.q99() > next);
}

#[test]
fn bursts_leave_the_median_alone() {
    let mut series = steps(8 * SEASON as usize, wave);
    for index in [50, 100, 150] {
        series[index] = Some(1e9);
    }
    let forecast = train(&[1, 3], &series).forecast();
    assert_lawful(&forecast);
    for point in &forecast.points {
        let next = wave(forecast.origin_step + i64::from(point.horizon_steps));
        assert!((point.quantiles.median() / next - 1.0).abs() < 0.5, "{point:?} for {next}");
    }
}

#[test]
fn bounds_hold_what_they_promise() {
    // Also where hardly anything is left to be unsure of.
    for (noise, most_off) in [(0.2, 0.08), (0.001, 0.08)] {
        assert_bounds_hold(
            |step| wave(step) * (1.0 + noise * ((step * step) as f64 * 0.618).sin()),
            most_off,
        );
    }
}

fn assert_bounds_hold(noisy: impl Fn(i64) -> f64, most_off: f64) {
    let mut model = train(&[1, 6], &steps(8 * SEASON as usize, &noisy));
    let (mut below, mut count) = ([0.0; 5], 0.0);
    for _ in 0..300 {
        let step = model.newest_step() + 1;
        model.observe(step, Some(noisy(step)));
        for point in model.forecast().points {
            let actual = noisy(step + i64::from(point.horizon_steps));
            for (sum, bound) in below.iter_mut().zip(point.quantiles.values()) {
                *sum += f64::from(actual <= bound);
            }
            count += 1.0;
        }
    }
    for (share, level) in below.map(|sum| sum / count).into_iter().zip(crate::QUANTILES) {
        assert!((share - level).abs() < most_off, "{share} of outcomes below the {level} quantile");
    }
}

#[test]
fn a_gap_is_bridged_by_the_season() {
    let mut model = train(&[1], &steps(8 * SEASON as usize, ramp));
    let step = model.newest_step() + 9;
    model.observe(step, None);
    assert_eq!(model.newest_step(), step);
    let median = model.forecast().points[0].quantiles.median();
    assert!((median - ramp(step + 1)).abs() < 1.0, "{median} for {}", ramp(step + 1));
}

#[test]
fn a_gap_longer_than_the_history_starts_anew() {
    let mut model = train(&[1, 6], &steps(8 * SEASON as usize, ramp));
    let step = model.newest_step() + 1_000_000_000;
    model.observe(step, Some(3.0));
    assert_eq!(model.newest_step(), step);
    model.refit();
    let forecast = model.forecast();
    assert_lawful(&forecast);
    assert!(forecast.points.iter().all(|point| point.quantiles.median() == 3.0), "{forecast:?}");
}

#[test]
fn the_past_is_not_rewritten() {
    let mut model = train(&[1], &steps(100, wave));
    let before = model.clone();
    for step in [model.newest_step(), 5, i64::MIN, i64::MAX] {
        model.observe(step, Some(1e6));
    }
    assert_eq!(model, before);
}

#[test]
fn what_no_rate_can_be_is_unknown_or_zero() {
    let with = |value| train(&[1], &[Some(4.0), value]).forecast().points[0].quantiles.median();
    assert_eq!(with(Some(f64::NAN)), 4.0);
    assert_eq!(with(Some(f64::INFINITY)), 4.0);
    assert_eq!(with(Some(-3.0)), 0.0);
}

#[test]
fn memory_does_not_grow_with_age() {
    let mut model = train(&[1, 6], &steps(1000, wave));
    let size = |model: &DemandModel| serde_json::to_string(model).unwrap().len();
    let mut grow = |steps: std::ops::Range<i64>| {
        steps.for_each(|step| model.observe(step, Some(wave(step))));
        size(&model)
    };
    let (before, after) = (grow(2000..4000), grow(4000..6000));
    assert!(after < before + before / 20, "{after} after {before}");
    assert_eq!(model.history.len() as u32, model.config().history_steps());
}

#[test]
fn between_two_horizons_lies_what_is_between_their_forecasts() {
    let forecast = train(&[2, 6], &steps(8 * SEASON as usize, ramp)).forecast();
    let (early, late) = (forecast.points[0].quantiles, forecast.points[1].quantiles);
    assert_eq!(forecast.at(0.0), Some(early));
    assert_eq!(forecast.at(2.0), Some(early));
    assert_eq!(forecast.at(4.0), Some(early.between(&late, 0.5)));
    assert_eq!(forecast.at(60.0), Some(late));
}

#[test]
fn a_saved_model_goes_on_as_if_it_had_not_been_saved() {
    let mut model = train(&[1, 6], &steps(8 * SEASON as usize + 5, wave));
    let saved = serde_json::to_string(&model).unwrap();
    let mut resumed: DemandModel = serde_json::from_str(&saved).unwrap();
    assert_eq!(serde_json::to_string(&resumed).unwrap(), saved);
    for turn in 0..80 {
        let step = model.newest_step() + 1 + turn % 3;
        for model in [&mut model, &mut resumed] {
            model.observe(step, (turn % 7 != 0).then(|| wave(step) * 1.3));
            if turn == 40 {
                model.refit();
            }
        }
    }
    let json = |model: &DemandModel| serde_json::to_string(&(model, model.forecast())).unwrap();
    assert_eq!(json(&model), json(&resumed));
    assert!(ratios(&model).iter().all(|ratio| *ratio < 1.0));
}

#[test]
fn one_that_was_silent_until_now_goes_on_with_the_fleet_as_it_was() {
    let fleet = Arc::new(FleetFit::fit([&train(&[1], &steps(8 * SEASON as usize, wave))]).unwrap());
    let mut model = train(&[1], &steps(3 * SEASON as usize, |_| 0.0));
    model.adopt(&fleet);
    let step = model.newest_step() + 1;
    model.observe(step, Some(30.0));
    let saved = serde_json::to_string(&model).unwrap();
    let mut resumed: DemandModel = serde_json::from_str(&saved).unwrap();
    resumed.resume(&fleet);
    for step in step + 1..step + 60 {
        model.observe(step, Some(wave(step)));
        resumed.observe(step, Some(wave(step)));
        assert_eq!(model.forecast(), resumed.forecast(), "after step {step}");
    }
}

#[test]
fn refuses_states_it_cannot_read() {
    let model = train(&[1, 6], &steps(100, wave));
    let refused = |from: &str, to: &str| {
        let text = serde_json::to_string(&model).unwrap();
        assert!(text.contains(from), "{from} in {text}");
        serde_json::from_str::<DemandModel>(&text.replacen(from, to, 1)).unwrap_err().to_string()
    };
    let message = refused("\"version\":4", "\"version\":5");
    assert!(message.contains("state version 5: this library reads 4"), "{message}");
    assert!(refused("\"season_steps\":24", "\"season_steps\":0").contains("season of 0 steps"));
    assert!(refused("\"horizons\":[1,6]", "\"horizons\":[1,5]").contains("inconsistent"));
    assert!(refused("\"season\":24", "\"season\":23").contains("inconsistent"));
}

#[test]
fn refuses_configurations_that_make_no_sense() {
    let refused = |step_seconds, season_steps, horizons: &[u32]| {
        let grid = Grid { step_seconds, season_steps };
        DemandModel::train(&DemandConfig { grid, horizons: horizons.to_vec() }, 0, &[]).unwrap_err()
    };
    assert_eq!(refused(0, 24, &[1]), Error::StepSeconds(0));
    assert_eq!(refused(60, 0, &[1]), Error::SeasonSteps { found: 0, max: 21_845 });
    assert_eq!(refused(60, 24, &[]), Error::HorizonCount { found: 0, max: 64 });
    assert_eq!(refused(60, 24, &[0]), Error::Horizon { found: 0, max: 256 });
    assert_eq!(refused(60, 24, &[3, 3]), Error::Horizon { found: 3, max: 256 });
    assert_eq!(refused(60, 24, &[257]), Error::Horizon { found: 257, max: 256 });
    let far = DemandModel::train(&config(&[1]), i64::MAX, &[None]).unwrap_err();
    assert_eq!(far, Error::StepRange(i64::MAX));
}

#[test]
fn an_expert_that_breaks_is_demoted_within_three_outcomes() {
    let drift = |step: i64| wave(step) * (1.0 + 0.5 * (step as f64 / 61.0).sin());
    let mut model = train(&[1], &steps(12 * SEASON as usize, drift));
    let regression = |model: &DemandModel| {
        let standing = model.standings().remove(0);
        let place =
            standing.experts.iter().position(|standing| standing.expert == Expert::Regression).unwrap();
        (place, standing.experts[place].weight)
    };
    let (place, before) = regression(&model);
    assert!(place < 3 && before > 0.1, "a good expert at first: place {place}, weight {before}");
    for _ in 0..4 {
        // Three times too high; said of the next step, and scored when that comes.
        model.tracks[0].regression_mut().unwrap().lift(1.5);
        let step = model.newest_step() + 1;
        model.observe(step, Some(drift(step)));
    }
    let (place, after) = regression(&model);
    assert!(place > 5 && after < 0.02, "place {place}, weight {after} after {before}");
    let step = model.newest_step() + 1;
    let median = model.forecast().points[0].quantiles.median();
    assert!((median / drift(step) - 1.0).abs() < 0.3, "{median} for {}", drift(step));
}

fn rate() -> impl Strategy<Value = Option<f64>> {
    prop_oneof![
        6 => (0.0..1000.0).prop_map(Some),
        2 => Just(Some(0.0)),
        2 => Just(None),
        1 => prop::num::f64::ANY.prop_map(Some),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_series_gives_lawful_forecasts(
        season in 1_u32..30,
        step_seconds in prop_oneof![Just(600_u32), Just(900), Just(10), Just(3600)],
        first_step in prop_oneof![Just(0_i64), -500_i64..500, Just(170_000_000)],
        history in prop::collection::vec(rate(), 0..400),
        later in prop::collection::vec((1_i64..40, rate()), 0..40),
    ) {
        let grid = Grid { step_seconds, season_steps: season };
        let config = DemandConfig { grid, horizons: vec![1, 2, 7, 40] };
        let mut model = DemandModel::train(&config, first_step, &history).unwrap();
        assert_lawful(&model.forecast());
        for (ahead, value) in later {
            model.observe(model.newest_step() + ahead, value);
            assert_lawful(&model.forecast());
        }
        model.refit();
        assert_lawful(&model.forecast());
        let saved = serde_json::to_string(&model).unwrap();
        prop_assert_eq!(serde_json::from_str::<DemandModel>(&saved).unwrap(), model);
    }
}
