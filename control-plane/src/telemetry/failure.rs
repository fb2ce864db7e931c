use std::fmt::{self, Write};

use prometheus_client::encoding::{EncodeLabelValue, LabelValueEncoder};
use thiserror::Error;

/// Why a metrics page gave nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Error)]
pub enum ScrapeFailure {
    /// The URL cannot be asked at all.
    #[error("metrics URL is not usable: {0}")]
    BadUrl(String),
    /// No connection.
    #[error("no connection: {0}")]
    Connect(String),
    /// The connection broke, or what came over it was no HTTP.
    #[error("answer broke off: {0}")]
    Broken(String),
    /// The page did not come in time.
    #[error("no complete metrics page within {0} ms")]
    Timeout(u64),
    /// Too many other scrapes were outstanding for half of the deadline.
    #[error("no free scrape slot within {0} ms")]
    NoSlot(u64),
    /// This process has as many files and connections open as it may have; it says nothing about the engine.
    #[error("no file descriptor is left here: {0}")]
    NoDescriptor(String),
    /// Not 200; redirects are not followed.
    #[error("metrics page answered with status {0}")]
    Status(u16),
    /// The page is longer than allowed; its rest was not read.
    #[error("metrics page is longer than {limit_bytes} bytes")]
    TooLarge {
        /// The most that is read.
        limit_bytes: usize,
    },
    /// Packed by something else than gzip.
    #[error("metrics page is packed as {0}, not gzip")]
    Packed(String),
    /// Something else than a metrics page.
    #[error("metrics page has content type {0}, which holds no metrics")]
    NotText(String),
    /// A metrics page, but nothing on it has a known name.
    #[error("metrics page has no known metric ({samples} samples, {bad_lines} unreadable lines)")]
    NoKnownMetrics {
        /// Lines that were samples of other names.
        samples: usize,
        /// Lines that were no samples.
        bad_lines: usize,
    },
}

/// [`ScrapeFailure`] without its details, as a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// [`ScrapeFailure::BadUrl`].
    BadUrl,
    /// [`ScrapeFailure::Connect`].
    Connect,
    /// [`ScrapeFailure::Broken`].
    Broken,
    /// [`ScrapeFailure::Timeout`].
    Timeout,
    /// [`ScrapeFailure::NoSlot`].
    NoSlot,
    /// [`ScrapeFailure::NoDescriptor`].
    NoDescriptor,
    /// [`ScrapeFailure::Status`].
    Status,
    /// [`ScrapeFailure::TooLarge`].
    TooLarge,
    /// [`ScrapeFailure::Packed`].
    Packed,
    /// [`ScrapeFailure::NotText`].
    NotText,
    /// [`ScrapeFailure::NoKnownMetrics`].
    NoKnownMetrics,
}

impl ScrapeFailure {
    /// The failure without its details.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::BadUrl(_) => FailureKind::BadUrl,
            Self::Connect(_) => FailureKind::Connect,
            Self::Broken(_) => FailureKind::Broken,
            Self::Timeout(_) => FailureKind::Timeout,
            Self::NoSlot(_) => FailureKind::NoSlot,
            Self::NoDescriptor(_) => FailureKind::NoDescriptor,
            Self::Status(_) => FailureKind::Status,
            Self::TooLarge { .. } => FailureKind::TooLarge,
            Self::Packed(_) => FailureKind::Packed,
            Self::NotText(_) => FailureKind::NotText,
            Self::NoKnownMetrics { .. } => FailureKind::NoKnownMetrics,
        }
    }
}

impl FailureKind {
    /// All kinds.
    pub const ALL: [Self; 11] = [
        Self::BadUrl,
        Self::Connect,
        Self::Broken,
        Self::Timeout,
        Self::NoSlot,
        Self::NoDescriptor,
        Self::Status,
        Self::TooLarge,
        Self::Packed,
        Self::NotText,
        Self::NoKnownMetrics,
    ];

    /// Whether an engine that ended, or is just starting, is seen like this.
    pub(super) fn may_be_a_restart(self) -> bool {
        matches!(self, Self::Connect | Self::Broken | Self::Status)
    }

    /// The kind's name in labels and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BadUrl => "bad_url",
            Self::Connect => "connect",
            Self::Broken => "broken",
            Self::Timeout => "timeout",
            Self::NoSlot => "no_slot",
            Self::NoDescriptor => "no_descriptor",
            Self::Status => "status",
            Self::TooLarge => "too_large",
            Self::Packed => "packed",
            Self::NotText => "not_text",
            Self::NoKnownMetrics => "no_known_metrics",
        }
    }
}

impl EncodeLabelValue for FailureKind {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        encoder.write_str(self.as_str())
    }
}
