//! What differs from horizon to horizon.
//!
//! A short horizon follows the last hours; the error of a long one is known late and says something about the
//! pattern rather than about the moment. Lengths of memory are in parts of a season, so that any grid has the same
//! ones; how many residuals make a bound, and how many steps an autoregression, is a number.

use crate::quantiles::QUANTILES;

use super::bounds::{CANDIDATES, OUTER};
use super::config::Grid;
use super::jury::Rules;

/// Forecasts of one horizon that wait for their outcome, at most: of a longer horizon only every second, third, …
/// is scored, as neighbours miss nearly the same. Far ones change from hour to hour.
const PENDING_MAX: u32 = 24;
const PENDING_MAX_FAR: u32 = 48;

/// The part of a season beyond which a target is far.
const FAR_PART: f64 = 0.5;

/// Seasons after which an outcome in a long memory weighs half.
const LASTING_SEASONS: f64 = 4.0;

/// An expert whose loss is so many times the least has broken.
const BROKEN_FROM: f64 = 4.0;

/// Seasons after which an outcome weighs half in the choice between a young series' two ways.
const YOUNG_SEASONS: f64 = 0.25;

/// Seasons after which an outcome in the record weighs half.
const RECORD_SEASONS: f64 = 2.0;

/// The powers by which candidates for a bound are weighed: the rarer the outcomes beyond it, the less a loss tells.
const BOUND_POWERS: [f64; OUTER.len()] = [6.0, 6.0, 3.0, 2.0];
const BOUND_POWERS_FAR: [f64; OUTER.len()] = [4.0, 4.0, 3.0, 2.0];

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Settings {
    /// Whether the target is so far that what a series by itself could learn has been seen too seldom.
    pub(super) far: bool,
    /// Steps between two outcomes that are scored.
    pub(super) stride: u32,
    pub(super) median: Rules,
    /// By [`OUTER`].
    pub(super) bounds: [Rules; OUTER.len()],
    /// Which candidates for bounds are heard.
    pub(super) candidates: [bool; CANDIDATES],
    /// Neighbouring residuals that tell the same.
    pub(super) dependent: f64,
    /// What is left of what a young series' two ways have missed when the next outcome comes.
    pub(super) keep_young: f64,
    /// What is left of an outcome in the record when the next one comes.
    pub(super) keep_record: f64,
    /// How fast the stretch of the bounds follows.
    pub(super) stretch_gain: f64,
}

impl Settings {
    pub(super) fn new(grid: Grid, horizon_steps: u32) -> Self {
        let season = f64::from(grid.season_steps).max(24.0);
        let part = f64::from(horizon_steps) / f64::from(grid.season_steps);
        let far = part > FAR_PART;
        let stride = horizon_steps.div_ceil(if far { PENDING_MAX_FAR } else { PENDING_MAX });
        let keep = |half_life: f64| 0.5_f64.powf(f64::from(stride) / half_life.max(12.0));
        let median = |power: f64, half_life: f64, rate: f64| Rules {
            level: 0.5,
            power,
            keep_recent: keep(half_life),
            keep_lasting: keep(LASTING_SEASONS * season),
            lasting_share: 0.2,
            rate,
            broken_from: BROKEN_FROM,
            trimmed: true,
        };
        let bounds = |powers: [f64; OUTER.len()], half_life: f64, lasting_share: f64, rate: f64| {
            std::array::from_fn(|i| Rules {
                level: QUANTILES[OUTER[i]],
                power: powers[i],
                keep_recent: keep(half_life),
                keep_lasting: keep(LASTING_SEASONS * season),
                lasting_share,
                rate,
                // A loss beyond a bound is rare and large, for the best as well.
                broken_from: f64::INFINITY,
                trimmed: false,
            })
        };
        let gain = |gain: f64| gain * f64::from(stride);
        let keep_record = keep(RECORD_SEASONS * season);
        let keep_young = keep(YOUNG_SEASONS * season);
        match part {
            part if part <= 1.0 / 72.0 => Self {
                far: false,
                stride,
                keep_record,
                keep_young,
                median: median(5.0, season / 12.0, 1.5),
                bounds: bounds(BOUND_POWERS, season / 2.0, 0.5, 2.0),
                candidates: [false, true, true, true, false, true],
                dependent: 20.0,
                stretch_gain: gain(0.003),
            },
            part if part <= 1.0 / 24.0 => Self {
                far: false,
                stride,
                keep_record,
                keep_young,
                median: median(5.0, season / 12.0, 1.5),
                bounds: bounds(BOUND_POWERS, season / 2.0, 0.5, 2.0),
                candidates: [true, true, true, true, false, true],
                dependent: 3.0,
                stretch_gain: gain(0.005),
            },
            _ if !far => Self {
                far: false,
                stride,
                keep_record,
                keep_young,
                median: median(5.0, season / 6.0, 1.5),
                bounds: bounds(BOUND_POWERS, LASTING_SEASONS * season, 0.0, 2.0),
                candidates: [true, true, false, false, false, true],
                dependent: 3.0,
                stretch_gain: gain(0.003),
            },
            _ => Self {
                far: true,
                stride,
                keep_record,
                keep_young,
                median: median(5.0, season, 1.0),
                bounds: bounds(BOUND_POWERS_FAR, 2.0 * LASTING_SEASONS * season, 0.0, 0.0),
                candidates: [false, true, false, false, true, true],
                dependent: 46.0 / f64::from(stride),
                // The feedback is late: a large gain chases its own tail.
                stretch_gain: gain(0.0002),
            },
        }
    }

    /// Outcomes in a window of so many steps.
    pub(super) fn outcomes(&self, steps: usize) -> usize {
        steps.div_ceil(self.stride as usize)
    }
}
