use std::sync::Arc;

use chrono::{DateTime, Utc};
use uuid::Uuid;

/// A step in the delivery of one event to one endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryReport {
    /// Id of the event.
    pub event_id: Uuid,
    /// The pool that the event is about.
    pub pool: String,
    /// The endpoint: scheme, host and port of its URL.
    pub endpoint: Arc<str>,
    /// When the step was taken.
    pub at: DateTime<Utc>,
    /// Attempts made up to now.
    pub attempts: u32,
    /// How the delivery stands.
    pub outcome: DeliveryOutcome,
    /// Status or error of the newest attempt, for people.
    pub detail: Option<String>,
}

/// How the delivery of one event to one endpoint stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeliveryOutcome {
    /// The receiver has it.
    Delivered,
    /// An attempt failed; the next one is not before this time.
    Retrying(DateTime<Utc>),
    /// The last attempt failed.
    Failed,
    /// The plan's time passed before it was delivered.
    Expired,
    /// A newer plan of the same pool took its place.
    Superseded,
    /// The endpoint had asked for no more webhooks.
    Disabled,
    /// Too many pools were waiting for this endpoint.
    Dropped,
}

impl DeliveryOutcome {
    /// True when nothing more will be tried.
    pub fn is_final(self) -> bool {
        !matches!(self, Self::Retrying(_))
    }
}

/// Told of every step, for example to log it. Must return at once: it is called between
/// deliveries, so hand the report to a queue.
pub trait DeliveryLog: Send + Sync {
    /// Takes one report.
    fn record(&self, report: DeliveryReport);
}

impl<F: Fn(DeliveryReport) + Send + Sync> DeliveryLog for F {
    fn record(&self, report: DeliveryReport) {
        self(report);
    }
}
