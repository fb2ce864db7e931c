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
/// Pause before another attempt to open the spool.
const REOPEN: Duration = Duration::from_secs(3);
/// Attempts to open it before segments that cannot be read are left alone.
const PATIENT_OPENS: u32 = 5;
/// Longest time to put into the spool what could not be written before the end.
const LAST_SPOOLING: Duration = Duration::from_secs(3);

/// How telemetry is batched and kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriterSettings {
    /// Samples that wait in memory at most; beyond it the oldest are dropped. About 350 bytes each.
    pub queue_rows: usize,
    /// Samples in a batch; a quarter of the queue at most.
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
    pub fn start(mut settings: WriterSettings) -> Self {
        settings.batch_rows = settings.batch_rows.clamp(1, (settings.queue_rows / 4).max(1));
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

    /// Queued samples at which the second lane helps: two batches, and fewer than go to the spool.
    fn help_water(&self) -> usize {
        (self.settings.batch_rows * 2).min(self.high_water() * 3 / 4).max(1)
    }

    /// Queued samples at which the spool has to help.
    fn high_water(&self) -> usize {
        (self.settings.queue_rows / 2).max(1)
    }
}

async fn run(shared: Arc<Shared>, connect: watch::Receiver<Option<PgConnectOptions>>) {
    let (open, spool) = watch::channel(None);
    let mut lanes = JoinSet::new();
    for number in 0..LANES {
        let lane = Lane::new(number, Arc::clone(&shared), spool.clone(), connect.clone());
        lanes.spawn(lane.run());
    }
    let stop = CancellationToken::new();
    // In a set, so that it ends with this task however that ends.
    let mut spillers = JoinSet::new();
    if let Some(settings) = shared.settings.spool.clone() {
        let (shared, stop) = (Arc::clone(&shared), stop.clone());
        let open = open.clone();
        spillers.spawn(async move {
            let Some(spool) = open_spool(&shared, settings, &stop).await else { return };
            open.send_replace(Some(spool.clone()));
            spiller::run(shared, spool.clone(), stop).await;
            spool.sync().await;
        });
    }
    while lanes.join_next().await.is_some() {}
    stop.cancel();
    while spillers.join_next().await.is_some() {}
}

/// Opens the spool, however long another process or the disk is in the way.
async fn open_spool(
    shared: &Shared,
    settings: SpoolSettings,
    stop: &CancellationToken,
) -> Option<SpoolHandle> {
    for attempt in 0_u32.. {
        let skip_unreadable = attempt >= PATIENT_OPENS;
        let opened = SpoolHandle::open(settings.clone(), Arc::clone(&shared.counters), skip_unreadable);
        match opened.await {
            Ok(spool) => {
                if attempt > 0 {
                    shared.counters.tell(EventLevel::Info, "the spool can be used now".to_owned());
                }
                return Some(spool);
            }
            Err(error) if attempt == 0 => {
                let message = format!(
                    "telemetry waits in memory only while the database is away, until the spool can be opened: {error}"
                );
                shared.counters.tell(EventLevel::Warning, message);
            }
            Err(error) => tracing::debug!(%error, "cannot open the spool; trying again"),
        }
        tokio::select! {
            () = stop.cancelled() => return None,
            () = tokio::time::sleep(REOPEN) => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_spool_helps_before_the_queue_is_full() {
        for queue_rows in [100, 1_000, 5_000, 20_000, 30_000, 100_000] {
            let writer = TelemetryWriter::start(WriterSettings { queue_rows, ..WriterSettings::default() });
            let shared = &writer.shared;
            let (batch, help, spill) = (shared.settings.batch_rows, shared.help_water(), shared.high_water());
            assert!(batch < help && help < spill && spill <= queue_rows / 2, "{batch} {help} {spill}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_spool_that_another_process_has_is_used_once_it_is_free() {
        let dir = tempfile::tempdir().unwrap();
        let spool = SpoolSettings { dir: dir.path().to_owned(), max_bytes: 1 << 24 };
        let first = SpoolHandle::open(spool.clone(), Arc::default(), false).await.unwrap();
        let settings =
            WriterSettings { batch_time: Duration::ZERO, spool: Some(spool), ..Default::default() };
        let writer = TelemetryWriter::start(settings);
        writer.record([Sample { backend: "a:1".into(), interval_seconds: 1.0, ..Sample::default() }]);
        let counters = writer.counters();
        let until = async |held: u64| {
            timeout(Duration::from_secs(20), async {
                loop {
                    let news = counters.take_news();
                    if counters.in_spool().0 == held && (held > 0 || !news.is_empty()) {
                        break;
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            })
            .await
            .unwrap();
        };
        until(0).await;
        drop(first);
        until(1).await;
        assert_eq!(counters.rows_dropped(), 0);
    }
}
