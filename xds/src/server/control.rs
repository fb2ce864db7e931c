//! Orders to all streams, which are woken to see them.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

#[derive(Debug, Default)]
pub(super) struct Control {
    draining: AtomicBool,
    shutting_down: AtomicBool,
    regroupings: AtomicU64,
}

impl Control {
    pub(super) fn is_shutting_down(&self) -> bool {
        self.shutting_down.load(Ordering::Acquire)
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    pub(super) fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    pub(super) fn shut_down(&self) {
        self.drain();
        self.shutting_down.store(true, Ordering::Release);
    }

    /// How often every client was asked again for its group.
    pub(super) fn regroupings(&self) -> u64 {
        self.regroupings.load(Ordering::Acquire)
    }

    pub(super) fn regroup(&self) {
        self.regroupings.fetch_add(1, Ordering::AcqRel);
    }
}
