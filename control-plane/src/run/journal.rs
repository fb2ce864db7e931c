use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::timeout;

use crate::store::{
    BackendRow, CheckpointRow, DecisionRow, DemandRow, EventRow, ForecastRow, PageRow, RegisteredState,
    Store, StoreError,
};

/// Bytes of recorded inputs that may wait: they are the first to be let go.
const MOST_RECORDED_BYTES: usize = 64 * 1024 * 1024;
/// Entries that may wait while the database is away: hours of a small fleet, minutes of a large one.
const QUEUE: usize = 10_000;
/// Registered backends whose state may wait, beside the queue.
const REGISTRATIONS: usize = 100_000;
/// How long one entry may take; over a connection that broke unseen no answer comes.
const PATIENCE: Duration = Duration::from_secs(90);
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
/// database is away, and dropped (and counted) only when the queue is full. Who is registered was promised to somebody:
/// the newest state of each backend waits apart from the queue, which cannot push it out.
#[derive(Clone)]
pub(super) struct Journal {
    entries: mpsc::Sender<Entry>,
    registrations: Arc<Registrations>,
    dropped: Arc<AtomicU64>,
    recorded_bytes: Arc<AtomicUsize>,
}

impl Journal {
    pub(super) fn spawn(store: watch::Receiver<Option<Store>>) -> (Self, tokio::task::JoinHandle<()>) {
        let (entries, inbox) = mpsc::channel(QUEUE);
        let registrations = Arc::<Registrations>::default();
        let recorded_bytes = Arc::<AtomicUsize>::default();
        let task = tokio::spawn(write(inbox, Arc::clone(&registrations), store, Arc::clone(&recorded_bytes)));
        (Self { entries, registrations, dropped: Arc::default(), recorded_bytes }, task)
    }

    /// Returns false when the entry is dropped.
    pub(super) fn write(&self, entry: Entry) -> bool {
        let is_kept = match &entry {
            Entry::Registered { .. } | Entry::Unregistered { .. } => self.registrations.put(entry),
            _ => self.enqueue(entry),
        };
        if !is_kept {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        is_kept
    }

    /// Returns false when there is no room.
    fn enqueue(&self, entry: Entry) -> bool {
        let bytes = entry.recorded_bytes();
        let waiting = self.recorded_bytes.fetch_add(bytes, Ordering::Relaxed);
        let fits = bytes == 0 || waiting + bytes <= MOST_RECORDED_BYTES;
        let is_kept = fits && self.entries.try_send(entry).is_ok();
        if !is_kept {
            self.recorded_bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        is_kept
    }

    pub(super) fn dropped(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.dropped)
    }
}

/// The newest states of registered backends that are not written yet, by pool and address.
#[derive(Default)]
struct Registrations {
    waiting: Mutex<BTreeMap<(String, String), Entry>>,
    changed: Notify,
}

impl Registrations {
    /// Returns false when there is no room.
    fn put(&self, entry: Entry) -> bool {
        let (Entry::Registered { pool, address, .. } | Entry::Unregistered { pool, address }) = &entry else {
            return false;
        };
        let key = (pool.clone(), address.clone());
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() >= REGISTRATIONS && !waiting.contains_key(&key) {
            return false;
        }
        waiting.insert(key, entry);
        drop(waiting);
        self.changed.notify_one();
        true
    }

    fn take(&self) -> Option<Entry> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.pop_first().map(|(_, entry)| entry)
    }
}

/// Waits for the next entry to write, registrations first. `None` when there will be no more.
async fn next(inbox: &mut mpsc::Receiver<Entry>, registrations: &Registrations) -> Option<Entry> {
    loop {
        if let Some(entry) = registrations.take() {
            return Some(entry);
        }
        tokio::select! {
            biased;
            () = registrations.changed.notified() => {}
            entry = inbox.recv() => return entry.or_else(|| registrations.take()),
        }
    }
}

async fn write(
    mut inbox: mpsc::Receiver<Entry>,
    registrations: Arc<Registrations>,
    mut store: watch::Receiver<Option<Store>>,
    recorded_bytes: Arc<AtomicUsize>,
) {
    while let Some(entry) = next(&mut inbox, &registrations).await {
        recorded_bytes.fetch_sub(entry.recorded_bytes(), Ordering::Relaxed);
        let mut pause = FIRST_PAUSE;
        loop {
            let Ok(open) = store.wait_for(Option::is_some).await.map(|store| store.clone()) else { return };
            let Some(open) = open else { continue };
            match timeout(PATIENCE, put(&open, &entry)).await {
                Ok(Ok(())) => break,
                Ok(Err(error)) if error.is_refusal() => {
                    tracing::error!(%error, "the database refuses an entry of the journal; dropping it");
                    break;
                }
                Ok(Err(error)) => tracing::warn!(%error, "cannot write the journal; trying again"),
                Err(_) => {
                    let seconds = PATIENCE.as_secs();
                    tracing::warn!(seconds, "the database does not answer the journal; trying again");
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
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
            if !store.set_registered_state(pool, address, *state, *at).await? {
                // It joined while the database was away, and only its newest state was kept.
                store.register_backend(pool, address, *at).await?;
                store.set_registered_state(pool, address, *state, *at).await?;
            }
            Ok(())
        }
        Entry::Unregistered { pool, address } => {
            store.remove_registered_backend(pool, address).await.map(drop)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registered(number: u32, state: RegisteredState) -> Entry {
        Entry::Registered {
            pool: "p".to_owned(),
            address: format!("10.0.0.{number}:80"),
            state,
            at: DateTime::UNIX_EPOCH,
        }
    }

    #[tokio::test]
    async fn registrations_outlast_a_full_queue_in_their_newest_state() {
        let (entries, mut inbox) = mpsc::channel(1);
        let journal = Journal {
            entries,
            registrations: Arc::default(),
            dropped: Arc::default(),
            recorded_bytes: Arc::default(),
        };
        journal.write(registered(1, RegisteredState::Ready));
        for _ in 0..5 {
            journal.write(Entry::Demand { step_seconds: 10, rows: Vec::new() });
        }
        journal.write(registered(2, RegisteredState::Ready));
        journal.write(registered(1, RegisteredState::Draining));
        assert_eq!(journal.dropped().load(Ordering::Relaxed), 4, "of the queue");
        let registrations = Arc::clone(&journal.registrations);
        drop(journal);
        let mut found = Vec::new();
        while let Some(entry) = next(&mut inbox, &registrations).await {
            found.push(match entry {
                Entry::Registered { address, state, .. } => format!("{address} {state:?}"),
                _ => "demand".to_owned(),
            });
        }
        assert_eq!(found, ["10.0.0.1:80 Draining", "10.0.0.2:80 Ready", "demand"]);
    }
}
