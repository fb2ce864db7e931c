//! Our scorer against figures that another scorer gave for the same data.

use std::path::Path;

use anyhow::Result;
use clairvoy_forecaster::{
    Backtest, DemandConfig, Grid, Issue, Policy, Quantiles, Reference, Score, Series, score_reference,
    score_replicas,
};

const STEP_SECONDS: u32 = 600;

fn records(file: &str) -> Result<Vec<csv::StringRecord>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("data").join(file);
    Ok(csv::Reader::from_path(path)?.into_records().collect::<Result<_, _>>()?)
}

fn demand() -> Result<Vec<Series>> {
    let mut series: Vec<Series> = Vec::new();
    for record in records("demand_10min.csv")? {
        if series.last().is_none_or(|last| last.name != record[1]) {
            series.push(Series { name: record[1].to_owned(), values: Vec::new() });
        }
        let value = if record[2].is_empty() { None } else { Some(record[2].parse()?) };
        if let Some(last) = series.last_mut() {
            last.values.push(value);
        }
    }
    Ok(series)
}

fn protocol() -> Backtest {
    let grid = Grid { step_seconds: STEP_SECONDS, season_steps: 144 };
    let config = DemandConfig { grid, horizons: vec![1, 3, 6, 36, 144] };
    Backtest { config, train_steps: 1008, every_steps: 7 }
}

/// Where a forecast is wanted; what it says does not matter to a reference.
fn wanted(series: &[Series], how: &Backtest) -> Vec<Issue> {
    let mut issues = Vec::new();
    for (place, known) in series.iter().map(|series| series.values.len()).enumerate() {
        for origin in (how.train_steps..known).step_by(how.every_steps) {
            for &horizon_steps in &how.config.horizons {
                let end = origin + horizon_steps as usize;
                if end <= known {
                    let quantiles = Quantiles::default();
                    issues.push(Issue {
                        series: place,
                        origin,
                        horizon_steps,
                        target: end - 1..end,
                        quantiles,
                    });
                }
            }
        }
    }
    issues
}

fn recorded_cwape(forecaster: &str) -> Result<Vec<(u32, f64)>> {
    let peers = records("peers.csv")?;
    let rows = peers.iter().filter(|record| &record[0] == forecaster);
    rows.map(|row| Ok((row[2].parse::<u32>()? / STEP_SECONDS, row[3].parse()?))).collect()
}

fn assert_same(scores: &[Score], recorded: &[(u32, f64)]) {
    assert_eq!(recorded.len(), 5);
    assert_eq!(scores.len(), recorded.len());
    for (score, (horizon_steps, cwape)) in scores.iter().zip(recorded.iter().copied()) {
        assert_eq!((score.horizon_steps, score.series), (horizon_steps, 24));
        // Recorded with five digits.
        assert!((score.cwape - cwape).abs() < 6e-6, "{horizon_steps}: {} and {cwape}", score.cwape);
    }
}

#[test]
fn the_last_value_scores_as_recorded() {
    let (series, how) = (demand().unwrap(), protocol());
    let scores = score_reference(&series, &how, &wanted(&series, &how), Reference::LastValue);
    assert_same(&scores, &recorded_cwape("Last value (constant of Dynamo)").unwrap());
}

#[test]
fn the_seasonal_naive_scores_as_recorded() {
    let (series, how) = (demand().unwrap(), protocol());
    let scores = score_reference(&series, &how, &wanted(&series, &how), Reference::SeasonalNaive);
    assert_same(&scores, &recorded_cwape("Seasonal naive (day)").unwrap());
}

#[test]
fn the_reactive_autoscaler_scores_as_recorded() {
    let (series, how) = (demand().unwrap(), protocol());
    let score = score_replicas(&series, &how, &[], Policy::Reactive, 5).unwrap();
    let replicas = records("peers_replicas.csv").unwrap();
    let recorded = replicas.iter().find(|record| &record[1] == "reactive").unwrap();
    for (measured, recorded) in [(score.under, &recorded[3]), (score.over, &recorded[4])] {
        // Recorded with three digits.
        assert!((measured - recorded.parse::<f64>().unwrap()).abs() < 6e-4, "{measured} and {recorded}");
    }
}
