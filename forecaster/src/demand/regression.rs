use serde::{Deserialize, Serialize};

use crate::linear::{LinearFit, Rows};

use super::features::{Features, Scale};
use super::history::History;

/// Ridge penalty per row on standardised features.
const RIDGE: f64 = 1e-2;

/// Rows used in a fit at most; a longer history is thinned evenly, the newest row always among them.
const ROWS_MAX: usize = 2_500;

/// Rows needed for each feature; with fewer the penalty decides alone.
const ROWS_PER_FEATURE: usize = 3;

/// Seasons after which a row weighs half.
const HALF_LIFE_SEASONS: f64 = 4.0;

/// How far above the highest rate met, on the logarithmic scale, a forecast may go: a third more.
const HEADROOM: f64 = 0.3;

/// A direct regression for one horizon: the change of the logarithmic rate between origin and target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Regression {
    scale: Scale,
    highest: f64,
    fit: LinearFit,
}

impl Regression {
    /// Fits the history, on origins whose target is known; `None` while there are too few of them.
    pub(super) fn fit(history: &History, features: &Features) -> Option<Self> {
        let (mean, max) = history.known_mean_and_max()?;
        let scale = Scale::new(mean)?;
        let first = history.oldest_step() + history.season() as i64;
        let last = history.newest_step() - features.horizon();
        let origins = usize::try_from(last - first + 1).ok()?;
        // Odd, as an even stride could miss half of the phases of an hour.
        let stride = origins.div_ceil(ROWS_MAX) | 1;
        let half_life = HALF_LIFE_SEASONS * history.season() as f64;
        let mut rows = Rows::default();
        let mut row = Vec::new();
        for age in (0..origins).step_by(stride) {
            let origin = last - age as i64;
            let Some(actual) = history.known(origin + features.horizon()) else { continue };
            let Some(level) = features.fill(history, scale, origin, &mut row) else { continue };
            let weight = (-std::f64::consts::LN_2 * age as f64 / half_life).exp();
            rows.push(&row, scale.to_log(actual) - level, weight);
        }
        if rows.len() < ROWS_PER_FEATURE * row.len().max(1) {
            return None;
        }
        Some(Self { scale, highest: scale.to_log(max), fit: LinearFit::fit(&rows, RIDGE)? })
    }

    /// Predicts the rate one horizon after the newest step; `None` while the history is shorter than a season.
    pub(super) fn predict(&self, history: &History, features: &Features) -> Option<f64> {
        let mut row = Vec::new();
        let level = features.fill(history, self.scale, history.newest_step(), &mut row)?;
        let cap = self.highest.max(level) + HEADROOM;
        let predicted = level + self.fit.predict(&row);
        predicted.is_finite().then(|| self.scale.to_rate(predicted.clamp(0.0, cap)))
    }

    pub(super) fn is_sound(&self) -> bool {
        self.fit.is_sound() && self.scale.is_sound()
    }
}
