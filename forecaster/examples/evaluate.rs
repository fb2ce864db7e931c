//! Judges the demand forecast on your own series, against both baselines.
//!
//! `cargo run --release --example evaluate -- FILE.csv [--season 144] [--step 600] [--horizons 1,3,6]`
//!
//! FILE.csv has a header and the columns `timestamp_s,model,rps` first; an empty rate is unknown. The first half of
//! each series is trained on; then every step is forecast before it is shown, with a refit once a season. Printed per
//! horizon: cWAPE (sum of absolute errors per unit of demand, at most 1 a series, mean over series), the share of
//! outcomes below the upper quantiles, and how often each expert carried the forecast.

use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::time::Instant;

use clairvoy_forecaster::{DemandConfig, DemandModel, Expert, Grid};

type Series = Vec<Option<f64>>;

/// Means over series, for one horizon.
#[derive(Default)]
struct Total {
    wape: [f64; 3],
    below: [f64; 3],
    carried: HashMap<Expert, f64>,
}

#[derive(Default)]
struct Tally {
    demand: f64,
    errors: [f64; 3],
    scored: f64,
    below: [f64; 3],
    carried: HashMap<Expert, f64>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let path =
        arguments.next().ok_or("usage: evaluate FILE.csv [--season N] [--step SECONDS] [--horizons A,B]")?;
    let (mut season, mut step, mut horizons) = (144, 600, vec![1, 3, 6]);
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or(format!("{name} needs a value"))?;
        match name.as_str() {
            "--season" => season = value.parse()?,
            "--step" => step = value.parse()?,
            "--horizons" => horizons = value.split(',').map(str::parse).collect::<Result<_, _>>()?,
            _ => return Err(format!("unknown option {name}").into()),
        }
    }
    let config = DemandConfig { grid: Grid { step_seconds: step, season_steps: season }, horizons };
    let begun = Instant::now();
    let mut totals: Vec<Total> = config.horizons.iter().map(|_| Total::default()).collect();
    let all = read(&path)?;
    for (name, series) in &all {
        let tallies = evaluate(&config, series)?;
        print!("{name:<16}");
        for ((horizon, tally), total) in config.horizons.iter().zip(&tallies).zip(&mut totals) {
            let wape = tally.errors.map(|error| (error / tally.demand).min(1.0));
            print!("  {horizon}: {:.3} ({:.3} {:.3})", wape[0], wape[1], wape[2]);
            let part = |count: f64| count / tally.scored / all.len() as f64;
            total.wape.iter_mut().zip(wape).for_each(|(sum, value)| *sum += value / all.len() as f64);
            total.below.iter_mut().zip(tally.below).for_each(|(sum, count)| *sum += part(count));
            for (expert, count) in &tally.carried {
                *total.carried.entry(*expert).or_default() += part(*count);
            }
        }
        println!();
    }
    println!("\nhorizon  chosen  last_value  seasonal_naive   <=q90  <=q95  <=q99   carried by");
    for (horizon, Total { wape, below, carried }) in config.horizons.iter().zip(totals) {
        print!("{horizon:>7}  {:.4}      {:.4}          {:.4}", wape[0], wape[1], wape[2]);
        print!("   {:.3}  {:.3}  {:.3}  ", below[0], below[1], below[2]);
        for expert in Expert::ALL {
            print!(" {} {:.0} %", expert.name(), 100.0 * carried.get(&expert).unwrap_or(&0.0));
        }
        println!();
    }
    println!("{:.1} s", begun.elapsed().as_secs_f64());
    Ok(())
}

fn read(path: &str) -> Result<BTreeMap<String, Series>, Box<dyn Error>> {
    let mut all: BTreeMap<String, Series> = BTreeMap::new();
    for line in std::fs::read_to_string(path)?.lines().skip(1) {
        let mut fields = line.split(',').skip(1);
        let (Some(name), Some(rate)) = (fields.next(), fields.next()) else {
            return Err(format!("not a row: {line}").into());
        };
        let rate = if rate.is_empty() { None } else { Some(rate.parse()?) };
        all.entry(name.to_owned()).or_default().push(rate);
    }
    Ok(all)
}

fn evaluate(config: &DemandConfig, series: &[Option<f64>]) -> Result<Vec<Tally>, Box<dyn Error>> {
    let half = series.len() / 2;
    let season = config.grid.season_steps as usize;
    let mut model = DemandModel::train(config, 0, &series[..half])?;
    let mut tallies: Vec<Tally> = config.horizons.iter().map(|_| Tally::default()).collect();
    for next in half..series.len() {
        for (point, tally) in model.forecast().points.iter().zip(&mut tallies) {
            let target = next - 1 + point.horizon_steps as usize;
            let Some(actual) = series.get(target).copied().flatten() else { continue };
            let last = series[..next].iter().rev().find_map(|value| *value).unwrap_or(0.0);
            let phases = (1..).map_while(|k| target.checked_sub(k * season)).filter(|&step| step < next);
            let naive = phases.into_iter().find_map(|step| series[step]).unwrap_or(last);
            let q = point.quantiles;
            for (sum, forecast) in tally.errors.iter_mut().zip([q.median(), last, naive]) {
                *sum += (actual - forecast).abs();
            }
            for (sum, bound) in tally.below.iter_mut().zip([q.q90(), q.q95(), q.q99()]) {
                *sum += f64::from(actual <= bound);
            }
            tally.demand += actual;
            tally.scored += 1.0;
            *tally.carried.entry(point.expert).or_default() += 1.0;
        }
        model.observe(next as i64, series[next]);
        if (next + 1) % season == 0 {
            model.refit();
        }
    }
    Ok(tallies)
}
