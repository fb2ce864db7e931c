use chrono::{DateTime, DurationRound as _, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::store::settings::Retention;

/// Points of a chart at most; no screen shows more.
const POINTS: i64 = 1_000;
/// Samples are read over this at most: an index by time finds them, and those of all other backends with them.
const RAW_BACKEND: TimeDelta = TimeDelta::seconds(1_000);
const RAW_GROUP: TimeDelta = TimeDelta::minutes(5);
/// Steps made of minutes. Those of one backend lie on a page each, so it gets hours sooner.
const MINUTES_BACKEND: [u32; 3] = [60, 120, 300];
const MINUTES_GROUP: [u32; 4] = [60, 120, 300, 600];
/// Steps made of hours, from one hour to 30 days.
const HOURS: [u32; 7] = [3_600, 7_200, 10_800, 21_600, 43_200, 86_400, 2_592_000];

/// What a history is made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// Samples as they came.
    Raw,
    /// Samples by the minute.
    Minutes,
    /// Samples by the hour.
    Hours,
}

impl Source {
    /// Returns the start of the minute or hour that holds a time.
    pub(super) fn start_of(self, at: DateTime<Utc>) -> DateTime<Utc> {
        let unit = match self {
            Self::Raw => return at,
            Self::Minutes => TimeDelta::minutes(1),
            Self::Hours => TimeDelta::hours(1),
        };
        at.duration_trunc(unit).unwrap_or(at)
    }
}

/// Where a chart comes from, and in which steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) source: Source,
    pub(super) step_seconds: u32,
}

impl Plan {
    /// Returns the finest steps that are few enough, from rows that are still kept.
    pub(super) fn of(
        is_group: bool,
        from: DateTime<Utc>,
        to: DateTime<Utc>,
        retention: &Retention,
        now: DateTime<Utc>,
    ) -> Self {
        let span = to - from;
        let fits = |step: &&u32| span.num_seconds() <= i64::from(**step) * POINTS;
        let kept = |days: u32| from >= now - TimeDelta::days(i64::from(days));
        let (raw, raw_step) = if is_group { (RAW_GROUP, 10) } else { (RAW_BACKEND, 1) };
        if span <= raw && kept(retention.samples_days) {
            return Self { source: Source::Raw, step_seconds: raw_step };
        }
        let minutes: &[u32] = if is_group { &MINUTES_GROUP } else { &MINUTES_BACKEND };
        if let Some(step) = minutes.iter().find(fits).filter(|_| kept(retention.minutes_days)) {
            return Self { source: Source::Minutes, step_seconds: *step };
        }
        let [.., longest] = HOURS;
        let step_seconds = HOURS.iter().find(fits).copied().unwrap_or(longest);
        Self { source: Source::Hours, step_seconds }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(is_group: bool, seconds: i64, days_ago: i64) -> (Source, u32) {
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let from = now - TimeDelta::days(days_ago) - TimeDelta::seconds(seconds);
        let plan = Plan::of(is_group, from, from + TimeDelta::seconds(seconds), &Retention::default(), now);
        (plan.source, plan.step_seconds)
    }

    #[test]
    fn longer_charts_have_longer_steps() {
        assert_eq!(plan(false, 600, 0), (Source::Raw, 1));
        assert_eq!(plan(true, 300, 0), (Source::Raw, 10));
        assert_eq!(plan(true, 600, 0), (Source::Minutes, 60));
        assert_eq!(plan(false, 60_000, 0), (Source::Minutes, 60));
        assert_eq!(plan(false, 60_001, 0), (Source::Minutes, 120));
        assert_eq!(plan(true, 6 * 86_400, 0), (Source::Minutes, 600));
        assert_eq!(plan(false, 6 * 86_400, 0), (Source::Hours, 3_600));
        assert_eq!(plan(true, 14 * 86_400, 0), (Source::Hours, 3_600));
        assert_eq!(plan(true, 730 * 86_400, 0), (Source::Hours, 86_400));
        for days in 1..4_000 {
            let (_, step) = plan(false, days * 86_400, 0);
            assert!(days * 86_400 <= i64::from(step) * POINTS, "{days} days in steps of {step} s");
        }
    }

    #[test]
    fn what_is_not_kept_is_not_asked_for() {
        assert_eq!(plan(false, 600, 8), (Source::Minutes, 60));
        assert_eq!(plan(false, 600, 91), (Source::Hours, 3_600));
    }
}
