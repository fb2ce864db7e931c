//! What it costs to observe, to forecast and to fit, on one core: `cargo xtask bench cost`.
//!
//! Goals stand in the names.

use std::hint::black_box;
use std::time::Duration;

use anyhow::Result;
use clairvoy_forecaster::{
    DemandConfig, DemandForecaster, Grid, WaitConfig, WaitModel, WaitQuery, WaitState, WaitTicket,
};
use criterion::Criterion;

/// Steps of history, a fortnight of ten minutes.
const STEPS: usize = 2016;

fn main() -> Result<()> {
    let mut criterion =
        Criterion::default().measurement_time(Duration::from_secs(5)).sample_size(20).configure_from_args();
    let ten_minutes = Grid { step_seconds: 600, season_steps: 144 };
    let config = DemandConfig { grid: ten_minutes, horizons: vec![1, 2, 3, 6, 36, 144] };
    let goals = [" (goal 250 ms)", " (goal 200 us)"];
    demand(&mut criterion, "demand, 10 min", &config, STEPS, goals)?;
    // As the program has it unless it is told otherwise, with all the history that is kept.
    let minute = Grid { step_seconds: 60, season_steps: 1440 };
    let config = DemandConfig { grid: minute, horizons: vec![1, 5, 10, 30, 60, 360, 1440] };
    let steps = DemandForecaster::history_steps(&config)? as usize;
    demand(&mut criterion, "demand, 1 min", &config, steps, ["", ""])?;
    waits(&mut criterion);
    criterion.final_summary();
    Ok(())
}

/// A day's wave with a burst on every hour and noise that is the same in every run.
fn rate(step: i64, season_steps: u32) -> Option<f64> {
    let season = f64::from(season_steps);
    let wave = 40.0 + 25.0 * (std::f64::consts::TAU * step as f64 / season).sin();
    let burst = if step.rem_euclid(i64::from(season_steps / 24)) == 0 { 12.0 } else { 0.0 };
    let noise = (step.wrapping_mul(2_654_435_761) >> 7).rem_euclid(1000) as f64 / 200.0;
    Some(wave + burst + noise)
}

fn demand(
    criterion: &mut Criterion,
    name: &str,
    config: &DemandConfig,
    steps: usize,
    [fit_goal, step_goal]: [&str; 2],
) -> Result<()> {
    let season = config.grid.season_steps;
    let history: Vec<_> = (0..steps as i64).map(|step| rate(step, season)).collect();
    let mut model = DemandForecaster::train(config, 0, &history)?;
    let mut group = criterion.benchmark_group(name);
    group.bench_function(format!("refit of all horizons{fit_goal}"), |bencher| {
        bencher.iter(|| model.refit());
    });
    group.bench_function(format!("observe and forecast all horizons{step_goal}"), |bencher| {
        bencher.iter(|| {
            let step = model.newest_step() + 1;
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
    let mut group = criterion.benchmark_group("waits");
    let mut turn = 3000;
    let mut next = || {
        turn = (turn + 1) % 10_000;
        arrival(turn)
    };
    group.bench_function("predict (goal 20 us)", |bencher| {
        bencher.iter_batched(&mut next, |(query, _)| model.predict(&query), criterion::BatchSize::SmallInput);
    });
    let asked: Vec<(WaitTicket, f64, f64)> = (3000..4000)
        .map(|turn| {
            let (query, seconds) = arrival(turn);
            (model.ask(&query), seconds, query.now_seconds)
        })
        .collect();
    let mut outcomes = asked.iter().cycle();
    group.bench_function("observe (goal 20 us)", |bencher| {
        bencher.iter(|| {
            if let Some((ticket, seconds, now)) = outcomes.next() {
                model.observe(ticket, *seconds, 1.0, *now);
            }
        });
    });
    group.bench_function("refit (goal 10 ms)", |bencher| bencher.iter(|| model.refit()));
    group.finish();
}
