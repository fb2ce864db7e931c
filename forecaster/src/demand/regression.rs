use serde::{Deserialize, Serialize};

use crate::linear::{LinearFit, Rows};
use crate::quantiles::Quantiles;

use super::features::{Features, Scale, Sight};
use super::history::History;

/// Where the logarithm begins to bend: rates up to half the mean are nearly linear.
const BEND: f64 = 2.0;

/// The levels that are fitted, the median first and neighbours after another; see [`quantiles`].
pub(super) const LEVELS: [f64; 5] = [0.5, 0.9, 0.95, 0.99, 0.1];

/// Ridge penalty per row on standardised features: for targets within a 20th of a season, and beyond, where fewer
/// independent outcomes are in the same number of rows.
const RIDGE_NEAR: f64 = 0.1;
const RIDGE_FAR: f64 = 1.0;

/// Passes of reweighting for the bounds.
const PASSES: usize = 10;

/// Rows of one series used in a fit at most; a longer history is thinned evenly, the newest row always among them.
pub(super) const ROWS_MAX: usize = 1_300;

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
    scale: Scale,
    highest: f64,
}

impl Measure {
    /// `None` while nothing but zero is known.
    pub(super) fn of(history: &History) -> Option<Self> {
        let (mean, highest) = history.known_mean_and_max()?;
        Some(Self { scale: Scale::new(mean, BEND)?, highest })
    }

    pub(super) fn is_sound(&self) -> bool {
        self.highest.is_finite() && self.scale.is_sound()
    }
}

/// Adds the origins of a series whose target is known to `rows`, one in `thinning`: the change of the rate between
/// origin and target, on a logarithmic scale.
pub(super) fn add_rows(
    rows: &mut Rows,
    history: &History,
    measure: &Measure,
    features: &Features,
    thinning: usize,
) {
    let season = history.season() as f64;
    let first = history.oldest_step() + history.season() as i64;
    let last = history.newest_step() - features.horizon();
    let Ok(origins) = usize::try_from(last - first + 1) else { return };
    let origins = origins.min((OLDEST_SEASONS * season).ceil().max(ROWS_MAX as f64) as usize);
    // Odd, as an even stride could miss half of the phases of an hour.
    let stride = (origins.div_ceil(ROWS_MAX) * thinning) | 1;
    let mut row = Vec::new();
    for age in (0..origins).step_by(stride) {
        if let Some(change) = row_at(history, measure, features, last - age as i64, &mut row) {
            let weight = 0.5_f64.powf(age as f64 / (HALF_LIFE_SEASONS * season));
            rows.push(&row, change, weight);
        }
    }
}

/// Returns whether there are enough rows for a fit.
pub(super) fn enough(rows: &Rows) -> bool {
    rows.len() > 0 && rows.len() >= ROWS_PER_FEATURE * rows.width()
}

/// Writes the features of an origin and returns its target; `None` when that is unknown.
fn row_at(
    history: &History,
    measure: &Measure,
    features: &Features,
    origin: i64,
    row: &mut Vec<f64>,
) -> Option<f64> {
    let actual = history.known(origin + features.horizon())?;
    let level = features.look(history, origin)?.row(measure.scale, row);
    Some(measure.scale.to_log(actual) - level)
}

/// Fits a series by itself for one horizon; `None` while it is too short.
pub(super) fn fit(history: &History, measure: &Measure, features: &Features) -> Option<LinearFit> {
    let mut rows = Rows::default();
    add_rows(&mut rows, history, measure, features, 1);
    let near = 20 * features.horizon() <= history.season() as i64;
    let ridge = if near { RIDGE_NEAR } else { RIDGE_FAR };
    enough(&rows).then(|| LinearFit::fit_levels(&rows, ridge, &LEVELS, PASSES))?
}

/// Predicts the rate of the target that is seen in `sight`.
pub(super) fn predict(lines: &LinearFit, sight: &Sight, measure: &Measure) -> Option<Quantiles> {
    let mut row = Vec::new();
    let level = sight.row(measure.scale, &mut row);
    if lines.width() != row.len() {
        return None;
    }
    let cap = measure.scale.to_log(measure.highest).max(level) + HEADROOM;
    let rates = lines.predict_levels(&row);
    let rates: Vec<f64> =
        rates.iter().map(|change| measure.scale.to_rate((level + change).clamp(0.0, cap))).collect();
    quantiles(&rates)
}

/// Puts values at [`LEVELS`] into order; `None` when one is not finite.
fn quantiles(rates: &[f64]) -> Option<Quantiles> {
    let &[median, q90, q95, q99, q10] = rates else { return None };
    let lawful = rates.iter().all(|rate| rate.is_finite());
    lawful.then(|| Quantiles::new([q10.min(median), median, q90, q95, q99]))
}
