use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::task::spawn_blocking;

use crate::store::writer::{Batch, SpoolSettings, WriterCounters};

use super::{Position, Spool, SpoolError, Spooled};

/// The spool for tasks: each method blocks a helper thread, never the caller's. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub(in crate::store) struct SpoolHandle {
    spool: Arc<Mutex<Spool>>,
    counters: Arc<WriterCounters>,
    filled: Arc<Notify>,
}

impl SpoolHandle {
    pub(in crate::store) async fn open(
        settings: SpoolSettings,
        counters: Arc<WriterCounters>,
    ) -> Result<Self, SpoolError> {
        let shared = Arc::clone(&counters);
        let spool = spawn_blocking(move || Spool::open(settings, shared)).await??;
        Ok(Self { spool: Arc::new(Mutex::new(spool)), counters, filled: Arc::default() })
    }

    /// Adds a batch. It is added even if the caller does not wait for it.
    pub(in crate::store) async fn append(&self, batch: Arc<Batch>) -> Result<(), SpoolError> {
        self.with(move |spool| spool.append(&batch)).await??;
        self.filled.notify_waiters();
        Ok(())
    }

    /// Returns the oldest batch, if there is one; it stays until it is [`done`](Self::done).
    pub(in crate::store) async fn oldest(&self) -> Option<Spooled> {
        self.with(Spool::oldest).await.unwrap_or(None)
    }

    /// Forgets a batch that was written out.
    pub(in crate::store) async fn done(&self, position: Position) {
        let _ = self.with(move |spool| spool.done(position)).await;
    }

    /// Keeps a batch that was not.
    pub(in crate::store) async fn keep(&self, position: Position) {
        let _ = self.with(move |spool| spool.keep(position)).await;
    }

    pub(in crate::store) fn is_empty(&self) -> bool {
        self.counters.in_spool().0 == 0
    }

    /// Waits until there is something in it.
    pub(in crate::store) async fn filled(&self) {
        loop {
            let filled = self.filled.notified();
            if !self.is_empty() {
                return;
            }
            filled.await;
        }
    }

    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Spool) -> T + Send + 'static,
    ) -> Result<T, SpoolError> {
        let spool = Arc::clone(&self.spool);
        Ok(spawn_blocking(move || work(&mut lock(&spool))).await?)
    }
}

fn lock(spool: &Mutex<Spool>) -> MutexGuard<'_, Spool> {
    spool.lock().unwrap_or_else(PoisonError::into_inner)
}
