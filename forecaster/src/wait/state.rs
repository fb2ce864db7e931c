use serde::{Deserialize, Serialize};

/// What is seen of one backend: the gauges of a scrape and rates from its counters.
///
/// What is unknown is `None`; what is negative or not finite counts as unknown too. Nothing but the queue is needed.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct WaitState {
    /// Requests waiting for admission; a mean may be given. Unknown counts as none.
    pub waiting: Option<f64>,
    /// Prompt tokens of the requests that wait.
    pub waiting_prompt_tokens: Option<f64>,
    /// Requests being served.
    pub running: Option<f64>,
    /// Share of the KV cache in use, 0 to 1.
    pub kv_used: Option<f64>,
    /// Utilisation of the GPU, 0 to 1.
    pub gpu_utilisation: Option<f64>,
    /// Recent mean time between two tokens of a stream, in seconds.
    pub inter_token_seconds: Option<f64>,
    /// Recent rate of output tokens, per second.
    pub output_tps: Option<f64>,
    /// Recent rate of prompt tokens, per second.
    pub prompt_tps: Option<f64>,
    /// Recent rate of arrivals, requests per second.
    pub arrived_rps: Option<f64>,
    /// Recent mean time from arrival to admission, in seconds.
    pub recent_wait_seconds: Option<f64>,
    /// Recent mean TTFT, in seconds.
    pub recent_ttft_seconds: Option<f64>,
    /// Age of all this when the wait is asked for, in seconds.
    pub age_seconds: f64,
}

/// The question for the TTFT of a request that arrives now.
///
/// A router knows all of it. A control plane that is told of arrivals by reports knows the state alone, and leaves
/// the rest `None`: the request is then a typical one, and what arrived since the state follows from
/// [`arrived_rps`](WaitState::arrived_rps).
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct WaitQuery {
    /// What is seen of the backend.
    pub state: WaitState,
    /// The time of the question, in seconds on any clock that does not go back; the same clock as in
    /// [`WaitModel::observe`](crate::WaitModel::observe).
    pub now_seconds: f64,
    /// Prompt tokens of this request.
    pub prompt_tokens: Option<f64>,
    /// Requests sent to the backend since the state was taken.
    pub sent_requests: Option<f64>,
    /// Their prompt tokens.
    pub sent_prompt_tokens: Option<f64>,
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
    /// Keeps 900 outcomes, a quarter of an hour at one a second, and fits from 60 on.
    fn default() -> Self {
        Self { outcomes: 900, outcomes_min: 60 }
    }
}

impl WaitConfig {
    /// Returns the settings with every value in its range.
    pub(super) fn clamped(self) -> Self {
        let outcomes = self.outcomes.clamp(60, 10_000);
        Self { outcomes, outcomes_min: self.outcomes_min.clamp(20, outcomes) }
    }
}

/// Values above this are no measurement of a backend.
const MEASURED_MAX: f64 = 1e12;

impl WaitQuery {
    /// Returns the query with nothing in it that cannot be computed with.
    pub(super) fn cleaned(&self) -> Self {
        let measured = |value: Option<f64>| {
            value.filter(|value| value.is_finite() && *value >= 0.0).map(|value| value.min(MEASURED_MAX))
        };
        let share = |value: Option<f64>| measured(value).map(|value| value.min(1.0));
        let state = WaitState {
            waiting: measured(self.state.waiting),
            waiting_prompt_tokens: measured(self.state.waiting_prompt_tokens),
            running: measured(self.state.running),
            kv_used: share(self.state.kv_used),
            gpu_utilisation: share(self.state.gpu_utilisation),
            inter_token_seconds: measured(self.state.inter_token_seconds).filter(|seconds| *seconds > 0.0),
            output_tps: measured(self.state.output_tps),
            prompt_tps: measured(self.state.prompt_tps),
            arrived_rps: measured(self.state.arrived_rps),
            recent_wait_seconds: measured(self.state.recent_wait_seconds),
            recent_ttft_seconds: measured(self.state.recent_ttft_seconds).filter(|seconds| *seconds > 0.0),
            age_seconds: measured(Some(self.state.age_seconds)).unwrap_or(0.0),
        };
        let now_seconds = if self.now_seconds.is_finite() { self.now_seconds } else { 0.0 };
        Self {
            state,
            now_seconds: now_seconds.clamp(-MEASURED_MAX, MEASURED_MAX),
            prompt_tokens: measured(self.prompt_tokens).map(|tokens| tokens.max(1.0)),
            sent_requests: measured(self.sent_requests),
            sent_prompt_tokens: measured(self.sent_prompt_tokens),
        }
    }
}
