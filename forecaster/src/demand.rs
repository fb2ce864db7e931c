use serde::{Deserialize, Serialize};

use crate::Error;
use crate::quantiles::Quantiles;

mod config;
mod experts;
mod features;
mod history;
mod regression;
#[cfg(test)]
mod tests;
mod track;

pub use config::{DemandConfig, Grid, HISTORY_SEASONS};
pub use experts::Expert;

use history::{History, clean};
use track::Track;

/// Format of a saved [`DemandModel`].
const VERSION: u32 = 1;

/// Outcomes of the furthest horizon that the replay of a history is to show, if the history is long enough; more
/// than an expert needs to be heard.
const REPLAY_STEPS_MIN: usize = 48;

/// The largest step number: every integer up to here has an exact `f64`, and sums of a few stay in an `i64`.
const STEP_MAX: i64 = 1 << 53;

/// Forecasts the demand on one model, in steps of a fixed length.
///
/// For each horizon three experts run side by side: the last value, the seasonal naive, and a regression. The one
/// with the smallest recent error carries the forecast, so a regression is only heard while it beats both baselines
/// on this very series. Around its median lie the quantiles of what that expert missed lately.
///
/// A step is a number on an absolute clock: Unix seconds divided by the length of a step. Observing costs some
/// microseconds a horizon; [`refit`](Self::refit) costs up to some hundred milliseconds a horizon and can run
/// elsewhere, on a clone.
///
/// The state serialises with serde and goes on exactly where it was, given a format that keeps every digit of an
/// `f64` (`serde_json` with the feature `float_roundtrip`). A state of another version is refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Saved")]
pub struct DemandModel {
    version: u32,
    config: DemandConfig,
    history: History,
    tracks: Vec<Track>,
}

/// A forecast at all horizons.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DemandForecast {
    /// The newest observed step; the forecast is of steps after it.
    pub origin_step: i64,
    /// One per horizon, in the order of the configuration.
    pub points: Vec<HorizonForecast>,
}

/// A forecast at one horizon.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HorizonForecast {
    /// Steps from the origin to the step that is forecast; at least 1.
    pub horizon_steps: u32,
    /// Quantiles of the mean rate in that step. All zero while nothing has been observed.
    pub quantiles: Quantiles,
    /// Where the median comes from.
    pub expert: Expert,
    /// Absolute error of the medians issued lately for this horizon, per unit of demand (WAPE, exponentially
    /// forgotten over a season). `None` before the first outcome or while there is no demand.
    pub error_ratio: Option<f64>,
}

impl DemandModel {
    /// Learns from a history: `values[i]` is the mean rate of step `first_step + i`, `None` where it is unknown.
    ///
    /// The end of the history, a season and the furthest horizon but at most half of it, is replayed against a regression that was fitted on what lies before it, so
    /// errors and spreads are honest from the first forecast on. An empty history is fine; the newest step is then
    /// the one before `first_step`. Only the newest [`DemandConfig::history_steps`] are used.
    ///
    /// # Errors
    ///
    /// Those of [`DemandConfig::validate`], and [`Error::StepRange`] when a step is beyond 2^53.
    pub fn train(config: &DemandConfig, first_step: i64, values: &[Option<f64>]) -> Result<Self, Error> {
        config.validate()?;
        let last_step = first_step.saturating_add(i64::try_from(values.len()).unwrap_or(i64::MAX));
        for step in [first_step, last_step] {
            if !(-STEP_MAX..=STEP_MAX).contains(&step) {
                return Err(Error::StepRange(step));
            }
        }
        let capacity = config.history_steps() as usize;
        let season = config.grid.season_steps as usize;
        let skipped = values.len().saturating_sub(capacity);
        let values = &values[skipped..];
        let mut model = Self {
            version: VERSION,
            history: History::new(first_step + skipped as i64 - 1, capacity, season),
            tracks: config.horizons.iter().map(|&horizon| Track::new(config.grid, horizon)).collect(),
            config: config.clone(),
        };
        let furthest = config.horizons.last().map_or(0, |&horizon| horizon as usize);
        let replay = (season.max(REPLAY_STEPS_MIN) + furthest).min(values.len() / 2);
        let (before, replayed) = values.split_at(values.len() - replay);
        before.iter().for_each(|value| model.append(*value));
        model.refit();
        replayed.iter().for_each(|value| model.append(*value));
        model.refit();
        Ok(model)
    }

    /// Returns the configuration it was trained with.
    pub fn config(&self) -> &DemandConfig {
        &self.config
    }

    /// Returns the newest observed step.
    pub fn newest_step(&self) -> i64 {
        self.history.newest_step()
    }

    /// Takes in the mean rate of one step, `None` when it is unknown.
    ///
    /// Steps left out since the newest one count as unknown. A step that is not newer, or beyond 2^53, is ignored.
    /// A rate that is not finite is unknown, a negative one is zero.
    pub fn observe(&mut self, step: i64, value: Option<f64>) {
        if step <= self.newest_step() || step > STEP_MAX {
            return;
        }
        let missing = step - self.newest_step() - 1;
        if missing as u64 >= self.history.capacity() as u64 {
            self.history.restart(step - 1);
            self.tracks.iter_mut().for_each(Track::forget_pending);
        } else {
            (0..missing).for_each(|_| self.append(None));
        }
        self.append(value);
    }

    /// Fits the regressions of all horizons to the history. A regression that has too little of it is dropped.
    pub fn refit(&mut self) {
        for track in &mut self.tracks {
            track.refit(&self.history, self.config.grid);
        }
    }

    /// Forecasts the steps after the newest observed one.
    pub fn forecast(&self) -> DemandForecast {
        let points = self.tracks.iter().map(|track| {
            let (quantiles, expert) = track.forecast(&self.history, self.config.grid);
            HorizonForecast {
                horizon_steps: track.horizon_steps(),
                quantiles,
                expert,
                error_ratio: track.error_ratio(),
            }
        });
        DemandForecast { origin_step: self.newest_step(), points: points.collect() }
    }

    fn append(&mut self, value: Option<f64>) {
        self.history.push(clean(value));
        for track in &mut self.tracks {
            track.observe(&self.history, self.config.grid);
        }
    }
}

impl DemandForecast {
    /// Returns the quantiles `steps` after the origin, between two horizons on a straight line; before the first and
    /// after the last horizon, those of that horizon. `None` when there is no horizon.
    pub fn at(&self, steps: f64) -> Option<Quantiles> {
        let above = self.points.iter().position(|point| f64::from(point.horizon_steps) >= steps);
        let Some(above) = above else { return self.points.last().map(|point| point.quantiles) };
        let late = &self.points[above];
        let Some(early) = above.checked_sub(1).map(|index| &self.points[index]) else {
            return Some(late.quantiles);
        };
        let (start, end) = (f64::from(early.horizon_steps), f64::from(late.horizon_steps));
        Some(early.quantiles.between(&late.quantiles, (steps - start) / (end - start)))
    }
}

/// A state as it was read, before it is known to be usable.
#[derive(Deserialize)]
struct Saved {
    version: u32,
    config: DemandConfig,
    history: History,
    tracks: Vec<Track>,
}

impl TryFrom<Saved> for DemandModel {
    type Error = Error;

    fn try_from(saved: Saved) -> Result<Self, Error> {
        let Saved { version, config, history, tracks } = saved;
        if version != VERSION {
            return Err(Error::Version { found: version, supported: VERSION });
        }
        config.validate()?;
        if !tracks.iter().map(Track::horizon_steps).eq(config.horizons.iter().copied()) {
            return Err(Error::Inconsistent("horizons differ from the configuration"));
        }
        let shape = (config.grid.season_steps as usize, config.history_steps() as usize);
        if (history.season(), history.capacity()) != shape || history.len() > history.capacity() {
            return Err(Error::Inconsistent("history differs from the configuration"));
        }
        if !(-STEP_MAX - 1..=STEP_MAX).contains(&history.newest_step()) {
            return Err(Error::StepRange(history.newest_step()));
        }
        if !tracks.iter().all(Track::is_sound) {
            return Err(Error::Inconsistent("a regression that cannot be computed"));
        }
        Ok(Self { version, config, history, tracks })
    }
}
