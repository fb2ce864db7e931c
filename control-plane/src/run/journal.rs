mod entry;
#[cfg(test)]
mod tests;
mod waiting;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use crate::store::{RegisteredState, Store, StoreError};

use entry::Item;
use waiting::Waiting;

pub(crate) use entry::Entry;

/// How long one entry may take; over a connection that broke unseen no answer comes.
const PATIENCE: Duration = Duration::from_secs(90);
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The way of decisions, forecasts and events into the database: never waited for, kept in order, tried again while the
/// database is away, and dropped (and counted) only when there is no room. Of saved models only the newest waits. Who is
/// registered, and with what lease, was promised to somebody: its newest state waits apart, and nothing else can push it out.
#[derive(Clone)]
pub(super) struct Journal {
    open: Arc<Open>,
    dropped: Arc<AtomicU64>,
}

/// The task that writes the journal.
pub(super) struct Writing {
    waiting: Arc<Waiting>,
    task: tokio::task::JoinHandle<()>,
}

impl Writing {
    /// Waits until all is written, for at most `patience`; returns how many entries are not.
    pub(super) async fn finish(mut self, patience: Duration) -> usize {
        // A part that did not end in time may still have a handle.
        self.waiting.close();
        if timeout(patience, &mut self.task).await.is_err() {
            self.task.abort();
        }
        self.waiting.len()
    }
}

/// Closes with the last handle.
struct Open(Arc<Waiting>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Journal {
    pub(super) fn spawn(store: watch::Receiver<Option<Store>>) -> (Self, Writing) {
        let waiting = Arc::<Waiting>::default();
        let task = tokio::spawn(write(Arc::clone(&waiting), store));
        (Self::over(Arc::clone(&waiting)), Writing { waiting, task })
    }

    fn over(waiting: Arc<Waiting>) -> Self {
        Self { open: Arc::new(Open(waiting)), dropped: Arc::default() }
    }

    /// Returns false when the entry is dropped.
    pub(super) fn write(&self, entry: Entry) -> bool {
        let is_kept = self.open.0.put(entry);
        if !is_kept {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        is_kept
    }

    pub(super) fn dropped(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.dropped)
    }
}

async fn write(waiting: Arc<Waiting>, mut store: watch::Receiver<Option<Store>>) {
    loop {
        // Nothing is taken before it can be written: until then its newest state may change.
        let Ok(_) = store.wait_for(Option::is_some).await.map(drop) else { return };
        let Some(item) = waiting.next().await else { return };
        let mut pause = FIRST_PAUSE;
        loop {
            let Ok(open) = store.wait_for(Option::is_some).await.map(|store| store.clone()) else { return };
            let Some(open) = open else { continue };
            match timeout(PATIENCE, put(&open, &item)).await {
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
        waiting.give_back(&item);
    }
}

async fn put(store: &Store, item: &Item) -> Result<(), StoreError> {
    let entry = match item {
        Item::Entry(entry, _) => entry,
        Item::Model { kind, key, at, state } => {
            return store.save_model_text(kind, key, *at, state).await.map(drop);
        }
    };
    match entry {
        Entry::Decision(row) => store.put_decision(row).await,
        Entry::Acknowledgements(rows) => store.put_acknowledgements(rows).await,
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
