use serde::{Deserialize, Serialize};

use super::DemandModel;
use super::config::DemandConfig;
use super::regression::{LEVELS, ROWS_MAX as OWN_ROWS_MAX, add_rows, enough};
use crate::linear::{LinearFit, Rows};

/// Seasons after which a series is listened to, or half of what is kept if that is less: younger ones tell little of
/// the targets of a season ahead, which are what the fleet is asked for.
const SEASONS_MIN: usize = 4;

/// Ridge penalty per row.
const RIDGE: f64 = 1e-2;

/// Passes of reweighting for the bounds: few, as what is fitted to all fits nobody exactly.
const PASSES: usize = 3;

/// Rows of all series together, at most: more are thinned evenly.
const ROWS_MAX: usize = 8_000;

/// Regressions that a whole fleet of series has in common.
///
/// A series that is young or rare learns from the others how demand tends to move. Fit it once a season on all
/// models of one configuration, and hand it to each with [`DemandModel::adopt`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FleetFit {
    config: DemandConfig,
    regressions: Vec<Option<LinearFit>>,
}

impl FleetFit {
    /// Fits the series of all models that have the configuration of the first; `None` without a model.
    pub fn fit<'a>(models: impl IntoIterator<Item = &'a DemandModel>) -> Option<Self> {
        let models: Vec<&DemandModel> = models.into_iter().collect();
        let config = models.first()?.config().clone();
        let grown = SEASONS_MIN * config.grid.season_steps as usize;
        let grown = grown.min(config.history_steps() as usize / 2);
        let is_grown = |model: &&DemandModel| *model.config() == config && model.history.len() >= grown;
        let models: Vec<_> = models.into_iter().filter(is_grown).collect();
        let rows: usize = models.iter().map(|model| model.history.len().min(OWN_ROWS_MAX)).sum();
        let thinning = rows.div_ceil(ROWS_MAX);
        let fit = |track: usize| {
            let mut rows = Rows::default();
            for model in &models {
                if let Some(measure) = model.measure() {
                    let features = model.tracks[track].features(config.grid);
                    add_rows(&mut rows, &model.history, &measure, &features, thinning);
                }
            }
            enough(&rows).then(|| LinearFit::fit_levels(&rows, RIDGE, &LEVELS, PASSES))?
        };
        let regressions = (0..config.horizons.len()).map(fit).collect();
        Some(Self { config, regressions })
    }

    pub(super) fn is_sound(&self) -> bool {
        self.regressions.len() == self.config.horizons.len()
            && self.regressions.iter().flatten().all(LinearFit::is_sound)
    }

    pub(super) fn config(&self) -> &DemandConfig {
        &self.config
    }

    pub(super) fn regression(&self, track: usize) -> Option<&LinearFit> {
        self.regressions.get(track)?.as_ref()
    }
}
