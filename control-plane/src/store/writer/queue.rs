use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use crate::telemetry::Sample;

/// Samples on their way to the database: at most `capacity`, of which the newest are kept.
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
        let wake = before == 0 || state.rows.len() >= self.batch_rows;
        drop(state);
        if wake {
            self.changed.notify_one();
        }
        dropped
    }

    /// Waits for samples, then until a batch is full or the first of it has waited for `patience`, and takes it.
    /// `None` when the queue is closed and empty.
    pub(super) async fn next_batch(&self, patience: Duration) -> Option<Vec<Sample>> {
        loop {
            let changed = self.changed.notified();
            {
                let state = self.lock();
                if !state.rows.is_empty() {
                    break;
                }
                if state.closed {
                    return None;
                }
            }
            changed.await;
        }
        let deadline = Instant::now() + patience;
        loop {
            let changed = self.changed.notified();
            {
                let state = self.lock();
                if state.closed || state.rows.len() >= self.batch_rows {
                    break;
                }
            }
            if timeout_at(deadline, changed).await.is_err() {
                break;
            }
        }
        let mut state = self.lock();
        let count = state.rows.len().min(self.batch_rows);
        Some(state.rows.drain(..count).collect())
    }

    /// Takes no more samples; those that are in it can still be taken out.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_one();
    }

    pub(super) fn len(&self) -> usize {
        self.lock().rows.len()
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
