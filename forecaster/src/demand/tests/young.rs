//! The first season of a series, before its pattern is known.

use proptest::prelude::*;

use super::*;

const DAY: u32 = 144;

fn config() -> DemandConfig {
    DemandConfig { grid: Grid { step_seconds: 600, season_steps: DAY }, horizons: vec![1, 2, 3, 6, 36] }
}

fn young(values: impl IntoIterator<Item = Option<f64>>) -> DemandModel {
    let values: Vec<_> = values.into_iter().collect();
    DemandModel::train(&config(), 0, &values).unwrap()
}

/// A slow climb, and a pattern of an hour.
fn hourly(step: i64) -> f64 {
    20.0 + 0.1 * step as f64 + 15.0 * f64::from(u8::from(step.rem_euclid(6) == 0))
}

#[test]
fn weights_are_those_of_the_median_and_sum_to_one() {
    for count in [3, 20, 60, 140, 200] {
        let model = young((0..count).map(|step| Some(hourly(step))));
        for (standing, point) in model.standings().into_iter().zip(model.forecast().points) {
            let total: f64 = standing.experts.iter().map(|standing| standing.weight).sum();
            assert!(standing.experts.is_empty() || (total - 1.0).abs() < 1e-9, "{count} steps: {standing:?}");
            let heaviest = standing.experts.first().map(|standing| standing.expert);
            let carried = standing.gate.or(heaviest);
            assert!(
                carried.is_none_or(|expert| expert == point.expert),
                "{count} steps: {standing:?} {point:?}"
            );
        }
    }
}

#[test]
fn a_pattern_within_the_hour_is_found_on_the_first_day() {
    let mut model = young((0..72).map(|step| Some(hourly(step))));
    let (mut missed, mut stood) = (0.0, 0.0);
    for step in 72..140 {
        model.observe(step, Some(hourly(step)));
        let point = model.forecast().points[2].clone();
        missed += (point.quantiles.median() - hourly(step + 3)).abs();
        stood += (hourly(step) - hourly(step + 3)).abs();
    }
    assert!(missed < 0.35 * stood, "missed {missed}, the last value {stood}");
}

#[test]
fn a_burst_on_the_first_day_passes() {
    let rate = |step: i64| if step == 60 { 1e6 } else { 10.0 + (step as f64).sin() };
    let mut model = young((0..60).map(|step| Some(rate(step))));
    for step in 60..75 {
        model.observe(step, Some(rate(step)));
        super::assert_lawful(&model.forecast());
    }
    let median = model.forecast().points[0].quantiles.median();
    assert!((5.0..20.0).contains(&median), "{median}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn any_first_day_gives_lawful_forecasts_and_resumes(
        history in prop::collection::vec(super::rate(), 10..150),
        later in prop::collection::vec((1_i64..30, super::rate()), 0..30),
    ) {
        let mut model = young(history);
        super::assert_lawful(&model.forecast());
        let saved = serde_json::to_string(&model).unwrap();
        let mut resumed: DemandModel = serde_json::from_str(&saved).unwrap();
        for (ahead, value) in later {
            for model in [&mut model, &mut resumed] {
                model.observe(model.newest_step() + ahead, value);
                super::assert_lawful(&model.forecast());
            }
        }
        prop_assert_eq!(&model, &resumed);
    }

    #[test]
    fn other_units_give_the_same_forecast(exponent in -18_i32..18, noise in prop::collection::vec(0.5_f64..1.5, 90)) {
        let unit = 2_f64.powi(exponent);
        let values = |unit: f64| noise.iter().zip(0..).map(move |(noise, step)| Some(unit * noise * hourly(step)));
        let (one, other) = (young(values(1.0)).forecast(), young(values(unit)).forecast());
        for (one, other) in one.points.iter().zip(&other.points) {
            for (one, other) in one.quantiles.values().into_iter().zip(other.quantiles.values()) {
                prop_assert!((other / unit - one).abs() < 0.02 * one.abs() + 0.02, "{} {one}", other / unit);
            }
        }
    }
}
