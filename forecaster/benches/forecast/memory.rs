//! How much memory a trained series takes.

use std::hint::black_box;

use anyhow::Result;
use clairvoy_forecaster::{DemandConfig, DemandForecaster, DemandModel, Grid, Series};

use crate::goals::{Goal, Goals};
use crate::{demand, machine};

/// Bytes that a series may take: 10,000 series in 1 GB.
const GOAL: Goal = Goal::AtMost(100_000.0);

/// Minutes of a ten-minute step.
const STEP_MINUTES: usize = 10;

/// Trains models on the series in turn and returns the table. To be called before anything else has used memory that
/// the process then holds free.
pub(crate) fn table(series: &[Series], models: usize, goals: &mut Goals) -> Result<String> {
    let mut text = format!("{INTRODUCTION}\n");
    let coarse = demand::config();
    let train = |values: &[Option<f64>]| -> Result<DemandModel> {
        let mut model = DemandModel::train(&coarse, 0, &[])?;
        (0..).zip(values).for_each(|(step, value)| model.observe(step, *value));
        model.refit();
        Ok(model)
    };
    // Kept until the end: the next ones would else live in its memory.
    let (tens, bytes) = grown(series, models, train)?;
    text += &row("10 min, six horizons to 24 h", models, bytes, goals);

    let grid = Grid { step_seconds: 60, season_steps: 1440 };
    let config = DemandConfig { grid, horizons: vec![1, 5, 10, 30, 60, 360, 1440] };
    let train = |values: &[Option<f64>]| -> Result<DemandForecaster> {
        let mut model = DemandForecaster::train(&config, 0, &[])?;
        let minutes = values.iter().flat_map(|value| [*value; STEP_MINUTES]);
        (0..).zip(minutes).for_each(|(step, value)| model.observe(step, value));
        model.refit();
        Ok(model)
    };
    let models = models.min(series.len());
    let (minutes, bytes) = grown(series, models, train)?;
    text += &row("1 min, seven horizons to 24 h", models, bytes, goals);
    black_box((tens, minutes));
    Ok(text)
}

/// Trains `count` models after a quarter as many that are not counted, and returns all and by how many bytes each of
/// the counted ones made the process grow. Those before them fill what a fit leaves free.
fn grown<M>(
    series: &[Series],
    count: usize,
    train: impl Fn(&[Option<f64>]) -> Result<M>,
) -> Result<(Vec<M>, f64)> {
    let first = count.div_ceil(4);
    let all = first + count;
    let mut models = Vec::with_capacity(all);
    let mut before = 0.0;
    for (place, series) in series.iter().cycle().take(all).enumerate() {
        if place == first {
            before = machine::resident_bytes()?;
        }
        if place.is_multiple_of(50) {
            eprintln!("memory, {place} of {all} trained");
        }
        models.push(train(&series.values)?);
    }
    let bytes = (machine::resident_bytes()? - before) / count as f64;
    Ok((models, bytes))
}

fn row(steps: &str, models: usize, bytes: f64, goals: &mut Goals) -> String {
    let outcome = goals.check(&format!("bytes of a series in steps of {steps}"), GOAL, bytes);
    format!("| {steps} | {models} | **{bytes:.0}** | {GOAL} | {outcome} |\n")
}

const INTRODUCTION: &str = "\
### Memory of a series

By how much the process grows (VmRSS) with each model that has seen the two weeks of a series and was fitted. A quarter as many
before them are not counted: they fill what a fit leaves free. The second row is the grid that the program has unless it is told
otherwise, fed with each rate ten times.

| steps | models | bytes of a series | goal | |
|---|---|---|---|---|";
