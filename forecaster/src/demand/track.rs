use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::forgetting::ForgettingMean;
use crate::quantiles::Quantiles;

use super::config::Grid;
use super::experts::{Expert, PerExpert, Record, points};
use super::features::Features;
use super::history::History;
use super::regression::Regression;

/// Outcomes an expert must have been scored on before it may carry a forecast.
const SCORED_MIN: u32 = 24;

/// How much better another expert must be to take over.
const SWITCH_BELOW: f64 = 0.97;

/// Seasons after which an error in the long memory weighs half.
const LASTING_SEASONS: f64 = 4.0;

/// Seasons of residuals behind a quantile, and the bounds of that window in steps.
const RESIDUAL_SEASONS: u32 = 2;
const RESIDUALS_MIN: u32 = 100;
const RESIDUALS_MAX: u32 = 1_000;

/// Everything about one horizon: the regression, what it and the baselines forecast, and how that went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Track {
    horizon_steps: u32,
    chosen: Expert,
    regression: Option<Regression>,
    records: PerExpert<Record>,
    pending: VecDeque<Pending>,
    issued_error: ForgettingMean,
    issued_actual: ForgettingMean,
}

/// A forecast whose target is still to come.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Pending {
    target_step: i64,
    points: PerExpert<Option<f64>>,
    chosen: Expert,
    usual: f64,
}

/// Returns the half-life of an error, in steps: a short horizon can follow the last hours, the error of a long one
/// is known late and says something about the pattern rather than about the moment.
fn half_life(grid: Grid, horizon_steps: u32) -> f64 {
    match horizon_steps {
        0..=2 => 24.0,
        3..=6 => 48.0,
        _ => LASTING_SEASONS * f64::from(grid.season_steps).max(12.0),
    }
}

impl Track {
    pub(super) fn new(grid: Grid, horizon_steps: u32) -> Self {
        let season = f64::from(grid.season_steps);
        let lasting = (LASTING_SEASONS * season).max(48.0);
        let record = || Record::new(half_life(grid, horizon_steps), lasting);
        Self {
            horizon_steps,
            chosen: Expert::LastValue,
            regression: None,
            records: PerExpert { last_value: record(), seasonal_naive: record(), regression: record() },
            pending: VecDeque::new(),
            issued_error: ForgettingMean::new(season),
            issued_actual: ForgettingMean::new(season),
        }
    }

    pub(super) fn horizon_steps(&self) -> u32 {
        self.horizon_steps
    }

    /// Takes in the newest step of the history: scores what was forecast for it, and issues the next forecast.
    pub(super) fn observe(&mut self, history: &History, grid: Grid) {
        let newest = history.newest_step();
        while let Some(due) = self.pending.pop_front_if(|pending| pending.target_step <= newest) {
            if let Some(actual) = history.known(due.target_step) {
                self.score(&due, actual, grid);
            }
        }
        self.choose();
        let points = points(history, &self.features(grid), self.regression.as_ref());
        self.pending.push_back(Pending {
            target_step: newest + i64::from(self.horizon_steps),
            chosen: self.carrier(&points),
            points,
            usual: usual(history),
        });
    }

    /// Drops the forecasts that are still open, as after a gap longer than the history.
    pub(super) fn forget_pending(&mut self) {
        self.pending.clear();
    }

    pub(super) fn refit(&mut self, history: &History, grid: Grid) {
        self.regression = Regression::fit(history, &self.features(grid));
    }

    /// Returns the quantiles for one horizon after the newest step, and the expert behind them.
    pub(super) fn forecast(&self, history: &History, grid: Grid) -> (Quantiles, Expert) {
        let points = points(history, &self.features(grid), self.regression.as_ref());
        let expert = self.carrier(&points);
        let Some(point) = *points.get(expert) else { return (Quantiles::default(), expert) };
        (self.records.get(expert).quantiles(point, usual(history)), expert)
    }

    /// Returns the recent absolute error of the issued medians per unit of demand.
    pub(super) fn error_ratio(&self) -> Option<f64> {
        let (error, actual) = (self.issued_error.mean()?, self.issued_actual.mean()?);
        Some(error / actual).filter(|ratio| ratio.is_finite())
    }

    pub(super) fn is_sound(&self) -> bool {
        self.regression.as_ref().is_none_or(Regression::is_sound)
    }

    fn features(&self, grid: Grid) -> Features {
        Features::new(grid, self.horizon_steps)
    }

    /// The chosen expert, or the last value where that one has nothing to say.
    fn carrier(&self, points: &PerExpert<Option<f64>>) -> Expert {
        if points.get(self.chosen).is_some() { self.chosen } else { Expert::LastValue }
    }

    fn score(&mut self, due: &Pending, actual: f64, grid: Grid) {
        let window = (RESIDUAL_SEASONS * grid.season_steps).clamp(RESIDUALS_MIN, RESIDUALS_MAX) as usize;
        for expert in Expert::ALL {
            let record = self.records.get_mut(expert);
            match *due.points.get(expert) {
                Some(point) => record.score(point, actual, due.usual, window),
                // Silent for this one: its score would be of other steps than those of the rest.
                None => continue,
            }
        }
        if let Some(point) = *due.points.get(due.chosen) {
            self.issued_error.add((actual - point).abs());
            self.issued_actual.add(actual);
        }
    }

    fn choose(&mut self) {
        let mut best = self.chosen;
        let mut limit = self.records.get(best).error().map_or(f64::INFINITY, |error| error * SWITCH_BELOW);
        for expert in Expert::ALL {
            let record = self.records.get(expert);
            let Some(error) = record.error().filter(|_| record.scored() >= SCORED_MIN) else { continue };
            if error < limit {
                (best, limit) = (expert, error);
            }
        }
        self.chosen = best;
    }
}

/// The usual rate now: the mean of the last season.
fn usual(history: &History) -> f64 {
    history.mean(history.newest_step(), history.season()).unwrap_or(0.0)
}
