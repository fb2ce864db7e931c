//! Scores of a backtest, by the usual measures.

use std::collections::BTreeMap;

use super::replicas::{Plant, Tally};
use super::{Backtest, Issue, Series};
use crate::QUANTILES;

/// Levels that are scored, as places in [`QUANTILES`]: 0.5, 0.9, 0.95 and 0.99.
const SCORED: [usize; 4] = [1, 2, 3, 4];

/// Replicas that serve the mean of the training steps.
const REPLICAS_AT_MEAN: f64 = 10.0;

/// Scores of one forecaster at one horizon: each series by itself, then the mean over the series.
#[derive(Debug, Clone, PartialEq)]
pub struct Score {
    /// Steps ahead.
    pub horizon_steps: u32,
    /// Series that were scored.
    pub series: usize,
    /// Absolute error of the median per unit of demand.
    pub wape: f64,
    /// The same with each series capped at one, what a forecast of zero scores: single bursts rule the plain mean.
    pub cwape: f64,
    /// Pinball loss at 0.5, 0.9, 0.95 and 0.99, per unit of demand.
    pub pinball: [f64; 4],
    /// Share of outcomes at or below the bounds of 0.9, 0.95 and 0.99.
    pub coverage: [f64; 3],
    /// Distance of each series' coverage of the 0.95 bound to 0.95.
    pub coverage_error: f64,
}

impl Score {
    /// Returns the mean of the four pinball losses.
    pub fn mean_pinball(&self) -> f64 {
        self.pinball.iter().sum::<f64>() / self.pinball.len() as f64
    }
}

/// How an autoscaling policy would have done, in parts of the replica-minutes that were needed.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ReplicaScore {
    /// Replica-minutes that were missing.
    pub under: f64,
    /// Replica-minutes that were not needed.
    pub over: f64,
    /// Share of the minutes in which a replica was missing.
    pub short: f64,
}

/// A forecaster that is scored beside ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reference {
    /// The last known value, as every quantile.
    LastValue,
    /// The value a season before, as every quantile.
    SeasonalNaive,
}

/// An autoscaling policy.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Policy {
    /// An autoscaler that follows the rate of the last minute, at 80 % utilisation.
    Reactive,
    /// As many replicas as the forecast of this level needs.
    Forecast(f64),
    /// The larger of the forecast's and of those for the rate of the last minute.
    Hybrid(f64),
}

/// Returns the scores of the issued forecasts, one for each horizon that has an outcome.
pub fn score(series: &[Series], how: &Backtest, issues: &[Issue]) -> Vec<Score> {
    let mut outcomes = Outcomes::default();
    for issue in issues.iter().filter(|issue| how.is_scored(issue.origin)) {
        outcomes.add(series, issue, issue.quantiles.values());
    }
    outcomes.scores()
}

/// Returns the scores that a reference gets at the same origins.
pub fn score_reference(
    series: &[Series],
    how: &Backtest,
    issues: &[Issue],
    reference: Reference,
) -> Vec<Score> {
    let season = how.config.grid.season_steps as usize;
    let mut outcomes = Outcomes::default();
    for issue in issues.iter().filter(|issue| how.is_scored(issue.origin)) {
        let known = &series[issue.series].values[..issue.origin];
        let last = || known.iter().rev().find_map(|value| *value);
        let target = issue.target.start;
        let value = match reference {
            Reference::LastValue => last(),
            Reference::SeasonalNaive => {
                let phases = (1..).map_while(|seasons| target.checked_sub(seasons * season));
                phases.filter_map(|step| *known.get(step)?).next().or_else(last)
            }
        };
        outcomes.add(series, issue, [value.unwrap_or(0.0); QUANTILES.len()]);
    }
    outcomes.scores()
}

/// Returns how a policy would have done after the training steps, as the mean over the series; the forecast of a
/// minute is the larger of those for the next step and the one after. `None` without forecasts of every origin.
pub fn score_replicas(
    series: &[Series],
    how: &Backtest,
    issues: &[Issue],
    policy: Policy,
    cold_minutes: usize,
) -> Option<ReplicaScore> {
    let mut near: BTreeMap<(usize, usize), f64> = BTreeMap::new();
    if let Policy::Forecast(level) | Policy::Hybrid(level) = policy {
        for issue in issues.iter().filter(|issue| issue.horizon_steps <= 2) {
            let highest = near.entry((issue.series, issue.origin)).or_insert(0.0);
            *highest = highest.max(issue.quantiles.at(level));
        }
    }
    let mut sum = ReplicaScore::default();
    let mut count = 0.0;
    for (place, Series { values, .. }) in series.iter().enumerate() {
        if values.len() <= how.train_steps || how.train_steps == 0 {
            continue;
        }
        let trained = values[..how.train_steps].iter().flatten();
        let mean = trained.clone().sum::<f64>() / trained.count() as f64;
        // Without demand in training there is no size of a replica to speak of.
        if !mean.is_finite() || mean <= 0.0 {
            continue;
        }
        let plant = Plant {
            step_minutes: (how.config.grid.step_seconds / 60).max(1) as usize,
            cold_minutes,
            replica_rate: mean / REPLICAS_AT_MEAN,
        };
        let filled = forward_filled(values);
        let rates = &filled[how.train_steps - 1..];
        let known: Vec<bool> = values[how.train_steps..].iter().map(Option::is_some).collect();
        let forecasts = (how.train_steps..values.len()).map(|origin| near.get(&(place, origin)).copied());
        let want = match policy {
            Policy::Reactive => plant.by_reaction(rates),
            Policy::Forecast(_) | Policy::Hybrid(_) => {
                let forecasts: Vec<f64> = forecasts.collect::<Option<_>>()?;
                plant.by_forecast(&forecasts, rates, matches!(policy, Policy::Hybrid(_)))
            }
        };
        let Tally { needed, under, over, minutes, short_minutes } = plant.run(&want, rates, &known);
        sum.under += under / needed;
        sum.over += over / needed;
        sum.short += short_minutes / minutes;
        count += 1.0;
    }
    let mean = ReplicaScore { under: sum.under / count, over: sum.over / count, short: sum.short / count };
    (count > 0.0 && mean.under.is_finite()).then_some(mean)
}

/// Each unknown value replaced by the one before; zero before the first known one.
fn forward_filled(values: &[Option<f64>]) -> Vec<f64> {
    let mut last = 0.0;
    let filled = values.iter().map(|value| {
        last = value.unwrap_or(last);
        last
    });
    filled.collect()
}

/// Sums by horizon and series.
#[derive(Debug, Default)]
struct Outcomes(BTreeMap<u32, BTreeMap<usize, Sums>>);

#[derive(Debug, Default)]
struct Sums {
    count: f64,
    demand: f64,
    error: f64,
    pinball: [f64; SCORED.len()],
    below: [f64; 3],
}

impl Outcomes {
    fn add(&mut self, series: &[Series], issue: &Issue, quantiles: [f64; QUANTILES.len()]) {
        let Some(actual) = issue.actual(series) else { return };
        let sums = self.0.entry(issue.horizon_steps).or_default().entry(issue.series).or_default();
        sums.count += 1.0;
        sums.demand += actual;
        sums.error += (actual - quantiles[SCORED[0]]).abs();
        for (sum, place) in sums.pinball.iter_mut().zip(SCORED) {
            let (level, error) = (QUANTILES[place], actual - quantiles[place]);
            *sum += (level * error).max((level - 1.0) * error);
        }
        for (sum, place) in sums.below.iter_mut().zip(&SCORED[1..]) {
            *sum += f64::from(actual <= quantiles[*place]);
        }
    }

    /// A series whose forecasts met no demand at all has no error per unit of it, and is left out.
    fn scores(self) -> Vec<Score> {
        let score = |(horizon_steps, by_series): (u32, BTreeMap<usize, Sums>)| {
            let all: Vec<Sums> = by_series.into_values().filter(|sums| sums.demand > 0.0).collect();
            let mean = |of: &dyn Fn(&Sums) -> f64| all.iter().map(of).sum::<f64>() / all.len() as f64;
            (!all.is_empty()).then(|| Score {
                horizon_steps,
                series: all.len(),
                wape: mean(&|sums| sums.error / sums.demand),
                cwape: mean(&|sums| (sums.error / sums.demand).min(1.0)),
                pinball: std::array::from_fn(|i| mean(&|sums| sums.pinball[i] / sums.demand)),
                coverage: std::array::from_fn(|i| mean(&|sums| sums.below[i] / sums.count)),
                coverage_error: mean(&|sums| (sums.below[1] / sums.count - 0.95).abs()),
            })
        };
        self.0.into_iter().filter_map(score).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demand::{DemandConfig, Grid};

    #[test]
    fn a_series_that_was_silent_in_training_has_no_replicas() {
        let values = |trained: f64| (0..40).map(|i| Some(if i < 20 { trained } else { 5.0 })).collect();
        let series = |trained| Series { name: "m".into(), values: values(trained) };
        let grid = Grid { step_seconds: 600, season_steps: 144 };
        let config = DemandConfig { grid, horizons: vec![1] };
        let how = Backtest { config, train_steps: 20, every_steps: 1 };
        let score = |series: &[Series]| score_replicas(series, &how, &[], Policy::Reactive, 5);
        assert_eq!(score(&[series(0.0)]), None);
        assert_eq!(score(&[series(0.0), series(5.0)]), score(&[series(5.0)]));
    }
}
