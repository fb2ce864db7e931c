use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

/// The time for which a backend is registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// How long it lasts from each renewal on.
    pub length: TimeDelta,
    /// When it is over.
    pub ends_at: DateTime<Utc>,
}

impl Lease {
    /// A lease that begins now, as each renewal does.
    pub fn new(length: TimeDelta, now: DateTime<Utc>) -> Self {
        let ends_at = now.checked_add_signed(length).unwrap_or(DateTime::<Utc>::MAX_UTC);
        Self { length, ends_at }
    }

    /// Seconds that are left; 0 when it is over.
    pub fn remaining_seconds(self, now: DateTime<Utc>) -> f64 {
        (self.ends_at - now).as_seconds_f64().max(0.0)
    }

    /// Whether it is over.
    pub fn is_over(self, now: DateTime<Utc>) -> bool {
        now >= self.ends_at
    }
}
