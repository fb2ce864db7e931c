use serde::{Deserialize, Serialize};

use crate::Error;

/// Seasons of history kept: two weeks of a daily season and a day, so that each phase has been seen about fifteen
/// times and a level of a month ago no longer teaches.
pub const HISTORY_SEASONS: u32 = 15;

/// The shortest history that is kept, in steps: a short season says nothing about how much a regression needs.
const HISTORY_STEPS_MIN: u32 = 512;

/// The longest history that is kept, in steps, of a season of which three fit: 17 KiB a series.
const HISTORY_STEPS_USUAL: u32 = 4_320;

/// The longest history that is kept at all, in steps.
const HISTORY_STEPS_MAX: u32 = 65_536;

/// Seasons that are kept at least, as far as the longest history goes.
const HISTORY_SEASONS_MIN: u32 = 3;

/// The most horizons of one model.
const HORIZONS_MAX: usize = 64;

/// How a series is cut in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grid {
    /// Length of a step, in seconds. Step `n` covers the seconds from `n * step_seconds` of its clock on.
    pub step_seconds: u32,
    /// Steps after which the pattern of demand repeats: 144 for a day in steps of ten minutes. The phase of a step
    /// is the remainder of its number by this.
    pub season_steps: u32,
}

/// What a [`DemandModel`](crate::DemandModel) forecasts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DemandConfig {
    /// Steps and season.
    pub grid: Grid,
    /// How far ahead to forecast, in steps, ascending; 1 is the step after the newest observed one.
    pub horizons: Vec<u32>,
}

impl DemandConfig {
    /// Returns how many steps of history are kept: [`HISTORY_SEASONS`] seasons, or 4,320 steps if that is less, or
    /// three seasons if that is more; at least 512 steps and at most 65,536.
    pub fn history_steps(&self) -> u32 {
        let seasons = |count: u32| self.grid.season_steps.saturating_mul(count);
        let usual = seasons(HISTORY_SEASONS).min(HISTORY_STEPS_USUAL);
        usual.max(seasons(HISTORY_SEASONS_MIN)).clamp(HISTORY_STEPS_MIN, HISTORY_STEPS_MAX)
    }

    /// Checks the configuration.
    ///
    /// # Errors
    ///
    /// An empty step, a season that is empty or over a third of the longest history, no horizon or over 64, and
    /// horizons that do not ascend or exceed half of the history.
    pub fn validate(&self) -> Result<(), Error> {
        if self.grid.step_seconds == 0 {
            return Err(Error::StepSeconds(0));
        }
        let (found, max) = (self.grid.season_steps, HISTORY_STEPS_MAX / 3);
        if found == 0 || found > max {
            return Err(Error::SeasonSteps { found, max });
        }
        if self.horizons.is_empty() || self.horizons.len() > HORIZONS_MAX {
            return Err(Error::HorizonCount { found: self.horizons.len(), max: HORIZONS_MAX });
        }
        let max = self.history_steps() / 2;
        let mut before = 0;
        for &found in &self.horizons {
            if found <= before || found > max {
                return Err(Error::Horizon { found, max });
            }
            before = found;
        }
        Ok(())
    }
}
