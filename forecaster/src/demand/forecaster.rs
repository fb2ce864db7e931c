use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::Error;

use super::{DemandConfig, DemandForecast, DemandModel, FleetFit, Grid, HorizonForecast, Standing};

/// Format of a saved [`DemandForecaster`].
const VERSION: u32 = 2;

/// Steps that make a coarse one.
const COARSENESS: u32 = 10;

/// Seasons of fewer steps have no coarse grid: what is left would be too few steps.
const SEASON_STEPS_MIN: u32 = 1_000;

/// The part of a season beyond which a horizon belongs to the coarse grid: an hour of a day.
const NEAR_PARTS: u32 = 24;

/// Forecasts the demand on one model, near and far.
///
/// Horizons within a 24th of a season are forecast on the grid of the observations, and those beyond, if the season
/// has a thousand steps or more, on one that is ten times coarser: a minute tells nothing of tomorrow, and the coarse
/// grid remembers as many days in a tenth of the room. With steps of a minute and a season of a day, horizons to one
/// hour are forecast by the minute, and longer ones by ten minutes.
///
/// Otherwise it is as [`DemandModel`], of which it holds one or two.
///
/// ```
/// use clairvoy_forecaster::{DemandConfig, DemandForecaster, Grid};
///
/// let config = DemandConfig { grid: Grid { step_seconds: 60, season_steps: 1440 }, horizons: vec![1, 60, 360] };
/// let mut forecaster = DemandForecaster::train(&config, 0, &[Some(4.0); 600])?;
/// forecaster.observe(600, Some(4.0));
/// let far = &forecaster.forecast().points[2];
/// assert_eq!((far.horizon_steps, far.target_step, far.target_steps), (360, 950, 10));
/// assert!((far.quantiles.median() - 4.0).abs() < 1e-6);
/// # Ok::<(), clairvoy_forecaster::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Saved")]
pub struct DemandForecaster {
    version: u32,
    config: DemandConfig,
    newest_step: i64,
    near: Option<DemandModel>,
    far: Option<Coarse>,
}

/// A model on the coarse grid, and the coarse step that is not over yet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Coarse {
    model: DemandModel,
    sum: f64,
    known: u32,
}

/// Regressions that a fleet has in common, near and far; see [`FleetFit`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "SavedFits")]
pub struct FleetFits {
    version: u32,
    near: Option<Arc<FleetFit>>,
    far: Option<Arc<FleetFit>>,
}

impl DemandForecaster {
    /// Learns from a history, as [`DemandModel::train`] does.
    ///
    /// # Errors
    ///
    /// The same.
    pub fn train(config: &DemandConfig, first_step: i64, values: &[Option<f64>]) -> Result<Self, Error> {
        let (near, far) = split(config)?;
        let newest_step = first_step.saturating_add_unsigned(values.len() as u64).saturating_sub(1);
        let near = near.map(|near| DemandModel::train(&near, first_step, values)).transpose()?;
        let far = far.map(|far| Coarse::train(&far, first_step, values)).transpose()?;
        Ok(Self { version: VERSION, config: config.clone(), newest_step, near, far })
    }

    /// Returns how many steps of history are of use.
    ///
    /// # Errors
    ///
    /// Those of [`DemandConfig::validate`].
    pub fn history_steps(config: &DemandConfig) -> Result<u32, Error> {
        let (near, far) = split(config)?;
        let near = near.map_or(0, |near| near.history_steps());
        Ok(near.max(far.map_or(0, |far| COARSENESS * far.history_steps())))
    }

    /// Returns the configuration it was trained with.
    pub fn config(&self) -> &DemandConfig {
        &self.config
    }

    /// Returns the newest observed step.
    pub fn newest_step(&self) -> i64 {
        self.newest_step
    }

    /// Takes in the mean rate of one step, as [`DemandModel::observe`] does.
    pub fn observe(&mut self, step: i64, value: Option<f64>) {
        if step <= self.newest_step {
            return;
        }
        if let Some(near) = &mut self.near {
            near.observe(step, value);
        }
        if let Some(far) = &mut self.far {
            far.observe(self.newest_step, step, value);
        }
        self.newest_step = step;
    }

    /// Fits the regressions of all horizons.
    pub fn refit(&mut self) {
        self.models_mut().for_each(DemandModel::refit);
    }

    /// Listens to the fleet's regressions from the next observed step on.
    pub fn adopt(&mut self, fleet: &FleetFits) {
        if let (Some(model), Some(fit)) = (&mut self.near, &fleet.near) {
            model.adopt(fit);
        }
        if let (Some(far), Some(fit)) = (&mut self.far, &fleet.far) {
            far.model.adopt(fit);
        }
    }

    /// Listens on to the fleet's regressions, as [`DemandModel::resume`] does.
    pub fn resume(&mut self, fleet: &FleetFits) {
        if let (Some(model), Some(fit)) = (&mut self.near, &fleet.near) {
            model.resume(fit);
        }
        if let (Some(far), Some(fit)) = (&mut self.far, &fleet.far) {
            far.model.resume(fit);
        }
    }

    /// Returns the forecast of the steps after the newest observed one; without the far ones while no coarse step is
    /// over.
    pub fn forecast(&self) -> DemandForecast {
        let near = self.near.iter().flat_map(|model| model.forecast().points);
        let far = self.far.iter().filter(|far| far.model.has_observed()).flat_map(|far| {
            far.model.forecast().points.into_iter().map(|point| HorizonForecast {
                horizon_steps: COARSENESS * point.horizon_steps,
                target_step: i64::from(COARSENESS) * point.target_step,
                target_steps: COARSENESS,
                ..point
            })
        });
        let mut points: Vec<HorizonForecast> = near.chain(far).collect();
        points.sort_by_key(|point| point.horizon_steps);
        DemandForecast { origin_step: self.newest_step, points }
    }

    /// Returns how the forecasts have done, one for each horizon.
    pub fn standings(&self) -> Vec<Standing> {
        let near = self.near.iter().flat_map(DemandModel::standings);
        let far = self.far.iter().flat_map(|far| far.model.standings());
        near.chain(
            far.map(|standing| Standing { horizon_steps: COARSENESS * standing.horizon_steps, ..standing }),
        )
        .collect()
    }

    fn models_mut(&mut self) -> impl Iterator<Item = &mut DemandModel> {
        self.near.iter_mut().chain(self.far.iter_mut().map(|far| &mut far.model))
    }
}

impl FleetFits {
    /// Fits the series of all forecasters that have the configuration of the first.
    pub fn fit<'a>(forecasters: impl IntoIterator<Item = &'a DemandForecaster> + Clone) -> Self {
        let near = FleetFit::fit(forecasters.clone().into_iter().filter_map(|each| each.near.as_ref()));
        let far = FleetFit::fit(forecasters.into_iter().filter_map(|each| Some(&each.far.as_ref()?.model)));
        Self { version: VERSION, near: near.map(Arc::new), far: far.map(Arc::new) }
    }
}

impl Coarse {
    fn train(config: &DemandConfig, first_step: i64, values: &[Option<f64>]) -> Result<Self, Error> {
        // Whole coarse steps; what comes after the last of them is taken in one by one.
        let first = first_step.div_euclid(COARSENESS.into());
        let lead = first_step.rem_euclid(COARSENESS.into()) as usize;
        let head = (COARSENESS as usize - lead).min(values.len());
        let (head, rest) = if lead == 0 { (&[][..], values) } else { values.split_at(head) };
        let chunks = rest.chunks_exact(COARSENESS as usize);
        let tail = chunks.remainder();
        let whole = lead > 0 && lead + head.len() == COARSENESS as usize;
        let means: Vec<Option<f64>> = whole.then(|| mean(head)).into_iter().chain(chunks.map(mean)).collect();
        let model = DemandModel::train(config, first, &means)?;
        let mut coarse = Self { model, sum: 0.0, known: 0 };
        let open = if lead > 0 && !whole { head } else { tail };
        open.iter().for_each(|value| coarse.add(*value));
        Ok(coarse)
    }

    /// `newest` is the newest step before `step`.
    fn observe(&mut self, newest: i64, step: i64, value: Option<f64>) {
        let (open, coarse) = (newest.div_euclid(COARSENESS.into()), step.div_euclid(COARSENESS.into()));
        if coarse > open {
            self.close(open);
        }
        self.add(value);
        if step.rem_euclid(COARSENESS.into()) == i64::from(COARSENESS) - 1 {
            self.close(coarse);
        }
    }

    fn add(&mut self, value: Option<f64>) {
        if let Some(value) = value.filter(|value| value.is_finite()) {
            self.sum += value.max(0.0);
            self.known += 1;
        }
    }

    /// A coarse step is over. Does nothing when it was closed before.
    fn close(&mut self, coarse: i64) {
        let mean = (self.known > 0).then(|| self.sum / f64::from(self.known));
        self.model.observe(coarse, mean);
        (self.sum, self.known) = (0.0, 0);
    }
}

fn mean(values: &[Option<f64>]) -> Option<f64> {
    let known = values.iter().flatten().filter(|value| value.is_finite());
    let count = known.clone().count();
    (count > 0).then(|| known.map(|value| value.max(0.0)).sum::<f64>() / count as f64)
}

/// Returns the configurations of the fine and of the coarse grid.
fn split(config: &DemandConfig) -> Result<(Option<DemandConfig>, Option<DemandConfig>), Error> {
    let Grid { step_seconds, season_steps } = config.grid;
    let is_far = |horizon: &u32| {
        season_steps >= SEASON_STEPS_MIN
            && season_steps.is_multiple_of(COARSENESS)
            && *horizon > season_steps / NEAR_PARTS
            && horizon.is_multiple_of(COARSENESS)
    };
    let (far, near): (Vec<u32>, Vec<u32>) = config.horizons.iter().partition(|horizon| is_far(horizon));
    let coarse = Grid {
        step_seconds: step_seconds.saturating_mul(COARSENESS),
        season_steps: season_steps / COARSENESS,
    };
    let far =
        DemandConfig { grid: coarse, horizons: far.iter().map(|horizon| horizon / COARSENESS).collect() };
    let near = DemandConfig { grid: config.grid, horizons: near };
    if far.horizons.is_empty() {
        near.validate()?;
        return Ok((Some(near), None));
    }
    far.validate()?;
    if near.horizons.is_empty() {
        return Ok((None, Some(far)));
    }
    near.validate()?;
    Ok((Some(near), Some(far)))
}

/// A state as it was read, before it is known to be usable.
#[derive(Deserialize)]
struct Saved {
    version: u32,
    config: DemandConfig,
    newest_step: i64,
    near: Option<DemandModel>,
    far: Option<Coarse>,
}

#[derive(Deserialize)]
struct SavedFits {
    version: u32,
    near: Option<Arc<FleetFit>>,
    far: Option<Arc<FleetFit>>,
}

impl TryFrom<SavedFits> for FleetFits {
    type Error = Error;

    fn try_from(saved: SavedFits) -> Result<Self, Error> {
        let SavedFits { version, near, far } = saved;
        if version != VERSION {
            return Err(Error::Version { found: version, supported: VERSION });
        }
        let sound = |fit: &Option<Arc<FleetFit>>| fit.as_ref().is_none_or(|fit| fit.is_sound());
        if !sound(&near) || !sound(&far) {
            return Err(Error::Inconsistent("regressions of the fleet"));
        }
        Ok(Self { version, near, far })
    }
}

impl TryFrom<Saved> for DemandForecaster {
    type Error = Error;

    fn try_from(saved: Saved) -> Result<Self, Error> {
        let Saved { version, config, newest_step, near, far } = saved;
        if version != VERSION {
            return Err(Error::Version { found: version, supported: VERSION });
        }
        let wanted = split(&config)?;
        let found = (near.as_ref().map(DemandModel::config), far.as_ref().map(|far| far.model.config()));
        if found != (wanted.0.as_ref(), wanted.1.as_ref()) {
            return Err(Error::Inconsistent("grids differ from the configuration"));
        }
        if near.as_ref().is_some_and(|near| near.newest_step() != newest_step) {
            return Err(Error::Inconsistent("two newest steps"));
        }
        Ok(Self { version, config, newest_step, near, far })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRID: Grid = Grid { step_seconds: 60, season_steps: 1440 };

    fn config(horizons: &[u32]) -> DemandConfig {
        DemandConfig { grid: GRID, horizons: horizons.to_vec() }
    }

    #[test]
    fn a_coarse_grid_is_for_horizons_beyond_an_hour_of_a_day() {
        let (near, far) = split(&config(&[1, 60, 70, 75, 360, 1440])).unwrap();
        assert_eq!(near.unwrap().horizons, [1, 60, 75], "75 is no multiple of ten");
        let far = far.unwrap();
        assert_eq!(
            (far.horizons, far.grid.step_seconds, far.grid.season_steps),
            (vec![7, 36, 144], 600, 144)
        );
        let ten =
            DemandConfig { grid: Grid { step_seconds: 600, season_steps: 144 }, horizons: vec![1, 144] };
        assert_eq!(split(&ten).unwrap(), (Some(ten), None));
        assert!(split(&config(&[])).is_err());
    }

    #[test]
    fn trained_or_observed_step_by_step_the_coarse_grid_sees_the_same() {
        let values: Vec<Option<f64>> =
            (0..247).map(|i| (i % 9 != 0).then_some(f64::from(i % 13) + 1.0)).collect();
        for first in [0, 3, 1_000_009, -17] {
            let whole = DemandForecaster::train(&config(&[1440]), first, &values).unwrap();
            let mut stepwise = DemandForecaster::train(&config(&[1440]), first, &[]).unwrap();
            for (step, value) in (first..).zip(&values) {
                stepwise.observe(step, *value);
            }
            let rates = |forecaster: &DemandForecaster| {
                let far = forecaster.far.as_ref().unwrap();
                (far.sum, far.known, far.model.newest_step(), far.model.observed())
            };
            assert_eq!(rates(&whole), rates(&stepwise), "from {first}");
        }
    }

    #[test]
    fn a_gap_closes_the_open_coarse_step() {
        let mut forecaster = DemandForecaster::train(&config(&[1, 1440]), 100, &[Some(2.0); 25]).unwrap();
        assert_eq!(forecaster.forecast().points[1].target_step, 1550);
        forecaster.observe(148, Some(5.0));
        assert_eq!(forecaster.far.as_ref().unwrap().model.newest_step(), 12);
        forecaster.observe(149, Some(7.0));
        let far = forecaster.far.as_ref().unwrap();
        assert_eq!((far.model.newest_step(), far.model.observed()[4]), (14, 6.0));
        let saved = serde_json::to_string(&forecaster).unwrap();
        assert_eq!(serde_json::from_str::<DemandForecaster>(&saved).unwrap(), forecaster);
    }

    #[test]
    fn no_far_forecast_before_a_coarse_step_is_over() {
        let mut forecaster = DemandForecaster::train(&config(&[1, 1440]), 0, &[]).unwrap();
        forecaster.observe(4, Some(3.0));
        assert_eq!(forecaster.forecast().points.len(), 1);
        (5..10).for_each(|step| forecaster.observe(step, Some(3.0)));
        assert_eq!(forecaster.forecast().points.len(), 2);
    }
}
