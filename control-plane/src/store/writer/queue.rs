use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use crate::telemetry::Sample;

/// Samples on their way to the database: at most `capacity`, of which the newest are kept. Several tasks may take
/// batches out.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Notify,
    capacity: usize,
    batch_rows: usize,
}

#[derive(Debug, Default)]
struct State {
    rows: VecDeque<Sample>,
    /// Since when the first of them waits to become part of a batch.
    since: Option<Instant>,
    closed: bool,
}

impl Queue {
    pub(super) fn new(capacity: usize, batch_rows: usize) -> Self {
        let capacity = capacity.max(1);
        Self {
            state: Mutex::default(),
            changed: Notify::new(),
            capacity,
            batch_rows: batch_rows.clamp(1, capacity),
        }
    }

    /// Adds samples and returns how many were dropped for them: the oldest, or the new ones once it is closed.
    pub(super) fn push(&self, samples: impl IntoIterator<Item = Sample>) -> usize {
        let mut dropped = 0;
        let mut state = self.lock();
        let before = state.rows.len();
        for sample in samples {
            if state.closed {
                dropped += 1;
                continue;
            }
            if state.rows.len() == self.capacity {
                state.rows.pop_front();
                dropped += 1;
            }
            state.rows.push_back(sample);
        }
        if before == 0 {
            state.since = Some(Instant::now());
        }
        let wake = before == 0 || state.rows.len() >= self.batch_rows;
        drop(state);
        if wake {
            self.changed.notify_waiters();
        }
        dropped
    }

    /// Puts samples that were taken back before the others, closed or not. Returns how many of them, the oldest, found
    /// no room.
    pub(super) fn put_back(&self, samples: Vec<Sample>) -> usize {
        let mut state = self.lock();
        let room = self.capacity.saturating_sub(state.rows.len());
        let dropped = samples.len().saturating_sub(room);
        for sample in samples.into_iter().skip(dropped).rev() {
            state.rows.push_front(sample);
        }
        state.since.get_or_insert_with(Instant::now);
        drop(state);
        self.changed.notify_waiters();
        dropped
    }

    /// Waits for samples, then until a batch is full or the first of it has waited for `patience`, and takes it.
    /// `None` when the queue is closed and empty.
    pub(super) async fn next_batch(&self, patience: Duration) -> Option<Vec<Sample>> {
        loop {
            let changed = self.changed.notified();
            let due = {
                let mut state = self.lock();
                match state.since {
                    Some(since) => {
                        let due = since + patience;
                        if state.closed || state.rows.len() >= self.batch_rows || Instant::now() >= due {
                            return Some(self.take(&mut state));
                        }
                        Some(due)
                    }
                    None if state.closed => return None,
                    None => None,
                }
            };
            match due {
                // Whether it changed or is due, the state tells.
                Some(due) => drop(timeout_at(due, changed).await),
                None => changed.await,
            }
        }
    }

    /// Waits until there are at least `rows`, and takes a batch. `None` when the queue is closed and has fewer.
    pub(super) async fn next_above(&self, rows: usize) -> Option<Vec<Sample>> {
        loop {
            let changed = self.changed.notified();
            {
                let mut state = self.lock();
                if !state.rows.is_empty() && state.rows.len() >= rows {
                    return Some(self.take(&mut state));
                }
                if state.closed {
                    return None;
                }
            }
            changed.await;
        }
    }

    /// Takes a batch if one is due after `patience`.
    pub(super) fn try_batch(&self, patience: Duration) -> Option<Vec<Sample>> {
        let mut state = self.lock();
        let since = state.since?;
        let due = state.closed || state.rows.len() >= self.batch_rows || since.elapsed() >= patience;
        due.then(|| self.take(&mut state))
    }

    /// Takes no more samples; those that are in it can still be taken out.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_waiters();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Waits until it is closed.
    pub(super) async fn closed(&self) {
        loop {
            let changed = self.changed.notified();
            if self.is_closed() {
                return;
            }
            changed.await;
        }
    }

    pub(super) fn len(&self) -> usize {
        self.lock().rows.len()
    }

    fn take(&self, state: &mut State) -> Vec<Sample> {
        let count = state.rows.len().min(self.batch_rows);
        let batch = state.rows.drain(..count).collect();
        state.since = (!state.rows.is_empty()).then(Instant::now);
        batch
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;

    fn sample(second: i64) -> Sample {
        Sample {
            at: DateTime::from_timestamp(second, 0).unwrap(),
            backend: "127.0.0.1:1".into(),
            interval_seconds: 1.0,
            ..Sample::default()
        }
    }

    fn seconds(batch: Option<Vec<Sample>>) -> Vec<i64> {
        batch.unwrap_or_default().iter().map(|sample| sample.at.timestamp()).collect()
    }

    #[tokio::test]
    async fn the_newest_are_kept() {
        let queue = Queue::new(3, 2);
        assert_eq!(queue.push((0..5).map(sample)), 2);
        assert_eq!(
            seconds(queue.next_batch(Duration::from_secs(60)).await),
            [2, 3],
            "a full batch does not wait"
        );
        assert_eq!(seconds(queue.next_batch(Duration::ZERO).await), [4]);
    }

    #[tokio::test]
    async fn a_small_batch_leaves_in_time() {
        let queue = Queue::new(100, 50);
        queue.push([sample(1)]);
        let patience = Duration::from_millis(30);
        let begun = Instant::now();
        assert_eq!(seconds(queue.next_batch(patience).await), [1]);
        assert!(begun.elapsed() >= patience, "it waited for others first");
    }

    #[tokio::test]
    async fn what_is_put_back_comes_first_as_far_as_there_is_room() {
        let queue = Queue::new(4, 2);
        queue.push((0..4).map(sample));
        let taken = queue.try_batch(Duration::from_secs(60)).unwrap();
        queue.push([sample(4)]);
        assert_eq!(queue.put_back(taken), 1, "the oldest");
        assert_eq!(seconds(queue.next_above(4).await), [1, 2]);
        assert_eq!(seconds(queue.try_batch(Duration::ZERO)), [3, 4]);
        assert_eq!(queue.try_batch(Duration::ZERO), None);
    }

    #[tokio::test]
    async fn a_closed_queue_is_emptied_at_once() {
        let queue = Queue::new(100, 50);
        queue.push([sample(1)]);
        queue.close();
        assert_eq!(queue.push([sample(2)]), 1);
        let begun = Instant::now();
        assert_eq!(seconds(queue.next_batch(Duration::from_secs(60)).await), [1]);
        assert_eq!(queue.next_batch(Duration::from_secs(60)).await, None);
        assert!(begun.elapsed() < Duration::from_secs(30));
    }
}
