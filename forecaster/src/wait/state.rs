use serde::{Deserialize, Serialize};

use super::features::at_least_zero;

/// What a scrape shows of one backend. What is negative or not finite counts as zero or unknown.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct WaitState {
    /// Requests waiting for admission; a mean may be given.
    pub queue_depth: f64,
    /// Requests being served.
    pub running: f64,
    /// Share of the KV cache in use, 0 to 1.
    pub kv_used: f64,
    /// Utilisation of the GPU, 0 to 1.
    pub gpu_utilisation: Option<f64>,
    /// Recent mean time between two tokens of a stream, in seconds.
    pub inter_token_seconds: Option<f64>,
    /// Recent rate of completed requests, per second.
    pub completed_rps: f64,
    /// Mean TTFT of the requests that got their first token most recently, in seconds.
    pub ttft_seconds: Option<f64>,
    /// Age of all this when the prediction is made, in seconds.
    pub age_seconds: f64,
}

/// Settings of a [`WaitModel`](crate::WaitModel).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitConfig {
    /// Outcomes kept and learned from; taken to be between 60 and 10,000.
    pub outcomes: usize,
    /// Outcomes needed for a regression; taken to be at least 20.
    pub outcomes_min: usize,
}

impl Default for WaitConfig {
    /// Keeps 600 outcomes, ten minutes at one a second, and fits from 30 on.
    fn default() -> Self {
        Self { outcomes: 600, outcomes_min: 30 }
    }
}

/// Where a [`WaitPrediction`] comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WaitSource {
    /// The fitted regression.
    Regression,
    /// What the backend's requests have lately waited.
    LastObserved,
    /// Nothing: no TTFT of this backend is known.
    None,
}

impl WaitSource {
    /// Returns the source's name, as it is serialised.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Regression => "regression",
            Self::LastObserved => "last_observed",
            Self::None => "none",
        }
    }
}

/// The predicted TTFT of the next request, in seconds, between 0 and 600.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct WaitPrediction {
    /// The central estimate. 0 when the source is [`WaitSource::None`]: unknown, not fast.
    pub mean_seconds: f64,
    /// The bound that nine outcomes in ten are to stay below; not under the estimate. 0 when the source is
    /// [`WaitSource::None`].
    pub upper_seconds: f64,
    /// Where they come from.
    pub source: WaitSource,
}

impl WaitPrediction {
    /// Returns the central estimate, `None` when nothing is known.
    pub fn known_seconds(&self) -> Option<f64> {
        (self.source != WaitSource::None).then_some(self.mean_seconds)
    }
}

/// A state with nothing in it that cannot be computed with, or saved.
pub(super) fn clean(state: &WaitState) -> WaitState {
    let measured = |value: Option<f64>| value.filter(|value| value.is_finite() && *value >= 0.0);
    WaitState {
        queue_depth: at_least_zero(state.queue_depth),
        running: at_least_zero(state.running),
        kv_used: at_least_zero(state.kv_used).min(1.0),
        gpu_utilisation: measured(state.gpu_utilisation),
        inter_token_seconds: measured(state.inter_token_seconds),
        completed_rps: at_least_zero(state.completed_rps),
        ttft_seconds: measured(state.ttft_seconds),
        age_seconds: at_least_zero(state.age_seconds),
    }
}
