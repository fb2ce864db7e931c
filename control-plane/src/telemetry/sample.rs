use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// What one backend showed at one instant, whatever engine it runs.
///
/// Gauges are the values at `at`; counts and means cover the `interval_seconds` since the sample before it.
/// A field is `None` when the engine does not export it, or when it was implausible and dropped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// When the answer of the backend arrived.
    pub at: DateTime<Utc>,
    /// The backend's address, `host:port`, as configured.
    pub backend: Arc<str>,
    /// Time since the backend's previous sample, in seconds; 0 for the first one or after a restart of the engine.
    pub interval_seconds: f64,
    /// Requests that wait for a place in the batch.
    pub queue_depth: Option<f64>,
    /// Requests in the running batch.
    pub running: Option<f64>,
    /// Part of the KV cache in use, 0 to 1.
    pub kv_used: Option<f64>,
    /// GPU utilisation, 0 to 1.
    pub gpu_utilisation: Option<f64>,
    /// Mean time to first token of the requests that got theirs within the interval, in seconds.
    pub ttft_seconds: Option<f64>,
    /// How many requests got their first token within the interval.
    pub ttft_count: f64,
    /// Mean time between output tokens within the interval, in seconds.
    pub inter_token_seconds: Option<f64>,
    /// Requests that arrived within the interval: completions plus the growth of `running + queue_depth`, at least 0.
    pub arrived: f64,
    /// Requests that ended within the interval.
    pub completed: f64,
    /// Prompt tokens processed within the interval.
    pub prompt_tokens: f64,
    /// Output tokens produced within the interval.
    pub output_tokens: f64,
    /// True when the backend says that it is simulated (it exports a series whose name starts with `simulator_`).
    pub simulated: bool,
}
