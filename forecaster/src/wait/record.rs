use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::forgetting::ForgettingMean;
use crate::quantiles::empirical;

use super::features::{at_least_zero, log_seconds};

/// The share of outcomes that the upper bound is to hold.
const COVERAGE: f64 = 0.9;

/// Outcomes after which an error weighs half.
const HALF_LIFE: f64 = 60.0;

/// Residuals behind the upper bound.
const RESIDUALS: usize = 200;

/// Residuals from which the spread is their own alone.
const RESIDUALS_ENOUGH: f64 = 40.0;

/// Logarithmic spread that is assumed while nothing is known: the wait may be twice the estimate.
const SPREAD_ASSUMED: f64 = std::f64::consts::LN_2;

/// The least logarithmic spread: no bound closer than 5 % to the estimate.
const SPREAD_MIN: f64 = 0.05;

/// Growth of the spread per second of age. Taken from a simulated batching server, where the error of a good
/// predictor grew about fourfold within 5 s; not measured on hardware.
const WIDENING_PER_SECOND: f64 = 0.6;

/// The age beyond which the spread grows no more, in seconds.
const AGE_MAX_SECONDS: f64 = 30.0;

/// Step of the stretch that is learned online (adaptive conformal inference, Gibbs and Candès 2021), and its limits.
const STRETCH_STEP: f64 = 0.05;
const STRETCH_LIMIT: f64 = 1.5;

/// How one predictor has done on outcomes that it had not learned from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    error_seconds: ForgettingMean,
    scored: u32,
    /// Errors of the logarithm, per unit of widening by age.
    residuals: VecDeque<f64>,
    stretch: f64,
}

impl Default for Record {
    fn default() -> Self {
        Self {
            error_seconds: ForgettingMean::new(HALF_LIFE),
            scored: 0,
            residuals: VecDeque::new(),
            stretch: 0.0,
        }
    }
}

impl Record {
    /// Takes in one outcome, in seconds, of a prediction on a state of the given age.
    pub(super) fn score(&mut self, predicted: f64, actual: f64, age_seconds: f64) {
        let missed = actual > self.upper(predicted, age_seconds);
        self.stretch += STRETCH_STEP * (f64::from(missed) - (1.0 - COVERAGE));
        self.stretch = self.stretch.clamp(-STRETCH_LIMIT, STRETCH_LIMIT);
        self.score_error(predicted, actual);
        if self.residuals.len() >= RESIDUALS {
            self.residuals.pop_front();
        }
        self.residuals.push_back((log_seconds(actual) - log_seconds(predicted)) / widening(age_seconds));
    }

    /// Takes in the error of one outcome, but not its spread.
    pub(super) fn score_error(&mut self, predicted: f64, actual: f64) {
        self.error_seconds.add((actual - predicted).abs());
        self.scored = self.scored.saturating_add(1);
    }

    /// Forgets the errors and keeps the spread.
    pub(super) fn restart_errors(&mut self) {
        self.error_seconds = ForgettingMean::new(HALF_LIFE);
        self.scored = 0;
    }

    pub(super) fn scored(&self) -> u32 {
        self.scored
    }

    /// Returns the recent mean absolute error, in seconds.
    pub(super) fn error_seconds(&self) -> Option<f64> {
        self.error_seconds.mean()
    }

    /// Returns the bound, in seconds, that nine outcomes in ten are to stay below.
    pub(super) fn upper(&self, predicted: f64, age_seconds: f64) -> f64 {
        let mut errors: Vec<f64> = self.residuals.iter().copied().collect();
        errors.sort_by(f64::total_cmp);
        let own = (errors.len() as f64 / RESIDUALS_ENOUGH).min(1.0);
        let measured = empirical(&errors, COVERAGE).unwrap_or(0.0).max(SPREAD_MIN) * self.stretch.exp();
        let spread = own * measured + (1.0 - own) * SPREAD_ASSUMED;
        predicted * (spread * widening(age_seconds)).exp()
    }
}

fn widening(age_seconds: f64) -> f64 {
    1.0 + WIDENING_PER_SECOND * at_least_zero(age_seconds).min(AGE_MAX_SECONDS)
}
