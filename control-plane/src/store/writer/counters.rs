use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::store::EventLevel;

/// News that wait to be taken at most; the oldest are forgotten.
const NEWS: usize = 32;

/// What the writer did so far.
#[derive(Debug, Default)]
pub struct WriterCounters {
    rows_written: AtomicU64,
    rows_dropped: AtomicU64,
    rows_spooled: AtomicU64,
    batches: AtomicU64,
    failures: AtomicU64,
    waiting_rows: AtomicU64,
    waiting_bytes: AtomicU64,
    last_error: Mutex<Option<String>>,
    news: Mutex<VecDeque<(EventLevel, String)>>,
}

impl WriterCounters {
    /// Rows that the database has. Those of the spool of a run before count when they are written now.
    #[must_use]
    pub fn rows_written(&self) -> u64 {
        self.rows_written.load(Ordering::Relaxed)
    }

    /// Rows that were lost: the queue or the spool was full, they were too old or ahead of time, a record of the spool
    /// was not whole, or the database refused them.
    #[must_use]
    pub fn rows_dropped(&self) -> u64 {
        self.rows_dropped.load(Ordering::Relaxed)
    }

    /// Rows that were put into the spool.
    #[must_use]
    pub fn rows_spooled(&self) -> u64 {
        self.rows_spooled.load(Ordering::Relaxed)
    }

    /// Rows and bytes that are in the spool now.
    #[must_use]
    pub fn in_spool(&self) -> (u64, u64) {
        (self.waiting_rows.load(Ordering::Relaxed), self.waiting_bytes.load(Ordering::Relaxed))
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

    /// Takes what an operator should know and was not taken yet, oldest first.
    #[must_use]
    pub fn take_news(&self) -> Vec<(EventLevel, String)> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner).drain(..).collect()
    }

    pub(in crate::store) fn dropped(&self, rows: u64) {
        self.rows_dropped.fetch_add(rows, Ordering::Relaxed);
    }

    pub(in crate::store) fn spooled(&self, rows: u64) {
        self.rows_spooled.fetch_add(rows, Ordering::Relaxed);
    }

    pub(in crate::store) fn spool_holds(&self, rows: u64, bytes: u64) {
        self.waiting_rows.store(rows, Ordering::Relaxed);
        self.waiting_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Logs what an operator should know, and keeps it to be taken.
    pub(in crate::store) fn tell(&self, level: EventLevel, message: String) {
        match level {
            EventLevel::Info => tracing::info!("{message}"),
            EventLevel::Warning => tracing::warn!("{message}"),
            EventLevel::Error => tracing::error!("{message}"),
        }
        let mut news = self.news.lock().unwrap_or_else(PoisonError::into_inner);
        if news.len() == NEWS {
            news.pop_front();
        }
        news.push_back((level, message));
    }

    pub(super) fn succeeded(&self, rows: usize) {
        self.rows_written.fetch_add(rows as u64, Ordering::Relaxed);
        self.batches.fetch_add(1, Ordering::Relaxed);
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(super) fn failed(&self, error: String) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }
}
