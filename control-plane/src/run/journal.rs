use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::sync::{mpsc, watch};

use crate::store::{
    BackendRow, DecisionRow, DemandRow, EventRow, ForecastRow, RegisteredState, Store, StoreError,
};

/// Entries that may wait while the database is away: hours of a small fleet, minutes of a large one.
const QUEUE: usize = 10_000;
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What is written down besides telemetry.
#[derive(Clone, Debug)]
pub(super) enum Entry {
    Decision(Box<DecisionRow>),
    Forecasts(Vec<ForecastRow>),
    Demand { step_seconds: u32, rows: Vec<DemandRow> },
    ModelState { kind: &'static str, key: String, at: DateTime<Utc>, state: serde_json::Value },
    Event(EventRow),
    Backends(Vec<BackendRow>),
    Registered { pool: String, address: String, state: RegisteredState, at: DateTime<Utc> },
    Unregistered { pool: String, address: String },
}

/// The way of decisions, forecasts and events into the database: never waited for, kept in order, tried again while the
/// database is away, and dropped (and counted) only when the queue is full.
#[derive(Clone)]
pub(super) struct Journal {
    entries: mpsc::Sender<Entry>,
    dropped: Arc<AtomicU64>,
}

impl Journal {
    pub(super) fn spawn(store: watch::Receiver<Option<Store>>) -> (Self, tokio::task::JoinHandle<()>) {
        let (entries, inbox) = mpsc::channel(QUEUE);
        let task = tokio::spawn(write(inbox, store));
        (Self { entries, dropped: Arc::default() }, task)
    }

    pub(super) fn write(&self, entry: Entry) {
        if self.entries.try_send(entry).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn dropped(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.dropped)
    }
}

async fn write(mut inbox: mpsc::Receiver<Entry>, mut store: watch::Receiver<Option<Store>>) {
    while let Some(entry) = inbox.recv().await {
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
