use std::fmt::{self, Write};

use prometheus_client::encoding::{EncodeLabelValue, LabelValueEncoder};

/// One canonical quantity of a metrics page, whatever the engine calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Field {
    /// Requests that wait for a place in the batch.
    QueueDepth,
    /// Requests in the running batch.
    Running,
    /// Part of the KV cache in use, 0 to 1.
    KvUsed,
    /// GPU utilisation, 0 to 1.
    GpuUtilisation,
    /// Sum of all times to first token since the engine started, in seconds.
    TtftSum,
    /// Number of times to first token since the engine started.
    TtftCount,
    /// Sum of all times between output tokens since the engine started, in seconds.
    InterTokenSum,
    /// Number of times between output tokens since the engine started.
    InterTokenCount,
    /// Requests that ended since the engine started.
    Completed,
    /// Prompt tokens processed since the engine started.
    PromptTokens,
    /// Output tokens produced since the engine started.
    OutputTokens,
}

/// How the series of one field (ranks, GPUs, reasons) become one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Combine {
    /// Each series is a part of the whole: without one of them the sum is wrong.
    Sum,
    /// Each series speaks for itself: one that is missing leaves a mean of the others.
    Mean,
}

impl Field {
    /// All fields, in the order of their indices.
    pub const ALL: [Self; 11] = [
        Self::QueueDepth,
        Self::Running,
        Self::KvUsed,
        Self::GpuUtilisation,
        Self::TtftSum,
        Self::TtftCount,
        Self::InterTokenSum,
        Self::InterTokenCount,
        Self::Completed,
        Self::PromptTokens,
        Self::OutputTokens,
    ];

    /// The field's name in labels and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::QueueDepth => "queue_depth",
            Self::Running => "running",
            Self::KvUsed => "kv_used",
            Self::GpuUtilisation => "gpu_utilisation",
            Self::TtftSum => "ttft_sum",
            Self::TtftCount => "ttft_count",
            Self::InterTokenSum => "inter_token_sum",
            Self::InterTokenCount => "inter_token_count",
            Self::Completed => "completed",
            Self::PromptTokens => "prompt_tokens",
            Self::OutputTokens => "output_tokens",
        }
    }

    pub(super) fn combine(self) -> Combine {
        match self {
            Self::KvUsed | Self::GpuUtilisation => Combine::Mean,
            _ => Combine::Sum,
        }
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
        if value > self.limit() {
            return Err(DropReason::TooLarge);
        }
        match self.combine() {
            Combine::Mean => Ok(value.min(1.0)),
            Combine::Sum => Ok(value),
        }
    }
}

/// Why a value was not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DropReason {
    /// NaN.
    NotANumber,
    /// Plus or minus infinity.
    Infinite,
    /// Below zero.
    Negative,
    /// One of the huge numbers (9.2e18 and more) by which exporters say "not supported".
    Sentinel,
    /// Beyond what a server can reach.
    TooLarge,
}

impl DropReason {
    /// All reasons, in the order of their indices.
    pub const ALL: [Self; 5] =
        [Self::NotANumber, Self::Infinite, Self::Negative, Self::Sentinel, Self::TooLarge];

    /// The reason's name in labels and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotANumber => "not_a_number",
            Self::Infinite => "infinite",
            Self::Negative => "negative",
            Self::Sentinel => "sentinel",
            Self::TooLarge => "too_large",
        }
    }
}

impl EncodeLabelValue for Field {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        encoder.write_str(self.as_str())
    }
}

impl EncodeLabelValue for DropReason {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        encoder.write_str(self.as_str())
    }
}

/// How many values were not believed, by field and reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Drops {
    counts: [[u32; DropReason::ALL.len()]; Field::ALL.len()],
}

impl Drops {
    /// Counts one dropped value.
    pub fn add(&mut self, field: Field, reason: DropReason) {
        let count = &mut self.counts[field as usize][reason as usize];
        *count = count.saturating_add(1);
    }

    /// Counts all that another tally counted.
    pub fn merge(&mut self, other: &Self) {
        for (field, reason, count) in other.iter() {
            let own = &mut self.counts[field as usize][reason as usize];
            *own = own.saturating_add(count);
        }
    }

    /// Yields every pair that occurred, with its count.
    pub fn iter(&self) -> impl Iterator<Item = (Field, DropReason, u32)> {
        Field::ALL.into_iter().flat_map(move |field| {
            DropReason::ALL
                .into_iter()
                .map(move |reason| (field, reason, self.counts[field as usize][reason as usize]))
                .filter(|(_, _, count)| *count > 0)
        })
    }

    /// True when nothing was dropped.
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }
}
