//! The queue between the streams and the receiver, bounded by messages and by bytes.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use futures::Stream;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore, TryAcquireError, mpsc};

use super::options::{IntakeOptions, Overflow};

/// Permits of a semaphore are counted in 32 bits; in these units they are enough for 4 TiB.
const UNIT_BYTES: usize = 1024;

pub(super) fn queue<T>(options: &IntakeOptions) -> (Queue<T>, IntakeReceiver<T>) {
    let (slots, queued) = mpsc::channel(options.max_queued_messages);
    let capacity = units(options.max_queued_bytes);
    let room = Arc::new(Semaphore::new(capacity as usize));
    let dropped_entries = Arc::<AtomicU64>::default();
    let queue = Queue {
        slots,
        room: room.clone(),
        capacity,
        overflow: options.overflow,
        dropped_entries: dropped_entries.clone(),
    };
    (queue, IntakeReceiver { queued, room, dropped_entries })
}

fn units(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT_BYTES).max(1)).unwrap_or(u32::MAX)
}

#[derive(Debug)]
struct Queued<T> {
    item: T,
    /// Given back when the receiver takes the item.
    _room: OwnedSemaphorePermit,
}

/// The sending end.
#[derive(Debug)]
pub(super) struct Queue<T> {
    slots: mpsc::Sender<Queued<T>>,
    room: Arc<Semaphore>,
    capacity: u32,
    overflow: Overflow,
    dropped_entries: Arc<AtomicU64>,
}

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Self {
            slots: self.slots.clone(),
            room: self.room.clone(),
            dropped_entries: self.dropped_entries.clone(),
            ..*self
        }
    }
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoPlace {
    Full,
    /// The receiver is gone.
    Closed,
}

impl<T> Queue<T> {
    /// Tells the receiver of entries that found no place.
    pub(super) fn dropped(&self, entries: usize) {
        self.dropped_entries.fetch_add(entries as u64, Ordering::Relaxed);
    }

    /// A place for an item of that many bytes. Waits for one only when overflow says so; the wait may be
    /// given up.
    pub(super) async fn place(&self, bytes: usize) -> Result<Place<'_, T>, NoPlace> {
        let units = units(bytes);
        if units > self.capacity {
            return Err(if self.slots.is_closed() { NoPlace::Closed } else { NoPlace::Full });
        }
        let room = self.room.clone();
        match self.overflow {
            Overflow::DropNewest => {
                let room = room.try_acquire_many_owned(units)?;
                Ok(Place { slot: self.slots.try_reserve()?, room })
            }
            Overflow::Wait => {
                let room = room.acquire_many_owned(units).await?;
                Ok(Place { slot: self.slots.reserve().await.map_err(|_| NoPlace::Closed)?, room })
            }
        }
    }
}

/// A place in the queue that is taken already.
#[derive(Debug)]
pub(super) struct Place<'a, T> {
    slot: mpsc::Permit<'a, Queued<T>>,
    room: OwnedSemaphorePermit,
}

impl<T> Place<'_, T> {
    pub(super) fn fill(self, item: T) {
        self.slot.send(Queued { item, _room: self.room });
    }
}

impl From<TryAcquireError> for NoPlace {
    fn from(error: TryAcquireError) -> Self {
        match error {
            TryAcquireError::NoPermits => Self::Full,
            TryAcquireError::Closed => Self::Closed,
        }
    }
}

impl From<AcquireError> for NoPlace {
    fn from(_: AcquireError) -> Self {
        Self::Closed
    }
}

impl From<mpsc::error::TrySendError<()>> for NoPlace {
    fn from(error: mpsc::error::TrySendError<()>) -> Self {
        match error {
            mpsc::error::TrySendError::Full(()) => Self::Full,
            mpsc::error::TrySendError::Closed(()) => Self::Closed,
        }
    }
}

/// The receiving end of one service of an [`Intake`](super::Intake), also a [`Stream`].
///
/// It ends after [`Intake::shutdown`](super::Intake::shutdown), or when the intake and its services are
/// dropped, and all streams have ended. When it is dropped itself, streams end with `UNAVAILABLE` as soon
/// as they deliver.
#[derive(Debug)]
pub struct IntakeReceiver<T> {
    queued: mpsc::Receiver<Queued<T>>,
    room: Arc<Semaphore>,
    dropped_entries: Arc<AtomicU64>,
}

impl<T> IntakeReceiver<T> {
    /// Returns the next item, or `None` at the end. An item is not lost when the wait is given up.
    pub async fn recv(&mut self) -> Option<T> {
        self.queued.recv().await.map(|queued| queued.item)
    }

    /// Returns an item that is there already.
    pub fn try_recv(&mut self) -> Option<T> {
        self.queued.try_recv().ok().map(|queued| queued.item)
    }

    /// Returns how many entries (log entries, or clusters of load reports) found no room so far: those that were received
    /// stand for them as well.
    pub fn dropped_entries(&self) -> u64 {
        self.dropped_entries.load(Ordering::Relaxed)
    }

    /// Returns the number of items that wait.
    pub fn len(&self) -> usize {
        self.queued.len()
    }

    /// Returns whether no item waits.
    pub fn is_empty(&self) -> bool {
        self.queued.is_empty()
    }
}

impl<T> Stream for IntakeReceiver<T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        self.queued.poll_recv(context).map(|queued| queued.map(|queued| queued.item))
    }
}

impl<T> Drop for IntakeReceiver<T> {
    fn drop(&mut self) {
        // Streams that wait for room learn that nobody will make any.
        self.room.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(messages: usize, bytes: usize, overflow: Overflow) -> IntakeOptions {
        IntakeOptions {
            max_queued_messages: messages,
            max_queued_bytes: bytes,
            overflow,
            ..IntakeOptions::default()
        }
    }

    #[tokio::test]
    async fn messages_and_bytes_are_both_bounded() {
        let (queue, mut receiver) = queue(&options(2, 8192, Overflow::DropNewest));
        queue.place(4096).await.unwrap().fill("a");
        assert_eq!(queue.place(4097).await.unwrap_err(), NoPlace::Full, "no room for the bytes");
        queue.place(1).await.unwrap().fill("b");
        assert_eq!(queue.place(1).await.unwrap_err(), NoPlace::Full, "two messages are there");
        assert_eq!(receiver.len(), 2);
        assert_eq!(receiver.recv().await, Some("a"));
        queue.place(7168).await.unwrap().fill("c");
        assert_eq!((receiver.try_recv(), receiver.try_recv()), (Some("b"), Some("c")));
        assert!(receiver.is_empty());
    }

    #[tokio::test]
    async fn a_place_that_is_not_filled_is_given_back() {
        let (queue, mut receiver) = queue(&options(1, 1024, Overflow::DropNewest));
        drop(queue.place(1024).await.unwrap());
        queue.place(1024).await.unwrap().fill(1);
        assert_eq!(receiver.recv().await, Some(1));
    }

    #[tokio::test]
    async fn waiting_ends_when_there_is_room_or_the_receiver_is_gone() {
        let (queue, mut receiver) = queue(&options(9, 2048, Overflow::Wait));
        queue.place(2048).await.unwrap().fill(1);
        assert_eq!(queue.place(2049).await.unwrap_err(), NoPlace::Full, "would wait for ever");
        let second = async { queue.place(2048).await.unwrap().fill(2) };
        let (first, ()) = tokio::join!(receiver.recv(), second);
        assert_eq!((first, receiver.len()), (Some(1), 1));
        let gone = async { drop(receiver) };
        let (place, ()) = tokio::join!(queue.place(1024), gone);
        assert_eq!(place.map(drop), Err(NoPlace::Closed));
    }
}
