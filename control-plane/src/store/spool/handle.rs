use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, sleep_until};

use crate::store::writer::{Batch, SpoolSettings, WriterCounters};

use super::{Position, SYNC_EVERY, Spool, SpoolError, Spooled};

/// How long a segment that cannot be read is left alone.
const UNREADABLE: Duration = Duration::from_secs(5);

/// The spool for tasks: each method blocks a helper thread, never the caller's. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub(in crate::store) struct SpoolHandle {
    spool: Arc<Mutex<Spool>>,
    counters: Arc<WriterCounters>,
    filled: Arc<Notify>,
    /// Whether a sync is under way.
    syncs: Arc<AtomicBool>,
    /// Until when it is not read.
    stalled: Arc<Mutex<Option<Instant>>>,
}

impl SpoolHandle {
    pub(in crate::store) async fn open(
        settings: SpoolSettings,
        counters: Arc<WriterCounters>,
        skip_unreadable: bool,
    ) -> Result<Self, SpoolError> {
        let shared = Arc::clone(&counters);
        let spool = spawn_blocking(move || Spool::open(settings, shared, skip_unreadable)).await??;
        Ok(Self {
            spool: Arc::new(Mutex::new(spool)),
            counters,
            filled: Arc::default(),
            syncs: Arc::default(),
            stalled: Arc::default(),
        })
    }

    /// Adds a batch. It is added even if the caller does not wait for it.
    pub(in crate::store) async fn append(&self, batch: Arc<Batch>) -> Result<(), SpoolError> {
        self.with(move |spool| spool.append(&batch)).await??;
        self.filled.notify_waiters();
        self.sync_soon();
        Ok(())
    }

    /// Waits until all of it is on the disk, if that is possible now.
    pub(in crate::store) async fn sync(&self) {
        let _ = self.with(Spool::sync).await;
    }

    /// Syncs in a second, and as often as it takes.
    fn sync_soon(&self) {
        if self.syncs.swap(true, Ordering::Relaxed) {
            return;
        }
        // A spool that is let go of must not stay locked for this.
        let (spool, syncs) = (Arc::downgrade(&self.spool), Arc::clone(&self.syncs));
        tokio::spawn(async move {
            loop {
                sleep(SYNC_EVERY).await;
                let Some(spool) = spool.upgrade() else { return };
                // Before the sync: an append after it has begun needs another.
                syncs.store(false, Ordering::Relaxed);
                let is_synced = spawn_blocking(move || lock(&spool).sync()).await.unwrap_or(true);
                if is_synced || syncs.swap(true, Ordering::Relaxed) {
                    return;
                }
            }
        });
    }

    /// Returns the oldest batch, if there is one that can be read; it stays until it is [`done`](Self::done).
    pub(in crate::store) async fn oldest(&self) -> Option<Spooled> {
        match self.with(Spool::oldest).await {
            Ok(Ok(oldest)) => oldest,
            Ok(Err(_)) => {
                *self.stalled.lock().unwrap_or_else(PoisonError::into_inner) =
                    Some(Instant::now() + UNREADABLE);
                None
            }
            Err(_) => None,
        }
    }

    /// Forgets a batch that was written out.
    pub(in crate::store) async fn done(&self, position: Position) {
        let _ = self.with(move |spool| spool.done(position)).await;
    }

    /// Keeps a batch that was not.
    pub(in crate::store) async fn keep(&self, position: Position) {
        let _ = self.with(move |spool| spool.keep(position)).await;
    }

    /// Whether there is something in it that may be read now.
    pub(in crate::store) fn has_work(&self) -> bool {
        self.counters.in_spool().0 > 0 && self.stalled_until().is_none()
    }

    /// Waits until there is.
    pub(in crate::store) async fn filled(&self) {
        loop {
            let filled = self.filled.notified();
            if self.has_work() {
                return;
            }
            match self.stalled_until() {
                Some(until) => sleep_until(until).await,
                None if self.counters.in_spool().0 > 0 => return,
                None => filled.await,
            }
        }
    }

    fn stalled_until(&self) -> Option<Instant> {
        let stalled = *self.stalled.lock().unwrap_or_else(PoisonError::into_inner);
        stalled.filter(|until| *until > Instant::now())
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
