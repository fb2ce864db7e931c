use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use clairvoy_forecaster::{DemandConfig, DemandForecast, DemandForecaster, Error, FleetFits, Standing};

use crate::config::Forecast;
use crate::fleet::Step;

/// How demand is forecast, in steps.
pub(super) struct Settings {
    config: DemandConfig,
    refit_every_seconds: f64,
}

impl Settings {
    pub(super) fn of(forecast: &Forecast) -> Self {
        Self { config: forecast.in_steps(), refit_every_seconds: forecast.refit_every.as_seconds() }
    }

    /// Time between two fits of the fleet: what models have in common changes slowly, and costs all of them at once.
    pub(super) fn fleet_every_seconds(&self) -> f64 {
        let grid = self.config.grid;
        f64::from(grid.season_steps) * f64::from(grid.step_seconds) / 4.0
    }
}

/// The demand forecaster of one model, and when it was fitted.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Lessons {
    forecaster: DemandForecaster,
    fitted_at: Option<DateTime<Utc>>,
}

impl Lessons {
    pub(super) fn train(settings: &Settings, first_step: i64, values: &[Option<f64>]) -> Result<Self, Error> {
        Ok(Self {
            forecaster: DemandForecaster::train(&settings.config, first_step, values)?,
            fitted_at: None,
        })
    }

    /// Takes up a saved model, unless it was made for another grid or other horizons.
    pub(super) fn restore(settings: &Settings, state: serde_json::Value) -> Result<Self, String> {
        let forecaster: DemandForecaster =
            serde_json::from_value(state).map_err(|error| error.to_string())?;
        let lessons = Self { forecaster, fitted_at: None };
        if !lessons.is_for(settings) {
            return Err("it was made for another step, season or horizons".to_owned());
        }
        Ok(lessons)
    }

    /// Whether it was made for this grid and these horizons.
    pub(super) fn is_for(&self, settings: &Settings) -> bool {
        *self.forecaster.config() == settings.config
    }

    pub(super) fn observe(&mut self, step: Step) -> DemandForecast {
        self.forecaster.observe(step.index, step.requests_per_second);
        self.forecaster.forecast()
    }

    /// Takes the steps that the model does not know yet.
    pub(super) fn catch_up(&mut self, first_step: i64, values: &[Option<f64>]) -> DemandForecast {
        let origin = self.forecaster.newest_step();
        for (step, value) in (first_step..).zip(values).filter(|(step, _)| *step > origin) {
            self.forecaster.observe(step, *value);
        }
        self.forecaster.forecast()
    }

    pub(super) fn forecast(&self) -> DemandForecast {
        self.forecaster.forecast()
    }

    pub(super) fn forecaster(&self) -> &DemandForecaster {
        &self.forecaster
    }

    /// How the forecasts have done, as they were issued.
    pub(super) fn standings(&self) -> Vec<Standing> {
        self.forecaster.standings()
    }

    /// Listens on to what it listened to when it was saved.
    pub(super) fn resume(&mut self, fleet: &FleetFits) {
        self.forecaster.resume(fleet);
    }

    pub(super) fn adopt(&mut self, fleet: &FleetFits) {
        self.forecaster.adopt(fleet);
    }

    /// Fits anew when it is time; returns the state to keep. A model that was just trained or restored is kept first.
    pub(super) fn refit_when_due(
        &mut self,
        settings: &Settings,
        now: DateTime<Utc>,
    ) -> Option<serde_json::Value> {
        match self.fitted_at {
            Some(at) if (now - at).as_seconds_f64() < settings.refit_every_seconds => return None,
            Some(_) => self.forecaster.refit(),
            None => {}
        }
        self.fitted_at = Some(now);
        serde_json::to_value(&self.forecaster).ok()
    }
}
