use serde::{Deserialize, Serialize};

use crate::linear::{LinearFit, Rows};
use crate::quantiles::Quantiles;

use super::features::{Features, Scale, Sight};
use super::history::History;

/// Where the logarithm of each regression begins to bend: one is nearly a logarithm, which suits series that change
/// by factors, the other nearly linear up to the mean, which suits those that change by amounts.
pub(super) const BENDS: [f64; 2] = [20.0, 2.0];

/// The levels that are fitted, the median first and neighbours after another; see [`quantiles`].
const LEVELS: [f64; 5] = [0.5, 0.9, 0.95, 0.99, 0.1];

/// Ridge penalty per row on standardised features: for targets within a 20th of a season, and beyond, where fewer
/// independent outcomes are in the same number of rows.
const RIDGE_NEAR: f64 = 1e-2;
const RIDGE_FAR: f64 = 1e-1;

/// Rows of one series used in a fit at most; a longer history is thinned evenly, the newest row always among them.
const ROWS_MAX: usize = 1_300;

/// Rows needed for each feature; with fewer the penalty decides alone.
const ROWS_PER_FEATURE: usize = 3;

/// Seasons after which a row weighs half, and after which it is left out.
const HALF_LIFE_SEASONS: f64 = 4.0;
const OLDEST_SEASONS: f64 = 8.75;

/// How far above the highest rate met, on the logarithmic scale, a forecast may go: a third more.
const HEADROOM: f64 = 0.3;

/// What a series is measured by: its mean for the scale, its highest rate for the cap.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Measure {
    scales: [Scale; BENDS.len()],
    highest: f64,
}

impl Measure {
    /// `None` while nothing but zero is known.
    pub(super) fn of(history: &History) -> Option<Self> {
        let (mean, highest) = history.known_mean_and_max()?;
        let [log, linear] = BENDS.map(|bend| Scale::new(mean, bend));
        Some(Self { scales: [log?, linear?], highest })
    }

    pub(super) fn is_sound(&self) -> bool {
        self.highest.is_finite() && self.scales.iter().all(|scale| scale.is_sound())
    }
}

/// Direct regressions for one horizon, one for each of [`BENDS`]: the change of the rate between origin and target,
/// on a logarithmic scale.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Regressions([LinearFit; BENDS.len()]);

/// Rows of one or more series for the regressions of one horizon.
#[derive(Debug, Default)]
pub(super) struct Lesson {
    rows: [Rows; BENDS.len()],
}

impl Lesson {
    /// Adds the origins of a series whose target is known, one in `thinning`.
    pub(super) fn add(&mut self, history: &History, measure: &Measure, features: &Features, thinning: usize) {
        let season = history.season() as f64;
        let first = history.oldest_step() + history.season() as i64;
        let last = history.newest_step() - features.horizon();
        let Ok(origins) = usize::try_from(last - first + 1) else { return };
        let origins = origins.min((OLDEST_SEASONS * season).ceil().max(ROWS_MAX as f64) as usize);
        // Odd, as an even stride could miss half of the phases of an hour.
        let stride = (origins.div_ceil(ROWS_MAX) * thinning) | 1;
        let mut row = Vec::new();
        for age in (0..origins).step_by(stride) {
            let origin = last - age as i64;
            let Some(actual) = history.known(origin + features.horizon()) else { continue };
            let Some(sight) = features.look(history, origin) else { continue };
            let weight = (-std::f64::consts::LN_2 * age as f64 / (HALF_LIFE_SEASONS * season)).exp();
            for (rows, scale) in self.rows.iter_mut().zip(measure.scales) {
                let level = sight.row(scale, &mut row);
                rows.push(&row, scale.to_log(actual) - level, weight);
            }
        }
    }

    /// Fits what was added; `None` when it is too little.
    pub(super) fn fit(&self, ridge: f64) -> Option<Regressions> {
        let [log, linear] = &self.rows;
        let fit = |rows: &Rows| {
            let enough = rows.len() >= ROWS_PER_FEATURE * rows.width().max(1);
            enough.then(|| LinearFit::fit_levels(rows, ridge, &LEVELS))?
        };
        Some(Regressions([fit(log)?, fit(linear)?]))
    }
}

impl Regressions {
    /// Fits a series by itself; `None` while it is too short.
    pub(super) fn fit(history: &History, measure: &Measure, features: &Features) -> Option<Self> {
        let mut lesson = Lesson::default();
        lesson.add(history, measure, features, 1);
        let near = 20 * features.horizon() <= history.season() as i64;
        lesson.fit(if near { RIDGE_NEAR } else { RIDGE_FAR })
    }

    /// Predicts the rate of the target that is seen in `sight`, one forecast for each of [`BENDS`].
    pub(super) fn predict(&self, sight: &Sight, measure: &Measure) -> [Option<Quantiles>; BENDS.len()] {
        let mut row = Vec::new();
        std::array::from_fn(|i| {
            let scale = measure.scales[i];
            let level = sight.row(scale, &mut row);
            if self.0[i].width() != row.len() {
                return None;
            }
            let cap = scale.to_log(measure.highest).max(level) + HEADROOM;
            let rates = self.0[i].predict_levels(&row);
            let rates: Vec<f64> =
                rates.iter().map(|change| scale.to_rate((level + change).clamp(0.0, cap))).collect();
            quantiles(&rates)
        })
    }

    pub(super) fn is_sound(&self) -> bool {
        self.0.iter().all(LinearFit::is_sound)
    }
}

/// Puts values at [`LEVELS`] into order; `None` when one is not finite.
fn quantiles(rates: &[f64]) -> Option<Quantiles> {
    let &[median, q90, q95, q99, q10] = rates else { return None };
    let lawful = rates.iter().all(|rate| rate.is_finite());
    lawful.then(|| Quantiles::new([q10.min(median), median, q90, q95, q99]))
}
