use std::fmt::{self, Write};

use prometheus_client::encoding::{EncodeLabelValue, LabelValueEncoder};
use serde::{Deserialize, Serialize};

use super::drops::DropReason;

/// One canonical quantity of a metrics page, whatever the engine calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Field {
    /// Requests that wait for a place in the batch.
    QueueDepth,
    /// Requests in the running batch.
    Running,
    /// Part of the KV cache in use, 0 to 1.
    KvUsed,
    /// Tokens or blocks of the KV cache in use; with [`Field::KvTokens`] it stands in for a missing [`Field::KvUsed`].
    KvTokensUsed,
    /// Size of the KV cache in the same unit.
    KvTokens,
    /// GPU utilisation, 0 to 1.
    GpuUtilisation,
    /// Sum of all times to first token since the engine started, in seconds.
    TtftSum,
    /// Number of times to first token since the engine started.
    TtftCount,
    /// Number of those up to an edge, in seconds.
    TtftBucket,
    /// Sum of all times between output tokens since the engine started, in seconds.
    InterTokenSum,
    /// Number of times between output tokens since the engine started.
    InterTokenCount,
    /// Number of those up to an edge, in seconds.
    InterTokenBucket,
    /// Sum of all waits for a place in the batch since the engine started, in seconds.
    QueueWaitSum,
    /// Number of such waits since the engine started.
    QueueWaitCount,
    /// Requests that ended since the engine started.
    Completed,
    /// Prompt tokens processed since the engine started.
    PromptTokens,
    /// Output tokens produced since the engine started.
    OutputTokens,
    /// Steps of the engine since it started.
    Iterations,
    /// Tokens processed in these steps.
    IterationTokens,
    /// Requests put back into the queue since the engine started.
    Preempted,
    /// Most requests in a batch.
    MaxRunning,
    /// Most tokens in a step.
    TokenBudget,
    /// Tokens in a block of the KV cache.
    BlockSize,
    /// Blocks of the KV cache.
    Blocks,
}

/// A time of which engines keep a histogram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timing {
    /// From arrival to first token.
    Ttft,
    /// Between output tokens.
    InterToken,
    /// From arrival to a place in the batch.
    QueueWait,
}

impl Timing {
    /// Returns the series of such a histogram that are read: suffix, field, and scale if that of the times is `scale`.
    pub fn series(self, scale: f64) -> impl Iterator<Item = (&'static str, Field, f64)> {
        let (sum, count, bucket) = match self {
            Self::Ttft => (Field::TtftSum, Field::TtftCount, Some(Field::TtftBucket)),
            Self::InterToken => (Field::InterTokenSum, Field::InterTokenCount, Some(Field::InterTokenBucket)),
            // Its edges are too coarse for quantiles: in vLLM the first is 0.3 s.
            Self::QueueWait => (Field::QueueWaitSum, Field::QueueWaitCount, None),
        };
        let parts = [("_sum", sum, scale), ("_count", count, 1.0)];
        parts.into_iter().chain(bucket.map(|bucket| ("_bucket", bucket, scale)))
    }
}

/// How a field behaves from reading to reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Its value now.
    Gauge,
    /// Grows, and begins anew when the engine restarts.
    Counter,
    /// A sum of times: grows with its count.
    Sum,
    /// Counters by edge.
    Bucket,
    /// Does not change while the engine runs.
    Limit,
}

/// How the series of one field (ranks, GPUs, reasons) become one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Combine {
    /// Each series is a part of the whole: without one of them the sum is wrong.
    Sum,
    /// Each series speaks for itself: one that is missing leaves a mean of the others.
    Mean,
    /// All say the same, or the largest holds.
    Max,
}

impl Field {
    /// Number of fields.
    pub const COUNT: usize = 24;

    /// All fields, in the order of their indices.
    pub const ALL: [Self; Self::COUNT] = [
        Self::QueueDepth,
        Self::Running,
        Self::KvUsed,
        Self::KvTokensUsed,
        Self::KvTokens,
        Self::GpuUtilisation,
        Self::TtftSum,
        Self::TtftCount,
        Self::TtftBucket,
        Self::InterTokenSum,
        Self::InterTokenCount,
        Self::InterTokenBucket,
        Self::QueueWaitSum,
        Self::QueueWaitCount,
        Self::Completed,
        Self::PromptTokens,
        Self::OutputTokens,
        Self::Iterations,
        Self::IterationTokens,
        Self::Preempted,
        Self::MaxRunning,
        Self::TokenBudget,
        Self::BlockSize,
        Self::Blocks,
    ];

    /// The field's name in labels, files and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::QueueDepth => "queue_depth",
            Self::Running => "running",
            Self::KvUsed => "kv_used",
            Self::KvTokensUsed => "kv_tokens_used",
            Self::KvTokens => "kv_tokens",
            Self::GpuUtilisation => "gpu_utilisation",
            Self::TtftSum => "ttft_sum",
            Self::TtftCount => "ttft_count",
            Self::TtftBucket => "ttft_bucket",
            Self::InterTokenSum => "inter_token_sum",
            Self::InterTokenCount => "inter_token_count",
            Self::InterTokenBucket => "inter_token_bucket",
            Self::QueueWaitSum => "queue_wait_sum",
            Self::QueueWaitCount => "queue_wait_count",
            Self::Completed => "completed",
            Self::PromptTokens => "prompt_tokens",
            Self::OutputTokens => "output_tokens",
            Self::Iterations => "iterations",
            Self::IterationTokens => "iteration_tokens",
            Self::Preempted => "preempted",
            Self::MaxRunning => "max_running",
            Self::TokenBudget => "token_budget",
            Self::BlockSize => "block_size",
            Self::Blocks => "blocks",
        }
    }

    /// How the field behaves from reading to reading.
    pub fn kind(self) -> Kind {
        match self {
            Self::QueueDepth | Self::Running | Self::KvUsed | Self::KvTokensUsed | Self::GpuUtilisation => {
                Kind::Gauge
            }
            Self::TtftSum | Self::InterTokenSum | Self::QueueWaitSum => Kind::Sum,
            Self::TtftBucket | Self::InterTokenBucket => Kind::Bucket,
            Self::KvTokens | Self::MaxRunning | Self::TokenBudget | Self::BlockSize | Self::Blocks => {
                Kind::Limit
            }
            Self::TtftCount
            | Self::InterTokenCount
            | Self::QueueWaitCount
            | Self::Completed
            | Self::PromptTokens
            | Self::OutputTokens
            | Self::Iterations
            | Self::IterationTokens
            | Self::Preempted => Kind::Counter,
        }
    }

    pub(super) fn combine(self) -> Combine {
        match self {
            Self::KvUsed | Self::GpuUtilisation => Combine::Mean,
            Self::BlockSize => Combine::Max,
            _ => Combine::Sum,
        }
    }

    /// True for a value from 0 to 1.
    pub(super) fn is_fraction(self) -> bool {
        self.combine() == Combine::Mean
    }

    /// The largest value that is believed.
    fn limit(self) -> f64 {
        match self {
            // A fraction; engines round a full cache to slightly more than 1.
            Self::KvUsed | Self::GpuUtilisation => 1.05,
            Self::QueueDepth | Self::Running => 1e6,
            _ => f64::MAX,
        }
    }

    /// Exporters write "not supported" as a number near the largest 64-bit integer.
    pub(super) const SENTINEL: f64 = 9.2e18;

    /// Returns a value of another unit if a working server could have reported it.
    ///
    /// # Errors
    /// Says why the value is not believed.
    pub fn believe_scaled(self, value: f64, scale: f64) -> Result<f64, DropReason> {
        if value.is_finite() && value >= Self::SENTINEL {
            return Err(DropReason::Sentinel);
        }
        self.believe(value * scale)
    }

    /// Returns the value if a working server could have reported it, fractions cut at 1.
    ///
    /// # Errors
    /// Says why the value is not believed.
    pub fn believe(self, value: f64) -> Result<f64, DropReason> {
        if value.is_nan() {
            return Err(DropReason::NotANumber);
        }
        if value.is_infinite() {
            return Err(DropReason::Infinite);
        }
        if value < 0.0 {
            return Err(DropReason::Negative);
        }
        if value >= Self::SENTINEL {
            return Err(DropReason::Sentinel);
        }
        if value > self.limit() {
            return Err(DropReason::TooLarge);
        }
        if self.is_fraction() { Ok(value.min(1.0)) } else { Ok(value) }
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl EncodeLabelValue for Field {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        encoder.write_str(self.as_str())
    }
}

/// A set of fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FieldSet(u32);

impl FieldSet {
    /// Adds a field.
    pub fn insert(&mut self, field: Field) {
        self.0 |= 1 << field as u32;
    }

    /// Takes a field out.
    pub fn remove(&mut self, field: Field) {
        self.0 &= !(1 << field as u32);
    }

    /// Tells whether a field is in it.
    pub fn contains(self, field: Field) -> bool {
        self.0 & (1 << field as u32) != 0
    }

    /// Number of fields.
    pub fn len(self) -> u32 {
        self.0.count_ones()
    }

    /// True for the empty set.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Fields of both.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Yields the fields, in their order.
    pub fn iter(self) -> impl Iterator<Item = Field> {
        Field::ALL.into_iter().filter(move |field| self.contains(*field))
    }
}

impl FromIterator<Field> for FieldSet {
    fn from_iter<I: IntoIterator<Item = Field>>(fields: I) -> Self {
        let mut set = Self::default();
        fields.into_iter().for_each(|field| set.insert(field));
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_are_those_of_the_list() {
        for (index, field) in Field::ALL.into_iter().enumerate() {
            assert_eq!(field as usize, index);
            assert_eq!(serde_json::to_value(field).unwrap(), field.as_str());
        }
    }
}
