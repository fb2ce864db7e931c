//! Trains a forecaster on a week of made-up demand and prints what comes next.
//!
//! `cargo run --release -p clairvoy-forecaster --example demand`

use clairvoy_forecaster::{DemandConfig, DemandForecaster, Error, Grid};

fn main() -> Result<(), Error> {
    // Minutes, a daily season: a working day with a burst on the hour.
    let grid = Grid { step_seconds: 60, season_steps: 1440 };
    let config = DemandConfig { grid, horizons: vec![1, 5, 10, 30, 60, 360, 1440] };
    let rate = |step: i64| {
        let day = (std::f64::consts::TAU * step as f64 / 1440.0).sin();
        let burst = if step.rem_euclid(60) < 5 { 12.0 } else { 0.0 };
        Some(40.0 + 25.0 * day + burst)
    };
    let first_step = 1_700_000_000 / 60;
    let history: Vec<Option<f64>> = (first_step..first_step + 7 * 1440).map(rate).collect();
    let forecaster = DemandForecaster::train(&config, first_step, &history)?;

    println!("ahead      came   median      90 %      99 %  carried by");
    for point in forecaster.forecast().points {
        let target = point.target_step..point.target_step + i64::from(point.target_steps);
        let came = target.filter_map(rate).sum::<f64>() / f64::from(point.target_steps);
        let quantiles = point.quantiles;
        println!(
            "{:>4} min  {came:>7.2}  {:>7.2}  {:>8.2}  {:>8.2}  {}",
            point.horizon_steps,
            quantiles.median(),
            quantiles.q90(),
            quantiles.q99(),
            point.expert.name()
        );
    }
    Ok(())
}
