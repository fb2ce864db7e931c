use std::collections::VecDeque;

use chrono::{DateTime, Utc};

use crate::view::EventView;

use super::turns::are_opposite;

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

/// The newest events. The same message again within a minute is not repeated, unless the opposite was told between.
#[derive(Debug, Default)]
pub(super) struct Events {
    recent: Recent<EventView>,
}

impl Events {
    /// Notes an event; false when it only repeats a recent one.
    pub(super) fn note(&mut self, at: DateTime<Utc>, level: &'static str, message: String) -> bool {
        const REPEAT_AFTER_SECONDS: i64 = 60;
        let mut since =
            self.recent.newest_first.iter().take_while(|event| !are_opposite(&event.message, &message));
        let repeats = since
            .any(|event| event.message == message && (at - event.at).num_seconds() < REPEAT_AFTER_SECONDS);
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

#[cfg(test)]
mod tests {
    use super::super::turns::{fell, recovered};
    use super::*;

    #[test]
    fn a_message_is_told_again_after_a_minute_or_when_the_opposite_was_told() {
        let mut events = Events::default();
        let mut note = |second: i64, message: String| {
            events.note(DateTime::from_timestamp(1_700_000_000 + second, 0).unwrap(), "info", message)
        };
        assert!(note(0, fell("chat", "no telemetry")));
        assert!(note(1, fell("other", "no telemetry")));
        assert!(!note(2, fell("chat", "no telemetry")));
        assert!(note(20, recovered("chat")));
        assert!(note(25, fell("chat", "no telemetry")), "else it would seem to be well");
        assert!(!note(26, fell("other", "no telemetry")));
        assert!(note(61, fell("other", "no telemetry")));
    }
}
