use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::sync::{mpsc, watch};

use crate::store::{
    BackendRow, CheckpointRow, DecisionRow, DemandRow, EventRow, ForecastRow, PageRow, RegisteredState,
    Store, StoreError,
};

/// Bytes of recorded inputs that may wait: they are the first to be let go.
const MOST_RECORDED_BYTES: usize = 64 * 1024 * 1024;
/// Entries that may wait while the database is away: hours of a small fleet, minutes of a large one.
const QUEUE: usize = 10_000;
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What is written down besides telemetry.
#[derive(Clone, Debug)]
pub(crate) enum Entry {
    Decision(Box<DecisionRow>),
    Forecasts(Vec<ForecastRow>),
    Demand { step_seconds: u32, rows: Vec<DemandRow> },
    ModelState { kind: &'static str, key: String, at: DateTime<Utc>, state: serde_json::Value },
    Event(EventRow),
    Page(Box<PageRow>),
    Checkpoint(Box<CheckpointRow>),
    Backends(Vec<BackendRow>),
    Registered { pool: String, address: String, state: RegisteredState, at: DateTime<Utc> },
    Unregistered { pool: String, address: String },
}

impl Entry {
    /// The size of a recording; none for what is more than that.
    fn recorded_bytes(&self) -> usize {
        match self {
            Self::Page(row) => row.page.len(),
            Self::Checkpoint(row) => row.core.len() + row.pending.len() + row.learner.len(),
            _ => 0,
        }
    }
}

/// The way of decisions, forecasts and events into the database: never waited for, kept in order, tried again while the
/// database is away, and dropped (and counted) only when the queue is full.
#[derive(Clone)]
pub(super) struct Journal {
    entries: mpsc::Sender<Entry>,
    dropped: Arc<AtomicU64>,
    recorded_bytes: Arc<AtomicUsize>,
}

impl Journal {
    pub(super) fn spawn(store: watch::Receiver<Option<Store>>) -> (Self, tokio::task::JoinHandle<()>) {
        let (entries, inbox) = mpsc::channel(QUEUE);
        let recorded_bytes = Arc::<AtomicUsize>::default();
        let task = tokio::spawn(write(inbox, store, Arc::clone(&recorded_bytes)));
        (Self { entries, dropped: Arc::default(), recorded_bytes }, task)
    }

    pub(super) fn write(&self, entry: Entry) {
        let bytes = entry.recorded_bytes();
        let waiting = self.recorded_bytes.fetch_add(bytes, Ordering::Relaxed);
        let fits = bytes == 0 || waiting + bytes <= MOST_RECORDED_BYTES;
        if !fits || self.entries.try_send(entry).is_err() {
            self.recorded_bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn dropped(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.dropped)
    }
}

async fn write(
    mut inbox: mpsc::Receiver<Entry>,
    mut store: watch::Receiver<Option<Store>>,
    recorded_bytes: Arc<AtomicUsize>,
) {
    while let Some(entry) = inbox.recv().await {
        recorded_bytes.fetch_sub(entry.recorded_bytes(), Ordering::Relaxed);
        let mut pause = FIRST_PAUSE;
        loop {
            let Ok(open) = store.wait_for(Option::is_some).await.map(|store| store.clone()) else { return };
            let Some(open) = open else { continue };
            match put(&open, &entry).await {
                Ok(()) => break,
                Err(error) if error.is_refusal() => {
                    tracing::error!(%error, "the database refuses an entry of the journal; dropping it");
                    break;
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot write the journal; trying again");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }
}

async fn put(store: &Store, entry: &Entry) -> Result<(), StoreError> {
    match entry {
        Entry::Decision(row) => store.put_decision(row).await,
        Entry::Forecasts(rows) => store.put_forecasts(rows).await.map(drop),
        Entry::Demand { step_seconds, rows } => store.put_demand(*step_seconds, rows).await.map(drop),
        Entry::ModelState { kind, key, at, state } => {
            store.save_model_state(kind, key, *at, state).await.map(drop)
        }
        Entry::Event(row) => store.put_event(row).await,
        Entry::Page(row) => store.put_page(row).await,
        Entry::Checkpoint(row) => store.put_checkpoint(row).await,
        Entry::Backends(rows) => store.describe_backends(rows).await,
        Entry::Registered { pool, address, state: RegisteredState::Ready, at } => {
            store.register_backend(pool, address, *at).await.map(drop)
        }
        Entry::Registered { pool, address, state, at } => {
            store.set_registered_state(pool, address, *state, *at).await.map(drop)
        }
        Entry::Unregistered { pool, address } => {
            store.remove_registered_backend(pool, address).await.map(drop)
        }
    }
}
