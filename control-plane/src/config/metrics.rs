use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Names of metrics of the user's own; each goes before what the engine is known to export.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MetricNames {
    /// Gauge: requests that wait for a place in the batch.
    pub queue_depth: Option<MetricName>,
    /// Gauge: requests in the batch.
    pub running: Option<MetricName>,
    /// Gauge: part of the KV cache in use, 0 to 1.
    pub kv_used: Option<MetricName>,
    /// Gauge: GPU utilisation, 0 to 1.
    pub gpu_utilisation: Option<MetricName>,
    /// Histogram of times to first token.
    pub ttft: Option<HistogramName>,
    /// Histogram of times between output tokens.
    pub inter_token: Option<HistogramName>,
    /// Histogram of waits for a place in the batch.
    pub queue_wait: Option<HistogramName>,
    /// Counter: requests that ended.
    pub completed: Option<MetricName>,
    /// Counter: prompt tokens.
    pub prompt_tokens: Option<MetricName>,
    /// Counter: output tokens.
    pub output_tokens: Option<MetricName>,
    /// Counter: steps of the engine.
    pub iterations: Option<MetricName>,
    /// Counter: tokens processed in these steps.
    pub iteration_tokens: Option<MetricName>,
    /// Counter: requests put back into the queue.
    pub preempted: Option<MetricName>,
}

/// A metric by its name, or with more to it.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum MetricName {
    /// Just its name.
    Name(String),
    /// Name, unit and labels.
    Detailed(MetricDetails),
}

/// A metric with its unit and labels.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MetricDetails {
    /// Its name.
    pub metric: String,
    /// What its value is multiplied with (default 1).
    #[serde(default = "one")]
    pub scale: f64,
    /// Only series with these labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// A histogram by its name, or with more to it.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum HistogramName {
    /// Just its name, without `_bucket`, `_sum` or `_count`.
    Name(String),
    /// Name, unit and labels.
    Detailed(HistogramDetails),
}

/// A histogram with its unit and labels.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HistogramDetails {
    /// Its name, without `_bucket`, `_sum` or `_count`.
    pub histogram: String,
    /// What its times are multiplied with to be seconds (default 1; 0.001 for milliseconds).
    #[serde(default = "one")]
    pub scale: f64,
    /// Only series with these labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

fn one() -> f64 {
    1.0
}

/// Name, scale and labels of a setting.
type Parts<'a> = (&'a str, f64, Vec<(String, String)>);

fn pairs(labels: &BTreeMap<String, String>) -> Vec<(String, String)> {
    labels.iter().map(|(label, value)| (label.clone(), value.clone())).collect()
}

impl MetricName {
    /// Name, scale, and labels that a series must have.
    pub fn parts(&self) -> Parts<'_> {
        match self {
            Self::Name(name) => (name, 1.0, Vec::new()),
            Self::Detailed(details) => (&details.metric, details.scale, pairs(&details.labels)),
        }
    }
}

impl HistogramName {
    /// Name, scale, and labels that a series must have.
    pub fn parts(&self) -> Parts<'_> {
        match self {
            Self::Name(name) => (name, 1.0, Vec::new()),
            Self::Detailed(details) => (&details.histogram, details.scale, pairs(&details.labels)),
        }
    }
}

impl MetricNames {
    /// Yields the settings that cannot be meant, with what is wrong.
    pub(super) fn faults(&self) -> Vec<(&'static str, String)> {
        let values = [
            ("queue_depth", &self.queue_depth),
            ("running", &self.running),
            ("kv_used", &self.kv_used),
            ("gpu_utilisation", &self.gpu_utilisation),
            ("completed", &self.completed),
            ("prompt_tokens", &self.prompt_tokens),
            ("output_tokens", &self.output_tokens),
            ("iterations", &self.iterations),
            ("iteration_tokens", &self.iteration_tokens),
            ("preempted", &self.preempted),
        ];
        let times =
            [("ttft", &self.ttft), ("inter_token", &self.inter_token), ("queue_wait", &self.queue_wait)];
        let values = values.map(|(key, setting)| (key, setting.as_ref().map(MetricName::parts)));
        let times = times.map(|(key, setting)| (key, setting.as_ref().map(HistogramName::parts)));
        let mut faults = Vec::new();
        for (key, parts) in values.into_iter().chain(times) {
            let Some((name, scale, _)) = parts else { continue };
            if name.trim().is_empty() || name.len() > 200 {
                faults.push((key, "a metric's name has 1 to 200 characters".to_owned()));
            } else if name.contains('{') {
                let message = format!("{name}: the name only; labels go into `labels`");
                faults.push((key, message));
            }
            if !(scale.is_finite() && scale > 0.0) {
                faults.push((key, format!("scale {scale} is not above 0")));
            }
        }
        faults
    }
}

/// What an engine's settings allow, where the engine does not export it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EngineLimits {
    /// Most requests in a batch.
    pub max_num_seqs: Option<u32>,
    /// Most tokens in a step.
    pub max_num_batched_tokens: Option<u32>,
    /// Tokens in a block of the KV cache.
    pub block_size: Option<u32>,
    /// Blocks of the KV cache.
    pub num_blocks: Option<u32>,
}
