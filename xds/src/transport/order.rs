//! An order that is given once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio_util::sync::{CancellationToken, WaitForCancellationFuture, WaitForCancellationFutureOwned};

/// An order that is given once, to all who hold a clone. Unlike with the token inside, a look costs no lock,
/// so that every step of every stream can have one.
#[derive(Clone, Debug, Default)]
pub struct Order {
    given: Arc<AtomicBool>,
    token: CancellationToken,
}

impl Order {
    /// Returns an order that has not been given.
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives the order.
    pub fn cancel(&self) {
        self.given.store(true, Ordering::Release);
        self.token.cancel();
    }

    /// True when it has been given.
    pub fn is_cancelled(&self) -> bool {
        self.given.load(Ordering::Acquire)
    }

    /// Completes when it is given.
    pub fn cancelled(&self) -> WaitForCancellationFuture<'_> {
        self.token.cancelled()
    }

    /// Completes when it is given.
    pub fn cancelled_owned(self) -> WaitForCancellationFutureOwned {
        self.token.cancelled_owned()
    }

    /// Gives the order when dropped.
    pub(super) fn drop_guard(&self) -> OrderGuard {
        OrderGuard(self.clone())
    }
}

#[derive(Debug)]
pub(super) struct OrderGuard(Order);

impl Drop for OrderGuard {
    fn drop(&mut self) {
        self.0.cancel();
    }
}
