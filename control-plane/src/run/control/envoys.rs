use chrono::{DateTime, Utc};

use crate::envoy::LogSummary;
use crate::learn::Lesson;

use super::Core;

impl Core {
    /// Takes a second of access logs; first bytes teach how long backends make wait.
    pub(super) fn logged(&mut self, summary: &LogSummary, now: DateTime<Utc>) {
        self.fleet.observe_log(summary, now);
        for (address, log) in &summary.backends {
            if log.first_bytes.is_empty() || self.fleet.backend(*address).is_none() {
                continue;
            }
            self.teach(Lesson::FirstBytes(*address, log.first_bytes.clone()));
        }
    }
}
