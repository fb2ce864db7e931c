//! Telemetry on its way in: a bounded queue, connections that write batches of it by COPY, and a spool on disk for what
//! they cannot take.
//!
//! ```text
//! record ─► queue ─► lanes ─► Postgres
//!             │        ▲ │
//!             ▼        │ ▼
//!          spiller ─► spool     while Postgres is away, or slower than telemetry
//! ```

mod batch;
mod counters;
mod lane;
mod queue;
mod session;
mod spiller;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinHandle, JoinSet};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::telemetry::Sample;

pub(super) use self::batch::{Batch, BatchId, Ids};
pub use self::counters::WriterCounters;

use self::lane::Lane;
use self::queue::Queue;
use super::spool::SpoolHandle;
use super::{EventLevel, Store};

/// Connections that write. The second one helps when one does not keep up.
const LANES: usize = 2;
/// Longest time to put into the spool what could not be written before the end.
const LAST_SPOOLING: Duration = Duration::from_secs(3);

/// How telemetry is batched and kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriterSettings {
    /// Samples that wait in memory at most; beyond it the oldest are dropped. About 350 bytes each.
    pub queue_rows: usize,
    /// Samples in a batch.
    pub batch_rows: usize,
    /// How long the first sample of a batch waits for others.
    pub batch_time: Duration,
    /// Samples older than this many days are dropped, as retention would remove them.
    pub samples_days: u32,
    /// Where samples are kept that the database does not take; left out, they wait in the queue only.
    pub spool: Option<SpoolSettings>,
}

/// A spool on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpoolSettings {
    /// Its folder, made if missing; one process uses it at a time.
    pub dir: PathBuf,
    /// Bytes that it holds at most; beyond it the oldest samples are dropped, a segment at a time.
    pub max_bytes: u64,
}

impl Default for WriterSettings {
    fn default() -> Self {
        Self {
            queue_rows: 100_000,
            batch_rows: 10_000,
            batch_time: Duration::from_secs(1),
            samples_days: super::Retention::default().samples_days,
            spool: None,
        }
    }
}

/// The way of samples into the database.
///
/// [`record`](Self::record) never waits and never fails. Tasks write batches, each in one transaction and exactly once,
/// even if the answer to its commit is lost or the process dies. While the database is away, or when the queue is half
/// full because it is slow, batches go to the spool, which is written out in order once there is time for it; new
/// samples go first. Without a spool the batch at hand is tried again and the queue keeps the newest samples.
#[derive(Debug)]
pub struct TelemetryWriter {
    shared: Arc<Shared>,
    options: watch::Sender<Option<PgConnectOptions>>,
    task: Mutex<Option<JoinHandle<()>>>,
    abort: AbortHandle,
}

#[derive(Debug)]
struct Shared {
    settings: WriterSettings,
    queue: Queue,
    counters: Arc<WriterCounters>,
    /// Rows that each lane is writing.
    at_hand: [std::sync::atomic::AtomicUsize; LANES],
    /// Whether the database does not take anything: then batches go to the spool, if there is one.
    away: watch::Sender<bool>,
    /// No more attempts: what is left goes to the spool.
    hurry: CancellationToken,
}

impl TelemetryWriter {
    /// Starts to take samples. They are written as soon as [`attach`](Self::attach) says where to; until then they go
    /// to the spool.
    #[must_use]
    pub fn start(settings: WriterSettings) -> Self {
        let (options, connect) = watch::channel(None);
        let shared = Arc::new(Shared {
            queue: Queue::new(settings.queue_rows, settings.batch_rows),
            counters: Arc::default(),
            at_hand: Default::default(),
            away: watch::channel(true).0,
            hurry: CancellationToken::new(),
            settings,
        });
        let task = tokio::spawn(run(Arc::clone(&shared), connect));
        Self { shared, options, abort: task.abort_handle(), task: Mutex::new(Some(task)) }
    }

    /// Starts, and writes to a store at once.
    #[must_use]
    pub fn spawn(store: &Store, settings: WriterSettings) -> Self {
        let writer = Self::start(settings);
        writer.attach(store);
        writer
    }

    /// Writes to this store from now on, on connections of its own.
    pub fn attach(&self, store: &Store) {
        self.options.send_replace(Some(store.connect_options().clone()));
        self.shared.away.send_replace(false);
    }

    /// Queues samples.
    pub fn record(&self, samples: impl IntoIterator<Item = Sample>) {
        let dropped = self.shared.queue.push(samples);
        if dropped > 0 {
            self.shared.counters.dropped(dropped as u64);
        }
    }

    /// Returns the counters, to keep.
    #[must_use]
    pub fn counters(&self) -> Arc<WriterCounters> {
        Arc::clone(&self.shared.counters)
    }

    /// Returns how many samples are in memory and not written yet; those of the spool are not counted.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.shared.queue.len() + self.shared.at_hand()
    }

    /// Writes what is queued, for at most `patience`, puts the rest into the spool, and ends. Samples recorded after
    /// this are dropped, and so are those for which there is no spool; all of them are counted. What is in the spool
    /// stays there for the next start.
    pub async fn shutdown(&self, patience: Duration) {
        self.shared.queue.close();
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut task) = task else { return };
        let ended = match timeout(patience, &mut task).await {
            Ok(ended) => Ok(ended),
            Err(_) => {
                self.shared.hurry.cancel();
                self.shared.away.send_replace(true);
                timeout(LAST_SPOOLING, task).await
            }
        };
        match ended {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "the task that writes telemetry failed"),
            Err(_) => self.abort.abort(),
        }
        let rows = self.queued();
        if rows > 0 {
            tracing::warn!(rows, "the last telemetry was not written");
            self.shared.counters.dropped(rows as u64);
        }
    }
}

impl Drop for TelemetryWriter {
    fn drop(&mut self) {
        self.abort.abort();
    }
}

impl Shared {
    fn at_hand(&self) -> usize {
        self.at_hand.iter().map(|rows| rows.load(std::sync::atomic::Ordering::Relaxed)).sum()
    }

    /// Queued samples at which the spool has to help.
    fn high_water(&self) -> usize {
        (self.settings.queue_rows / 2).max(self.settings.batch_rows)
    }
}

async fn run(shared: Arc<Shared>, connect: watch::Receiver<Option<PgConnectOptions>>) {
    let spool = match &shared.settings.spool {
        None => None,
        Some(settings) => match SpoolHandle::open(settings.clone(), Arc::clone(&shared.counters)).await {
            Ok(spool) => Some(spool),
            Err(error) => {
                let message = format!("telemetry waits in memory only while the database is away: {error}");
                shared.counters.tell(EventLevel::Warning, message);
                None
            }
        },
    };
    let mut lanes = JoinSet::new();
    for number in 0..LANES {
        let lane = Lane::new(number, Arc::clone(&shared), spool.clone(), connect.clone());
        lanes.spawn(lane.run());
    }
    let Some(spool) = spool else {
        while lanes.join_next().await.is_some() {}
        return;
    };
    let stop = CancellationToken::new();
    // In a set, so that it ends with this task however that ends.
    let mut spillers = JoinSet::new();
    spillers.spawn(spiller::run(Arc::clone(&shared), spool, stop.clone()));
    while lanes.join_next().await.is_some() {}
    stop.cancel();
    while spillers.join_next().await.is_some() {}
}
