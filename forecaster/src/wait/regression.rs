use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::linear::{LinearFit, Rows};

use super::features::{FEATURES, Features, SECONDS_MAX, SECONDS_MIN};

/// Ridge penalty per outcome on standardised features.
const RIDGE: f64 = 1e-2;

/// Outcomes after which a row of the regression weighs half.
const HALF_LIFE_OUTCOMES: f64 = 1000.0;

/// Outcomes that one fit learns from at most: the newest, and some of those before. Bounds its time.
const FIT_NEWEST: usize = 400;
const FIT_OLDER: usize = 350;

/// The most that one outcome weighs, in requests: a busy second must not drown an idle minute.
const COUNT_MAX: f64 = 10.0;

/// The regression moves the blend of the simple experts by at most this factor, as a logarithm.
const CORRECTION_MAX: f64 = 3.0;

/// What the regression learns from.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Outcome {
    features: Features,
    /// What the simple experts had said, in seconds.
    base: f32,
    /// Logarithm of the TTFT over that.
    left: f32,
    count: f32,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Fitted {
    line: LinearFit,
    /// The longest wait that the simple experts had foretold in what was learned from, in seconds.
    longest_seconds: f64,
}

impl Outcome {
    pub(super) fn new(features: Features, base: f64, ttft_seconds: f64, count: f64) -> Self {
        let left = (ttft_seconds / base).ln() as f32;
        Self { features, base: base as f32, left, count: count.min(COUNT_MAX) as f32 }
    }
}

impl Fitted {
    /// Fits the outcomes, oldest first.
    pub(super) fn new(outcomes: &VecDeque<Outcome>) -> Option<Self> {
        let mut rows = Rows::default();
        // The newest outcomes are all learned from; of older ones every so many, which then stand for those left out.
        let every = outcomes.len().saturating_sub(FIT_NEWEST).div_ceil(FIT_OLDER).max(1);
        let chosen = |age: &usize| *age < FIT_NEWEST || age.is_multiple_of(every);
        for (age, outcome) in outcomes.iter().rev().enumerate().filter(|(age, _)| chosen(age)) {
            let stands_for = if age < FIT_NEWEST { 1.0 } else { every as f64 };
            let forgotten = 0.5_f64.powf(age as f64 / HALF_LIFE_OUTCOMES);
            rows.push(
                &outcome.features.values(),
                f64::from(outcome.left),
                stands_for * forgotten * f64::from(outcome.count),
            );
        }
        let longest = outcomes.iter().map(|outcome| outcome.base).fold(SECONDS_MIN as f32, f32::max);
        let longest_seconds = f64::from(longest);
        Some(Self { line: LinearFit::fit(&rows, RIDGE)?, longest_seconds })
    }

    /// Returns what the simple experts say, corrected, in seconds. A wait longer than any that was learned from is left to
    /// them, who know how queues work, the more the longer it is.
    pub(super) fn seconds(&self, features: &Features, base: f64) -> Option<f64> {
        let correction = self.line.predict(&features.values()).clamp(-CORRECTION_MAX, CORRECTION_MAX);
        let trusted = (self.longest_seconds / base).min(1.0);
        let seconds = base * (trusted * correction).exp();
        seconds.is_finite().then(|| seconds.clamp(SECONDS_MIN, SECONDS_MAX))
    }

    /// Whether it can be computed with: one that was read may be anything.
    pub(super) fn is_sound(&self) -> bool {
        self.line.is_sound() && self.line.width() == FEATURES && self.longest_seconds.is_finite()
    }
}
