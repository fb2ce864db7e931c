use std::collections::VecDeque;

use chrono::{DateTime, Utc};

use crate::view::EventView;

/// Events and decisions that are kept in memory for the dashboard; the database has them all.
const KEPT: usize = 50;

/// A list of the newest few.
#[derive(Debug)]
pub(super) struct Recent<T> {
    newest_first: VecDeque<T>,
}

impl<T> Default for Recent<T> {
    fn default() -> Self {
        Self { newest_first: VecDeque::new() }
    }
}

impl<T: Clone> Recent<T> {
    /// Adds one; the oldest goes when there are too many.
    pub(super) fn push(&mut self, item: T) {
        self.newest_first.push_front(item);
        self.newest_first.truncate(KEPT);
    }

    /// The newest first, at most `limit`.
    pub(super) fn newest(&self, limit: usize) -> Vec<T> {
        self.newest_first.iter().take(limit).cloned().collect()
    }
}

/// The newest events. The same message again within a minute is not repeated.
#[derive(Debug, Default)]
pub(super) struct Events {
    recent: Recent<EventView>,
}

impl Events {
    /// Notes an event; false when it only repeats a recent one.
    pub(super) fn note(&mut self, at: DateTime<Utc>, level: &'static str, message: String) -> bool {
        const REPEAT_AFTER_SECONDS: i64 = 60;
        let repeats =
            self.recent.newest_first.iter().any(|event| {
                event.message == message && (at - event.at).num_seconds() < REPEAT_AFTER_SECONDS
            });
        if !repeats {
            match level {
                "error" => tracing::error!("{message}"),
                "warning" => tracing::warn!("{message}"),
                _ => tracing::info!("{message}"),
            }
            self.recent.push(EventView { at, level: level.to_owned(), message });
        }
        !repeats
    }

    /// The newest first, at most `limit`.
    pub(super) fn newest(&self, limit: usize) -> Vec<EventView> {
        self.recent.newest(limit)
    }
}
