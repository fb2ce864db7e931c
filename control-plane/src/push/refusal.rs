use std::fmt::{self, Write};
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelValue, LabelValueEncoder};
use thiserror::Error;

/// Why a point was refused while the rest of its request was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum PointRefusal {
    /// Its labels name no backend of a pool that pushes.
    UnknownBackend,
    /// The sender's token, or certificate, is for other pools.
    Forbidden,
    /// Older than allowed.
    TooOld,
    /// Ahead of the own clock.
    Future,
    /// Name and labels are too long.
    LabelsTooLong,
    /// It or its resource has too many labels.
    TooManyLabels,
    /// Bounds and counts do not fit together, or are too many.
    BadHistogram,
    /// No value.
    NoValue,
    /// What is counted is not finite, below zero, or a number by which exporters say "not supported".
    BadCount,
    /// An increment without a time: whether it came before could not be told.
    NoTime,
}

impl PointRefusal {
    const ALL: [Self; 10] = [
        Self::UnknownBackend,
        Self::Forbidden,
        Self::TooOld,
        Self::Future,
        Self::LabelsTooLong,
        Self::TooManyLabels,
        Self::BadHistogram,
        Self::NoValue,
        Self::BadCount,
        Self::NoTime,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::UnknownBackend => "unknown_backend",
            Self::Forbidden => "forbidden",
            Self::TooOld => "too_old",
            Self::Future => "future",
            Self::LabelsTooLong => "labels_too_long",
            Self::TooManyLabels => "too_many_labels",
            Self::BadHistogram => "bad_histogram",
            Self::NoValue => "no_value",
            Self::BadCount => "bad_count",
            Self::NoTime => "no_time",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::UnknownBackend => "no backend of a pool with `telemetry: push` goes by it",
            Self::Forbidden => "neither token nor certificate is for the pool of this backend",
            Self::TooOld => "too old",
            Self::Future => "from the future",
            Self::LabelsTooLong => "name and labels are longer than 512 bytes",
            Self::TooManyLabels => "more than 128 labels or attributes",
            Self::BadHistogram => "its buckets do not fit together, or are too many",
            Self::NoValue => "no value",
            Self::BadCount => "a count that is no number, negative, or 9.2e18 and more",
            Self::NoTime => "an increment (delta temporality) without a time",
        }
    }
}

impl EncodeLabelValue for PointRefusal {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        encoder.write_str(self.as_str())
    }
}

/// What became of the points of one request that are not in its batch.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    /// Points with names that no engine has.
    pub(super) unknown: u64,
    refused: [u64; PointRefusal::ALL.len()],
    first: Option<String>,
}

impl Tally {
    pub(super) fn refuse(&mut self, points: u64, refusal: PointRefusal, detail: impl FnOnce() -> String) {
        self.refused[refusal as usize] += points;
        if self.first.is_none() && points > 0 {
            self.first = Some(format!("{}: {}", detail(), refusal.words()));
        }
    }

    /// All points that were refused.
    pub(super) fn refused(&self) -> u64 {
        self.refused.iter().sum()
    }

    /// Points refused for a reason.
    pub(super) fn refused_as(&self, refusal: PointRefusal) -> u64 {
        self.refused[refusal as usize]
    }

    pub(super) fn by_reason(&self) -> impl Iterator<Item = (PointRefusal, u64)> {
        PointRefusal::ALL
            .into_iter()
            .map(|refusal| (refusal, self.refused_as(refusal)))
            .filter(|(_, points)| *points > 0)
    }

    /// What the sender is told; none when nothing was refused.
    pub(super) fn message(&self) -> Option<String> {
        let first = self.first.as_ref()?;
        let refused = self.refused();
        Some(format!("{refused} points refused, the first one because of {first}"))
    }
}

/// Why a whole request was refused; nothing of it was taken.
#[derive(Clone, Debug, PartialEq, Error)]
pub(super) enum RequestRefusal {
    #[error("the body is longer than {limit} bytes")]
    TooLarge { limit: usize },
    #[error("labels and buckets of one request take more than {limit} bytes")]
    TooMuch { limit: usize },
    #[error("more than {limit} points in one request")]
    TooManyPoints { limit: usize },
    #[error("{0}")]
    Malformed(String),
    #[error("{0}")]
    Unsupported(String),
    #[error("a bearer token of telemetry.push.tokens, or a certificate of telemetry.push.clients, is needed")]
    Unauthenticated,
    #[error("pages of browsers may not send telemetry")]
    Browser,
    #[error("{0}; come back later")]
    Busy(&'static str),
    #[error("the body did not arrive within {} s", .0.as_secs_f64())]
    TooSlow(Duration),
    #[error("the body broke off")]
    Broken,
    #[error("there is nothing here")]
    NotFound,
    #[error("only POST is answered here")]
    Method,
}

impl RequestRefusal {
    /// The refusal without its details, as a label.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } | Self::TooMuch { .. } => "too_large",
            Self::TooManyPoints { .. } => "too_many_points",
            Self::Malformed(_) => "malformed",
            Self::Unsupported(_) => "unsupported",
            Self::Unauthenticated => "unauthenticated",
            Self::Browser => "browser",
            Self::Busy(_) => "busy",
            Self::TooSlow(_) => "too_slow",
            Self::Broken => "broken",
            Self::NotFound => "not_found",
            Self::Method => "method",
        }
    }
}

impl From<super::wire::BadWire> for RequestRefusal {
    fn from(error: super::wire::BadWire) -> Self {
        Self::Malformed(error.to_string())
    }
}
