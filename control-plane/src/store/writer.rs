//! Telemetry on its way in: a bounded queue, and a task that writes batches of it by COPY.

mod queue;
mod session;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::{sleep, timeout};

use crate::telemetry::Sample;

use self::queue::Queue;
use self::session::Session;
use super::Store;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Attempts at a batch whose values the database refuses, before it is given up.
const ATTEMPTS_AT_REFUSED: u32 = 3;
/// A clock may be ahead of ours by this much; partitions exist that far.
const AHEAD: TimeDelta = TimeDelta::days(1);

/// How telemetry is batched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriterSettings {
    /// Samples that wait at most; beyond it the oldest are dropped. About 200 bytes each.
    pub queue_rows: usize,
    /// Samples in a batch.
    pub batch_rows: usize,
    /// How long the first sample of a batch waits for others.
    pub batch_time: Duration,
    /// Samples older than this many days are dropped, as retention would remove them.
    pub samples_days: u32,
}

impl Default for WriterSettings {
    fn default() -> Self {
        Self {
            queue_rows: 100_000,
            batch_rows: 5_000,
            batch_time: Duration::from_secs(1),
            samples_days: super::Retention::default().samples_days,
        }
    }
}

/// What the writer did so far.
#[derive(Debug, Default)]
pub struct WriterCounters {
    rows_written: AtomicU64,
    rows_dropped: AtomicU64,
    batches: AtomicU64,
    failures: AtomicU64,
    last_error: Mutex<Option<String>>,
}

impl WriterCounters {
    /// Rows that the database has.
    #[must_use]
    pub fn rows_written(&self) -> u64 {
        self.rows_written.load(Ordering::Relaxed)
    }

    /// Rows that were lost: the queue was full, they were too old or ahead of time, or the database refused them.
    #[must_use]
    pub fn rows_dropped(&self) -> u64 {
        self.rows_dropped.load(Ordering::Relaxed)
    }

    /// Batches written.
    #[must_use]
    pub fn batches(&self) -> u64 {
        self.batches.load(Ordering::Relaxed)
    }

    /// Failed attempts to write a batch.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Why the last attempt failed; `None` after one that worked.
    #[must_use]
    pub fn last_error(&self) -> Option<String> {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn dropped(&self, rows: usize) {
        self.rows_dropped.fetch_add(rows as u64, Ordering::Relaxed);
    }

    fn succeeded(&self, rows: usize) {
        self.rows_written.fetch_add(rows as u64, Ordering::Relaxed);
        self.batches.fetch_add(1, Ordering::Relaxed);
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn failed(&self, error: String) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }
}

/// The way of samples into the database.
///
/// [`record`](Self::record) never waits and never fails. A task writes batches; while the database is away it keeps
/// the batch at hand and tries again with growing pauses, and the queue keeps the newest samples. Each batch is one
/// transaction and is written exactly once, even if the answer to its commit is lost.
#[derive(Debug)]
pub struct TelemetryWriter {
    shared: Arc<Shared>,
    task: Mutex<Option<JoinHandle<()>>>,
    abort: AbortHandle,
}

#[derive(Debug)]
struct Shared {
    queue: Queue,
    /// Rows of the batch that is being written.
    at_hand: AtomicUsize,
    counters: Arc<WriterCounters>,
}

impl TelemetryWriter {
    /// Starts the task. It connects on its own when the first batch is due.
    #[must_use]
    pub fn spawn(store: &Store, settings: WriterSettings) -> Self {
        let queue = Queue::new(settings.queue_rows, settings.batch_rows);
        let shared = Arc::new(Shared { queue, at_hand: AtomicUsize::new(0), counters: Arc::default() });
        let session = Session::new(store.connect_options().clone());
        let task = tokio::spawn(write_batches(Arc::clone(&shared), session, settings));
        Self { shared, abort: task.abort_handle(), task: Mutex::new(Some(task)) }
    }

    /// Queues samples.
    pub fn record(&self, samples: impl IntoIterator<Item = Sample>) {
        let dropped = self.shared.queue.push(samples);
        if dropped > 0 {
            self.shared.counters.dropped(dropped);
        }
    }

    /// Returns the counters, to keep.
    #[must_use]
    pub fn counters(&self) -> Arc<WriterCounters> {
        Arc::clone(&self.shared.counters)
    }

    /// Returns how many samples are not written yet.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.shared.queue.len() + self.shared.at_hand.load(Ordering::Relaxed)
    }

    /// Writes what is queued, for at most `patience`, and ends the task. Samples recorded after this are dropped, and
    /// so are those that could not be written; all of them are counted.
    pub async fn shutdown(&self, patience: Duration) {
        self.shared.queue.close();
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(task) = task else { return };
        match timeout(patience, task).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => tracing::error!(%error, "the task that writes telemetry failed"),
            Err(_) => self.abort.abort(),
        }
        let rows = self.queued();
        tracing::warn!(rows, "the last telemetry was not written");
        self.shared.counters.dropped(rows);
    }
}

impl Drop for TelemetryWriter {
    fn drop(&mut self) {
        self.abort.abort();
    }
}

async fn write_batches(shared: Arc<Shared>, mut session: Session, settings: WriterSettings) {
    let mut number = 0;
    while let Some(mut batch) = shared.queue.next_batch(settings.batch_time).await {
        let taken = batch.len();
        let now = Utc::now();
        batch.retain(|sample| is_storable(sample.at, now, settings.samples_days));
        shared.counters.dropped(taken - batch.len());
        if !batch.is_empty() {
            number += 1;
            shared.at_hand.store(batch.len(), Ordering::Relaxed);
            write_batch(&shared.counters, &mut session, &batch, number).await;
            shared.at_hand.store(0, Ordering::Relaxed);
        }
    }
    session.close().await;
}

/// Tries until the batch is written or refused for good.
async fn write_batch(counters: &WriterCounters, session: &mut Session, batch: &[Sample], number: i64) {
    let mut pause = FIRST_PAUSE;
    let mut attempt = 1;
    loop {
        let error = match session.write(batch, number).await {
            Ok(_) => return counters.succeeded(batch.len()),
            Err(error) => error,
        };
        counters.failed(error.to_string());
        if attempt >= ATTEMPTS_AT_REFUSED && is_refusal(&error) {
            tracing::error!(%error, rows = batch.len(), "the database refuses telemetry; dropping the batch");
            return counters.dropped(batch.len());
        }
        tracing::warn!(%error, rows = batch.len(), attempt, "cannot write telemetry; trying again");
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
        attempt += 1;
    }
}

/// Returns whether a sample is neither past retention nor of a clock that is far ahead. Days are whole UTC days, like
/// the partitions.
fn is_storable(at: DateTime<Utc>, now: DateTime<Utc>, samples_days: u32) -> bool {
    let oldest = (now - TimeDelta::days(i64::from(samples_days))).date_naive();
    at.date_naive() >= oldest && at <= now + AHEAD
}

/// Returns whether the database refuses the values themselves, so that trying again is no use.
fn is_refusal(error: &sqlx::Error) -> bool {
    error
        .as_database_error()
        .and_then(|error| error.code())
        .is_some_and(|code| code.starts_with("22") || code.starts_with("23"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_days_with_a_partition_are_taken() {
        let at = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
        let now = at("2026-03-10T12:00:00Z");
        assert!(is_storable(at("2026-03-03T00:00:00Z"), now, 7));
        assert!(!is_storable(at("2026-03-02T23:59:59Z"), now, 7));
        assert!(is_storable(at("2026-03-11T11:00:00Z"), now, 7));
        assert!(!is_storable(at("2026-03-11T13:00:00Z"), now, 7));
    }
}
