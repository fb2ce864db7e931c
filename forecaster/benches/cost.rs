//! What it costs to observe, to forecast and to fit, on one core: `cargo xtask bench cost`.

#[path = "forecast/figures.rs"]
mod figures;
#[path = "forecast/machine.rs"]
#[expect(dead_code, reason = "the other benchmark needs more of it")]
mod machine;
#[path = "forecast/options.rs"]
mod options;

use std::hint::black_box;

use anyhow::Result;
use clairvoy_forecaster::{
    DemandConfig, DemandForecaster, Grid, WaitConfig, WaitModel, WaitQuery, WaitState, WaitTicket,
};
use clap::Parser;
use criterion::Criterion;

use self::figures::{Measured, Section};
use self::options::Options;

/// Measures what it costs to observe, to forecast and to fit, on one core.
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    options: Options,
}

/// Steps of history, a fortnight of ten minutes.
const STEPS: usize = 2016;

const MEASURED: [Measured; 9] = [
    (TEN_MINUTES, REFIT, "six horizons from 10 min to a day, two weeks of 10 min: refit", Some(0.25)),
    (TEN_MINUTES, STEP, "the same: observe and forecast", Some(200e-6)),
    (FIRST_DAY, STEP, "the same on its first day: observe and forecast", Some(200e-6)),
    (MINUTES, REFIT, "the default, seven horizons on two grids, all history that is kept: refit", None),
    (MINUTES, STEP, "the same: observe and forecast", None),
    (FIRST_MINUTES, STEP, "the same on its first day: observe and forecast", None),
    (WAITS, "predict", "wait of a backend: predict", Some(20e-6)),
    (WAITS, "observe", "wait of a backend: observe", Some(20e-6)),
    (WAITS, REFIT, "wait of a backend: refit", Some(10e-3)),
];
const TEN_MINUTES: &str = "ten_minutes";
const FIRST_DAY: &str = "ten_minutes_first_day";
const MINUTES: &str = "minutes";
const FIRST_MINUTES: &str = "minutes_first_day";
const WAITS: &str = "waits";
const REFIT: &str = "refit";
const STEP: &str = "observe_and_forecast";

fn main() -> Result<()> {
    let section = Section {
        heading: "What forecasts cost",
        bench: "cost",
        unit: "",
        measured: &MEASURED,
        time,
        goal: time,
    };
    Args::parse().options.run(&section, |criterion| {
        let ten_minutes = Grid { step_seconds: 600, season_steps: 144 };
        let config = DemandConfig { grid: ten_minutes, horizons: vec![1, 2, 3, 6, 36, 144] };
        demand(criterion, TEN_MINUTES, &config, STEPS)?;
        first_day(criterion, FIRST_DAY, &config)?;
        // As the program has it unless it is told otherwise.
        let minute = Grid { step_seconds: 60, season_steps: 1440 };
        let config = DemandConfig { grid: minute, horizons: vec![1, 5, 10, 30, 60, 360, 1440] };
        demand(criterion, MINUTES, &config, DemandForecaster::history_steps(&config)? as usize)?;
        first_day(criterion, FIRST_MINUTES, &config)?;
        waits(criterion);
        Ok(())
    })
}

fn time(seconds: f64) -> String {
    match seconds {
        seconds if seconds >= 1e-3 => format!("{:.3} ms", 1e3 * seconds),
        seconds => format!("{:.1} µs", 1e6 * seconds),
    }
}

/// A day's wave with a burst on every hour and noise that is the same in every run.
fn rate(step: i64, season_steps: u32) -> Option<f64> {
    let season = f64::from(season_steps);
    let wave = 40.0 + 25.0 * (std::f64::consts::TAU * step as f64 / season).sin();
    let burst = if step.rem_euclid(i64::from(season_steps / 24)) == 0 { 12.0 } else { 0.0 };
    let noise = (step.wrapping_mul(2_654_435_761) >> 7).rem_euclid(1000) as f64 / 200.0;
    Some(wave + burst + noise)
}

fn demand(criterion: &mut Criterion, name: &str, config: &DemandConfig, steps: usize) -> Result<()> {
    let season = config.grid.season_steps;
    let history: Vec<_> = (0..steps as i64).map(|step| rate(step, season)).collect();
    let mut model = DemandForecaster::train(config, 0, &history)?;
    let mut group = criterion.benchmark_group(name);
    group.bench_function(REFIT, |bencher| {
        bencher.iter(|| model.refit());
    });
    group.bench_function(STEP, |bencher| {
        bencher.iter(|| {
            let step = model.newest_step() + 1;
            model.observe(step, rate(step, season));
            black_box(model.forecast())
        });
    });
    group.finish();
    Ok(())
}

/// A series that has been known for half a day: from there to its first whole day, again and again.
fn first_day(criterion: &mut Criterion, name: &str, config: &DemandConfig) -> Result<()> {
    let season = config.grid.season_steps;
    let half = i64::from(season / 2);
    let history: Vec<_> = (0..half).map(|step| rate(step, season)).collect();
    let young = DemandForecaster::train(config, 0, &history)?;
    let mut model = young.clone();
    let mut group = criterion.benchmark_group(name);
    group.bench_function(STEP, |bencher| {
        bencher.iter(|| {
            let step = model.newest_step() + 1;
            if step >= 2 * half - 1 {
                model = young.clone();
                return black_box(model.forecast());
            }
            model.observe(step, rate(step, season));
            black_box(model.forecast())
        });
    });
    group.finish();
    Ok(())
}

/// A backend whose queue comes and goes: the question at a turn, and its outcome in seconds.
fn arrival(turn: u32) -> (WaitQuery, f64) {
    let waiting = (10.0 + 10.0 * (f64::from(turn) * 0.9).sin()).round();
    let running = 32.0 + 31.0 * (f64::from(turn) * 0.37).cos();
    let state = WaitState {
        waiting: Some(waiting),
        waiting_prompt_tokens: Some(400.0 * waiting),
        running: Some(running),
        kv_used: Some(running / 64.0),
        inter_token_seconds: Some(0.02 + 0.0005 * running),
        recent_ttft_seconds: Some(0.3 + 0.1 * waiting),
        ..WaitState::default()
    };
    let now_seconds = f64::from(turn);
    let query = WaitQuery { state, now_seconds, prompt_tokens: Some(400.0), ..WaitQuery::default() };
    (query, (0.2 + 0.2 * waiting) * (1.0 + 0.2 * (f64::from(turn) * 2.3).sin()))
}

fn waits(criterion: &mut Criterion) {
    let mut model = WaitModel::new(WaitConfig::default());
    for turn in 0..3000 {
        let (query, seconds) = arrival(turn);
        let ticket = model.ask(&query);
        model.observe(&ticket, seconds, 1.0, query.now_seconds);
    }
    model.refit();
    let mut group = criterion.benchmark_group(WAITS);
    let mut turn = 3000;
    let mut next = || {
        turn = (turn + 1) % 10_000;
        arrival(turn)
    };
    group.bench_function("predict", |bencher| {
        bencher.iter_batched(&mut next, |(query, _)| model.predict(&query), criterion::BatchSize::SmallInput);
    });
    let asked: Vec<(WaitTicket, f64, f64)> = (3000..4000)
        .map(|turn| {
            let (query, seconds) = arrival(turn);
            (model.ask(&query), seconds, query.now_seconds)
        })
        .collect();
    let mut outcomes = asked.iter().cycle();
    group.bench_function("observe", |bencher| {
        bencher.iter(|| {
            if let Some((ticket, seconds, now)) = outcomes.next() {
                model.observe(ticket, *seconds, 1.0, *now);
            }
        });
    });
    group.bench_function(REFIT, |bencher| bencher.iter(|| model.refit()));
    group.finish();
}
