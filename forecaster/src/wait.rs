use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::linear::{LinearFit, Rows};

mod features;
mod record;
mod state;
#[cfg(test)]
mod tests;

pub use state::{WaitConfig, WaitPrediction, WaitSource, WaitState};

use features::{FEATURES, SECONDS_MAX, SECONDS_MIN, features, little_seconds, log_seconds};
use record::Record;
use state::clean;

/// Format of a saved [`WaitModel`].
const VERSION: u32 = 1;

/// Ridge penalty per outcome on standardised features.
const RIDGE: f64 = 1e-3;

/// Outcomes after which a row weighs half: what a backend does changes with its load within minutes.
const HALF_LIFE_OUTCOMES: f64 = 300.0;

/// The most that one outcome weighs, in requests: a busy second must not drown an idle minute.
const COUNT_MAX: f64 = 10.0;

/// Part of the newest outcome in the smoothed TTFT.
const SMOOTHING: f64 = 0.3;

/// Outcomes that were not learned from, before the regression may be used.
const SCORED_MIN: u32 = 10;

/// An outcome shows the rate of service when its TTFT was at least this part of queue over rate. Without enough to do,
/// a backend completes what arrives, however fast it is, and a queue of one is gone in a moment.
const LOADED_SHARE: f64 = 0.5;

/// The newest share of outcomes that the first fit leaves out to be judged on: one in this many.
const HELD_OUT: usize = 4;

/// Predicts the time to first token at one backend.
///
/// A regression on the logarithm of the TTFT learns from the outcomes that followed earlier states. It is used only
/// while it is nearer than the smoothed last observed TTFT on outcomes that it had not learned from. A queue deeper
/// than any that was met is never extrapolated by the regression: the prediction then grows with the queue, and is at
/// least the time in which the queue is served at the best rate that was seen under load (Little's law).
///
/// [`refit`](Self::refit) takes some milliseconds for 600 outcomes; call it every hundred or so. The state
/// serialises like that of [`DemandModel`](crate::DemandModel).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Saved")]
pub struct WaitModel {
    version: u32,
    config: WaitConfig,
    outcomes: VecDeque<Outcome>,
    smoothed_seconds: Option<f64>,
    fit: Option<Fitted>,
    regression: Record,
    last_observed: Record,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Outcome {
    state: WaitState,
    ttft_seconds: f64,
    count: f64,
    /// The smoothed TTFT before this outcome, in seconds: what the baseline went by.
    smoothed_seconds: Option<f64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Fitted {
    line: LinearFit,
    deepest_queue: f64,
    /// See [`Outcome::served_rps`]; of all outcomes that were learned from.
    served_rps: Option<f64>,
}

impl WaitModel {
    /// Returns a model that knows nothing yet.
    pub fn new(config: WaitConfig) -> Self {
        let outcomes = config.outcomes.clamp(60, 10_000);
        let config = WaitConfig { outcomes, outcomes_min: config.outcomes_min.clamp(20, outcomes) };
        Self {
            version: VERSION,
            config,
            outcomes: VecDeque::new(),
            smoothed_seconds: None,
            fit: None,
            regression: Record::default(),
            last_observed: Record::default(),
        }
    }

    /// Takes in what followed a state: `count` requests had a mean TTFT of `ttft_seconds`. `state.age_seconds` is
    /// the age that the state had when those requests came.
    ///
    /// The state is the one that was seen when the requests arrived, not the newest one when their first token came:
    /// with a TTFT of many seconds the two have little in common.
    ///
    /// Ignored when the TTFT is negative or not finite, or the count is not positive.
    pub fn observe(&mut self, state: &WaitState, ttft_seconds: f64, count: f64) {
        let lawful = ttft_seconds.is_finite() && ttft_seconds >= 0.0 && count.is_finite() && count > 0.0;
        if !lawful {
            return;
        }
        let ttft_seconds = ttft_seconds.clamp(SECONDS_MIN, SECONDS_MAX);
        let count = count.min(COUNT_MAX);
        let outcome =
            Outcome { state: clean(state), ttft_seconds, count, smoothed_seconds: self.smoothed_seconds };
        self.score(&outcome);
        self.smoothed_seconds = Some(match self.smoothed_seconds {
            Some(before) => before + SMOOTHING * (ttft_seconds - before),
            None => ttft_seconds,
        });
        if self.outcomes.len() >= self.config.outcomes {
            self.outcomes.pop_front();
        }
        self.outcomes.push_back(outcome);
    }

    /// Fits the regression to the outcomes that are kept; without enough of them there is none.
    ///
    /// The first fit is judged on the newest quarter, which it has not seen, before all outcomes are learned.
    pub fn refit(&mut self) {
        if self.outcomes.len() < self.config.outcomes_min {
            return;
        }
        if self.fit.is_none() {
            self.judge_first_fit();
        }
        self.fit = Fitted::new(self.outcomes.iter());
    }

    /// Predicts the TTFT of the next request, given what the backend shows.
    pub fn predict(&self, state: &WaitState) -> WaitPrediction {
        let state = clean(state);
        let (regression, baseline) = (self.by_regression(&state), self.by_last_observed(&state));
        let (mean_seconds, record, source) = match (regression, baseline) {
            (Some(mean), _) if self.regression_leads() => (mean, &self.regression, WaitSource::Regression),
            (_, Some(mean)) => (mean, &self.last_observed, WaitSource::LastObserved),
            _ => return WaitPrediction { mean_seconds: 0.0, upper_seconds: 0.0, source: WaitSource::None },
        };
        let upper_seconds = record.upper(mean_seconds, state.age_seconds).clamp(mean_seconds, SECONDS_MAX);
        WaitPrediction { mean_seconds, upper_seconds, source }
    }

    fn by_regression(&self, state: &WaitState) -> Option<f64> {
        let fit = self.fit.as_ref()?;
        let seconds =
            fit.line.predict(&features(state, fit.served_rps)).exp().clamp(SECONDS_MIN, SECONDS_MAX);
        if !seconds.is_finite() {
            return None;
        }
        Some(at_queue(seconds, state, fit.deepest_queue, fit.served_rps))
    }

    fn by_last_observed(&self, state: &WaitState) -> Option<f64> {
        let seconds = baseline(self.smoothed_seconds, state)?;
        let deepest = self.outcomes.iter().map(|outcome| outcome.state.queue_depth).reduce(f64::max);
        let served_rps = best_served_rps(self.outcomes.iter());
        Some(at_queue(seconds, state, deepest.unwrap_or(state.queue_depth), served_rps))
    }

    fn regression_leads(&self) -> bool {
        let errors = (self.regression.error_seconds(), self.last_observed.error_seconds());
        matches!(errors, (Some(own), Some(other)) if own < other) && self.regression.scored() >= SCORED_MIN
    }

    /// Scores both predictors on one outcome that neither has learned from.
    fn score(&mut self, outcome: &Outcome) {
        let Some(baseline) = baseline(outcome.smoothed_seconds, &outcome.state) else { return };
        let age_seconds = outcome.state.age_seconds;
        self.last_observed.score(baseline, outcome.ttft_seconds, age_seconds);
        if let Some(seconds) = self.by_regression(&outcome.state) {
            self.regression.score(seconds, outcome.ttft_seconds, age_seconds);
        }
    }

    /// Scores a fit of the older outcomes on the newest ones; both predictors start anew, on the same outcomes.
    fn judge_first_fit(&mut self) {
        let seen = self.outcomes.len() - self.outcomes.len() / HELD_OUT;
        self.fit = Fitted::new(self.outcomes.range(..seen));
        self.regression = Record::default();
        self.last_observed.restart_errors();
        for index in seen..self.outcomes.len() {
            let Outcome { state, ttft_seconds, smoothed_seconds, .. } = self.outcomes[index];
            let Some(baseline) = baseline(smoothed_seconds, &state) else { continue };
            let Some(seconds) = self.by_regression(&state) else { continue };
            self.last_observed.score_error(baseline, ttft_seconds);
            self.regression.score(seconds, ttft_seconds, state.age_seconds);
        }
    }
}

impl Outcome {
    /// The rate of completions, per second, when the backend was loaded; else it says nothing of the rate of service.
    fn served_rps(&self) -> Option<f64> {
        let WaitState { queue_depth, completed_rps, .. } = self.state;
        let loaded = queue_depth > 0.0 && self.ttft_seconds * completed_rps >= LOADED_SHARE * queue_depth;
        loaded.then_some(completed_rps)
    }
}

impl Fitted {
    fn new<'a>(outcomes: impl DoubleEndedIterator<Item = &'a Outcome> + Clone) -> Option<Self> {
        let served_rps = best_served_rps(outcomes.clone());
        let mut rows = Rows::default();
        let mut deepest_queue = 0.0_f64;
        for (age, outcome) in outcomes.rev().enumerate() {
            let weight = outcome.count * (-std::f64::consts::LN_2 * age as f64 / HALF_LIFE_OUTCOMES).exp();
            rows.push(&features(&outcome.state, served_rps), log_seconds(outcome.ttft_seconds), weight);
            deepest_queue = deepest_queue.max(outcome.state.queue_depth);
        }
        Some(Self { line: LinearFit::fit(&rows, RIDGE)?, deepest_queue, served_rps })
    }
}

/// The last observed TTFT, in seconds: what the backend shows, else what outcomes have shown, smoothed.
///
/// What is shown comes first because it was known when the state was: outcomes arrive later than the states they
/// followed, and a baseline that is judged on them would know its future.
fn baseline(smoothed_seconds: Option<f64>, state: &WaitState) -> Option<f64> {
    state.ttft_seconds.map(|seconds| seconds.clamp(SECONDS_MIN, SECONDS_MAX)).or(smoothed_seconds)
}

/// The best rate at which a loaded backend was seen to complete requests, per second.
fn best_served_rps<'a>(outcomes: impl Iterator<Item = &'a Outcome>) -> Option<f64> {
    outcomes.filter_map(Outcome::served_rps).reduce(f64::max)
}

/// Raises a prediction for a queue deeper than any that was met: by the time in which the excess is served, and to at
/// least that of the whole queue. Without a rate of service, in proportion to the queue.
fn at_queue(seconds: f64, state: &WaitState, deepest: f64, served_rps: Option<f64>) -> f64 {
    if state.queue_depth <= deepest {
        return seconds;
    }
    let excess = WaitState { queue_depth: state.queue_depth - deepest, ..*state };
    let raised = match (little_seconds(&excess, served_rps), little_seconds(state, served_rps)) {
        (Some(more), Some(whole)) => (seconds + more).max(whole),
        _ => seconds * (1.0 + state.queue_depth) / (1.0 + deepest),
    };
    raised.min(SECONDS_MAX)
}

/// A state as it was read, before it is known to be usable.
#[derive(Deserialize)]
struct Saved {
    version: u32,
    config: WaitConfig,
    outcomes: VecDeque<Outcome>,
    smoothed_seconds: Option<f64>,
    fit: Option<Fitted>,
    regression: Record,
    last_observed: Record,
}

impl TryFrom<Saved> for WaitModel {
    type Error = Error;

    fn try_from(saved: Saved) -> Result<Self, Error> {
        let Saved { version, config, outcomes, smoothed_seconds, fit, regression, last_observed } = saved;
        if version != VERSION {
            return Err(Error::Version { found: version, supported: VERSION });
        }
        if Self::new(config).config != config || outcomes.len() > config.outcomes {
            return Err(Error::Inconsistent("outcomes differ from the configuration"));
        }
        if fit.as_ref().is_some_and(|fit| !fit.line.is_sound() || fit.line.width() != FEATURES) {
            return Err(Error::Inconsistent("a regression that cannot be computed"));
        }
        Ok(Self { version, config, outcomes, smoothed_seconds, fit, regression, last_observed })
    }
}
