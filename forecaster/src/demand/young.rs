use serde::{Deserialize, Serialize};

use super::autoregression::Autoregression;
use super::experts::{Expert, Points};
use super::history::History;

/// The part of a young series' median that rests on how it moves, while neither that nor the blend has proved better.
const MOVING_SHARE: f64 = 0.85;
/// The part that rests on its last value, where its moves tell nothing.
const STANDING_SHARE: f64 = 0.5;

/// How fast the parts follow what both have missed: odds are `(loss / loss)^POWER`.
const POWER: f64 = 10.0;

/// Fits of the autoregression in a season; it changes little from step to step.
const FITS: i64 = 48;

/// What a series' median rests on beside the blend before a season is known, when there is not yet much to choose from.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Young {
    moving: Option<Autoregression>,
    /// What the blend and the autoregression missed, forgotten slowly.
    losses: [f64; 2],
}

/// An expert that a median rests on, and its part in the median.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Anchor {
    pub(super) expert: Expert,
    pub(super) share: f64,
}

impl Young {
    /// Fits the autoregression, when it is time.
    pub(super) fn learn(&mut self, history: &History, horizon: i64) {
        let every = (history.season() as i64 / FITS).max(1);
        // Not all horizons at the same step.
        let is_due = (history.newest_step() + horizon).rem_euclid(every) == 0;
        if is_due || self.moving.is_none() {
            self.moving = Autoregression::fit(history, horizon);
        }
    }

    pub(super) fn point(&self, history: &History) -> Option<f64> {
        self.moving.as_ref()?.point(history)
    }

    /// Returns what the median rests on; none before anything was observed.
    pub(super) fn anchor(&self, points: &Points) -> Option<Anchor> {
        if points.get(Expert::Autoregression).is_none() {
            points.get(Expert::LastValue)?;
            return Some(Anchor { expert: Expert::LastValue, share: STANDING_SHARE });
        }
        let [blend, moving] = self.losses;
        let odds = if blend > 0.0 && moving > 0.0 { (blend / moving).powf(POWER) } else { 1.0 };
        let (moving, blend) = (MOVING_SHARE * odds.min(f64::MAX), 1.0 - MOVING_SHARE);
        Some(Anchor { expert: Expert::Autoregression, share: moving / (moving + blend) })
    }

    /// Takes in what the blend and the autoregression missed.
    pub(super) fn score(&mut self, misses: [f64; 2], keep: f64) {
        for (loss, miss) in self.losses.iter_mut().zip(misses) {
            *loss = *loss * keep + miss;
        }
    }

    pub(super) fn is_sound(&self) -> bool {
        self.losses.iter().all(|loss| loss.is_finite())
            && self.moving.as_ref().is_none_or(Autoregression::is_sound)
    }
}
