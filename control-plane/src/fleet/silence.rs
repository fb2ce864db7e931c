use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// A backend whose telemetry is pushed is given up after this many of its usual intervals without any,
const MISSED_INTERVALS: f64 = 3.0;
/// but not before this time, seconds: a sender that starts anew is back by then,
const SHORTEST_SECONDS: f64 = 15.0;
/// and not after this one, seconds; it also stands where the interval is not known yet.
const LONGEST_SECONDS: f64 = 180.0;

/// What is remembered of a backend whose telemetry is pushed: nobody refuses a connection there, so it can only fall silent.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct Silence {
    /// When the newest telemetry came, by the own clock: that of a sender may be behind.
    heard_at: Option<DateTime<Utc>>,
    interval_seconds: Option<f64>,
}

impl Silence {
    /// Notes telemetry that came at `now` and covers an interval; 0 stands for an unknown one.
    pub(super) fn heard(&mut self, interval_seconds: f64, now: DateTime<Utc>) {
        self.heard_at = Some(now);
        if interval_seconds > 0.0 {
            self.interval_seconds = Some(interval_seconds);
        }
    }

    /// For how long it has been silent, seconds, where that is too long; `served_at` is when Envoys last told of a request
    /// that it answered.
    pub(super) fn too_long(&self, served_at: Option<DateTime<Utc>>, now: DateTime<Utc>) -> Option<f64> {
        let silent_seconds = |at: DateTime<Utc>| (now - at).as_seconds_f64();
        let patience = self.interval_seconds.map_or(LONGEST_SECONDS, |interval| {
            (MISSED_INTERVALS * interval).clamp(SHORTEST_SECONDS, LONGEST_SECONDS)
        });
        let serves = served_at.is_some_and(|at| silent_seconds(at) <= patience);
        self.heard_at.map(silent_seconds).filter(|seconds| *seconds > patience && !serves)
    }
}
