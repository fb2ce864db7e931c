use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// What one backend showed at one instant, whatever engine it runs.
///
/// Gauges are the values at `at`; counts and means cover the `interval_seconds` since the sample before it.
/// A field is `None` when the engine does not export it, or when it was implausible and dropped.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
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
    /// The same of the fullest of its data-parallel engines.
    pub kv_used_max: Option<f64>,
    /// GPU utilisation, 0 to 1.
    pub gpu_utilisation: Option<f64>,
    /// Mean time to first token of the requests that got theirs within the interval, in seconds.
    pub ttft_seconds: Option<f64>,
    /// How many requests got their first token within the interval.
    pub ttft_count: f64,
    /// Median of those times, as far as the engine's histogram tells, in seconds.
    pub ttft_p50_seconds: Option<f64>,
    /// 95th percentile of those times, in seconds.
    pub ttft_p95_seconds: Option<f64>,
    /// Mean time between output tokens within the interval, in seconds.
    pub inter_token_seconds: Option<f64>,
    /// 95th percentile of the time between output tokens, in seconds.
    pub inter_token_p95_seconds: Option<f64>,
    /// Mean time that the requests scheduled within the interval had waited for a place in the batch, in seconds.
    pub queue_wait_seconds: Option<f64>,
    /// Steps of the engine within the interval.
    pub iterations: f64,
    /// Tokens, of prompts and of outputs, that these steps processed.
    pub iteration_tokens: f64,
    /// Requests put back into the queue within the interval, for want of KV cache.
    pub preempted: f64,
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

impl Sample {
    /// The sample as the database gives it back: times to the microsecond, gauges and means with the digits of a 32-bit
    /// number. Whoever decides on this decides the same when it is replayed.
    #[must_use]
    pub fn as_kept(self) -> Self {
        let short = |value: f64| f64::from(value as f32);
        let maybe = |value: Option<f64>| value.map(short);
        Self {
            at: DateTime::from_timestamp_micros(self.at.timestamp_micros()).unwrap_or(self.at),
            interval_seconds: short(self.interval_seconds),
            queue_depth: maybe(self.queue_depth),
            running: maybe(self.running),
            kv_used: maybe(self.kv_used),
            kv_used_max: maybe(self.kv_used_max),
            gpu_utilisation: maybe(self.gpu_utilisation),
            ttft_seconds: maybe(self.ttft_seconds),
            ttft_p50_seconds: maybe(self.ttft_p50_seconds),
            ttft_p95_seconds: maybe(self.ttft_p95_seconds),
            inter_token_seconds: maybe(self.inter_token_seconds),
            inter_token_p95_seconds: maybe(self.inter_token_p95_seconds),
            queue_wait_seconds: maybe(self.queue_wait_seconds),
            iterations: short(self.iterations),
            iteration_tokens: short(self.iteration_tokens),
            preempted: short(self.preempted),
            ..self
        }
    }
}
