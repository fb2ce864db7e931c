use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::quantiles::Quantiles;

mod autoregression;
mod bounds;
mod config;
mod experts;
mod features;
mod fleet;
mod forecaster;
mod history;
mod jury;
mod record;
mod regression;
mod settings;
#[cfg(test)]
mod tests;
mod track;
mod young;

pub use config::{DemandConfig, Grid, HISTORY_SEASONS};
pub use experts::Expert;
pub use fleet::FleetFit;
pub use forecaster::{DemandForecaster, FleetFits};

use experts::{Filters, Origin};
use history::{History, clean};
use regression::Measure;
use track::{Now, Track};

/// Format of a saved [`DemandModel`].
const VERSION: u32 = 4;

/// Seasons at the end of a history that are replayed with a refit each, so that the regressions are judged on what
/// they had not seen.
const REPLAYED_SEASONS: usize = 3;

/// The largest step number: every integer up to here has an exact `f64`, and sums of a few stay in an `i64`.
const STEP_MAX: i64 = 1 << 53;

/// Forecasts the demand on one model, in steps of a fixed length.
///
/// For each horizon many experts run side by side: the last value, the seasonal naive, exponential filters, seasons
/// that are scaled and shifted, and regressions. What they missed lately decides how much each is heard; when all of
/// them together have done worse than the last value or the seasonal naive, that baseline carries the forecast.
/// Around the median lie bounds, each a blend of candidates by what they cost lately, stretched until it holds as
/// often as it promises (adaptive conformal inference).
///
/// A step is a number on an absolute clock: Unix seconds divided by the length of a step. Observing costs some tens
/// of microseconds a horizon; [`refit`](Self::refit) costs some ten milliseconds a horizon and can run elsewhere, on a
/// clone.
///
/// The state serialises with serde and goes on exactly where it was, given a format that keeps every digit of an
/// `f64` (`serde_json` with the feature `float_roundtrip`), once it has been handed the same [`FleetFit`] again
/// ([`resume`](Self::resume)), if it had one: that is not part of the state. A state of another version is refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Saved")]
pub struct DemandModel {
    version: u32,
    config: DemandConfig,
    history: History,
    filters: Filters,
    measure: Option<Measure>,
    tracks: Vec<Track>,
    #[serde(skip_serializing)]
    fleet: Option<Arc<FleetFit>>,
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
    /// How far ahead the target ends, in steps from the end of the newest one; at least 1.
    pub horizon_steps: u32,
    /// The first step of the target.
    pub target_step: i64,
    /// How many steps the target has.
    pub target_steps: u32,
    /// Quantiles of the mean rate in the target. All zero while nothing has been observed.
    pub quantiles: Quantiles,
    /// The expert with the most weight in the median: the champion.
    pub expert: Expert,
    /// Absolute error of the medians issued lately for this horizon, per unit of demand (WAPE, exponentially
    /// forgotten with a half-life of two seasons). `None` before the first outcome or while there is no demand.
    pub error_ratio: Option<f64>,
}

/// How the forecasts of one horizon have done lately, as they were issued.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Standing {
    /// Steps from the origin to the steps that were forecast.
    pub horizon_steps: u32,
    /// Outcomes that were scored since the model was made.
    pub outcomes: u64,
    /// Absolute error of the medians per unit of demand.
    pub error_ratio: Option<f64>,
    /// Absolute error of the medians in parts of that of the better of the two baselines; below one is skill.
    pub skill_ratio: Option<f64>,
    /// Share of outcomes at or below each of [`QUANTILES`](crate::QUANTILES).
    pub coverage: Option<[f64; 5]>,
    /// The baseline that carries the forecast, because all experts together have lately done worse than it.
    pub gate: Option<Expert>,
    /// Every expert that is heard, the champion first, then its challengers.
    pub experts: Vec<ExpertStanding>,
}

/// How one expert has done lately.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ExpertStanding {
    /// Who.
    pub expert: Expert,
    /// Its part of the median, 0 to 1.
    pub weight: f64,
    /// Its mean loss over the last days, to be compared with that of others: half its absolute error, seen against the
    /// root of the level of demand. `None` before it was scored.
    pub loss: Option<f64>,
}

impl DemandModel {
    /// Learns from a history: `values[i]` is the mean rate of step `first_step + i`, `None` where it is unknown.
    ///
    /// The end of the history, three seasons but at most half of it, is replayed against regressions that were fitted
    /// on what lies before it, so errors and spreads are honest from the first forecast on. An empty history is
    /// fine; the newest step is then the one before `first_step`. Only the newest
    /// [`DemandConfig::history_steps`] are used.
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
            filters: Filters::default(),
            measure: None,
            tracks: config.horizons.iter().map(|&horizon| Track::new(horizon)).collect(),
            config: config.clone(),
            fleet: None,
        };
        let replay = (REPLAYED_SEASONS * season).min(values.len() / 2);
        let first_refit = values.len() - replay;
        for (i, value) in values.iter().enumerate() {
            if i >= first_refit && (i - first_refit).is_multiple_of(season) {
                model.refit();
            }
            model.append(*value);
        }
        model.refit();
        model.reissue();
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
            self.filters = Filters::default();
            self.tracks.iter_mut().for_each(Track::forget_pending);
        } else {
            (0..missing).for_each(|_| self.append(None));
        }
        self.append(value);
    }

    /// Returns whether any rate was ever observed.
    fn has_observed(&self) -> bool {
        self.history.len() > 0
    }

    #[cfg(test)]
    fn observed(&self) -> Vec<f32> {
        self.history.window(self.newest_step(), self.history.len()).collect()
    }

    /// Returns what regressions measure the series by.
    fn measure(&self) -> Option<Measure> {
        self.measure.or_else(|| Measure::of(&self.history))
    }

    /// Fits the regressions of all horizons to the history. A regression that has too little of it is dropped.
    ///
    /// The next forecast that uses them is that of the next observed step.
    pub fn refit(&mut self) {
        self.measure = Measure::of(&self.history);
        for track in &mut self.tracks {
            track.refit(&self.history, self.measure.as_ref(), self.config.grid);
        }
    }

    /// Listens to the fleet's regressions from the next observed step on. Ignored when they were fitted for another
    /// configuration.
    pub fn adopt(&mut self, fleet: &Arc<FleetFit>) {
        if *fleet.config() == self.config {
            self.measure = self.measure.or_else(|| Measure::of(&self.history));
            self.fleet = Some(Arc::clone(fleet));
        }
    }

    /// Listens on to the fleet's regressions that it listened to when it was saved: nothing else changes, so it goes on
    /// exactly where it was.
    pub fn resume(&mut self, fleet: &Arc<FleetFit>) {
        if *fleet.config() == self.config {
            self.fleet = Some(Arc::clone(fleet));
        }
    }

    /// Returns the forecast of the steps after the newest observed one.
    pub fn forecast(&self) -> DemandForecast {
        let points = self.tracks.iter().map(|track| HorizonForecast {
            horizon_steps: track.horizon_steps(),
            target_step: self.newest_step() + i64::from(track.horizon_steps()),
            target_steps: 1,
            quantiles: track.issued().quantiles,
            expert: track.issued().champion.unwrap_or(Expert::LastValue),
            error_ratio: track.record().error_ratio(),
        });
        DemandForecast { origin_step: self.newest_step(), points: points.collect() }
    }

    /// Returns how the forecasts have done, one for each horizon.
    pub fn standings(&self) -> Vec<Standing> {
        let standing = |track: &Track| {
            let record = track.record();
            let standings = track.standings(self.config.grid);
            let experts =
                standings.into_iter().map(|(expert, weight, loss)| ExpertStanding { expert, weight, loss });
            Standing {
                horizon_steps: track.horizon_steps(),
                outcomes: record.outcomes(),
                error_ratio: record.error_ratio(),
                skill_ratio: record.skill_ratio(),
                coverage: record.coverage(),
                gate: record.gate(),
                experts: experts.collect(),
            }
        };
        self.tracks.iter().map(standing).collect()
    }

    /// Forecasts again from the newest step, with what has been fitted since.
    fn reissue(&mut self) {
        let Self { config, history, filters, measure, tracks, fleet, .. } = self;
        let origin = Origin::new(history, filters);
        let now = Now { history, grid: config.grid, origin, measure: measure.as_ref() };
        for (i, track) in tracks.iter_mut().enumerate() {
            track.reissue(&now, fleet.as_ref().and_then(|fleet| fleet.regression(i)));
        }
    }

    fn append(&mut self, value: Option<f64>) {
        self.history.push(clean(value));
        if let Some(value) = self.history.value(self.history.newest_step()) {
            self.filters.push(value);
        }
        let Self { config, history, filters, measure, tracks, fleet, .. } = self;
        let origin = Origin::new(history, filters);
        let now = Now { history, grid: config.grid, origin, measure: measure.as_ref() };
        for (i, track) in tracks.iter_mut().enumerate() {
            track.observe(&now, fleet.as_ref().and_then(|fleet| fleet.regression(i)));
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
    filters: Filters,
    measure: Option<Measure>,
    tracks: Vec<Track>,
}

impl TryFrom<Saved> for DemandModel {
    type Error = Error;

    fn try_from(saved: Saved) -> Result<Self, Error> {
        let Saved { version, config, history, filters, measure, tracks } = saved;
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
        if !tracks.iter().all(Track::is_sound) || measure.is_some_and(|measure| !measure.is_sound()) {
            return Err(Error::Inconsistent("a regression that cannot be computed"));
        }
        Ok(Self { version, config, history, filters, measure, tracks, fleet: None })
    }
}
