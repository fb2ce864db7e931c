use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::envoy::LaneLog;

use super::Arrivals;
use super::again::Again;

/// Time after which a request counts half in the parts of the lanes, seconds.
const HALF_LIFE_SECONDS: f64 = 30.0;
/// A model of which access logs have told nothing for this time is one whose refusals are not counted.
const HEARD_WITHIN: TimeDelta = TimeDelta::seconds(30);
/// More requests in one summary are none.
const MOST_REQUESTS: f64 = 1e8;
/// Longer than this no summary waits, seconds.
const LONGEST_SECONDS: f64 = 3600.0;

/// What access logs tell of the lanes of one model.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct LaneTraffic {
    /// Requests that Envoys refused because they were told to, by second.
    batch_refused: Arrivals,
    interactive_refused: Arrivals,
    /// Those of them that are demand, by second.
    #[serde(default)]
    counted: Option<Arrivals>,
    /// Which refused batch requests are new.
    #[serde(default)]
    again: Again,
    /// Offered requests of late: batch, and all. Each counts half after a time.
    recent: (f64, f64),
    heard_at: Option<DateTime<Utc>>,
    /// All since the start of the process, or the checkpoint it goes on from.
    total: LaneLog,
}

/// Requests/s that were refused, and which part of the offered ones can wait.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LaneRates {
    /// Of the lane `batch`, over ten seconds.
    pub batch_refused_rps: f64,
    /// Of the lane `interactive`, over ten seconds.
    pub interactive_refused_rps: f64,
    /// All of them that count as demand: batch requests that come again do not.
    pub counted_rps: f64,
    /// Whether access logs tell of the model, so that these are all.
    pub is_counted: bool,
    /// For how long they have told nothing of it, seconds; none before they ever did.
    pub silent_seconds: Option<f64>,
    /// Part of the offered requests that is batch, of late; none before any was logged.
    pub batch_part: Option<f64>,
}

/// Refused requests that are demand.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Counted {
    /// That a route refused, so nobody else counts them.
    pub(super) by_route: f64,
    /// All of them.
    pub(super) all: f64,
}

impl LaneTraffic {
    pub(super) fn new(step_seconds: u32, lag_seconds: u32) -> Self {
        let arrivals = || Arrivals::with_lag(step_seconds, lag_seconds);
        Self {
            batch_refused: arrivals(),
            interactive_refused: arrivals(),
            counted: Some(arrivals()),
            again: Again::default(),
            recent: (0.0, 0.0),
            heard_at: None,
            total: LaneLog::default(),
        }
    }

    /// Takes what was told in the time up to `now`. Returns the refused that are demand, where that can be.
    pub(super) fn observe(&mut self, log: &LaneLog, seconds: f64, now: DateTime<Utc>) -> Option<Counted> {
        let LaneLog { batch, interactive } = log;
        let counts = [batch, interactive].map(|lane| [lane.admitted, lane.refused, lane.dropped]);
        if !counts.iter().flatten().all(|count| (0.0..=MOST_REQUESTS).contains(count)) {
            return None;
        }
        let elapsed = self.heard_at.map_or(0.0, |before| (now - before).as_seconds_f64().max(0.0));
        let kept = (-elapsed / HALF_LIFE_SECONDS).exp2();
        self.recent = (kept * self.recent.0 + log.batch.offered(), kept * self.recent.1 + log.offered());
        self.heard_at = Some(now);
        self.total.add(*log);
        let seconds = seconds.min(LONGEST_SECONDS);
        // A saved state of before has none: then all that was refused counted.
        let of_before = &self.batch_refused;
        let all = self.counted.get_or_insert_with(|| of_before.clone());
        let new = self.again.new_ones(batch.admitted, batch.refused, now);
        let counted = Counted {
            by_route: (new - batch.dropped.min(batch.refused)).max(0.0),
            all: new.max(batch.dropped.min(batch.refused)) + interactive.refused,
        };
        all.count(now, counted.all, seconds);
        self.batch_refused.count(now, log.batch.refused, seconds);
        self.interactive_refused.count(now, log.interactive.refused, seconds);
        // Only rates are asked for: steps of the forecast are nobody's.
        let refused = [&mut self.batch_refused, &mut self.interactive_refused];
        for refused in refused.into_iter().chain(&mut self.counted) {
            refused.close(1, now);
        }
        Some(counted)
    }

    /// Rates over the ten seconds before `until`.
    pub(super) fn rates(&self, until: DateTime<Utc>, now: DateTime<Utc>) -> LaneRates {
        let (batch, all) = self.recent;
        let (batch_refused_rps, interactive_refused_rps) =
            (self.batch_refused.rates(until).0, self.interactive_refused.rates(until).0);
        let counted = self.counted.as_ref().map(|counted| counted.rates(until).0);
        LaneRates {
            batch_refused_rps,
            interactive_refused_rps,
            counted_rps: counted.unwrap_or(batch_refused_rps + interactive_refused_rps),
            is_counted: self.heard_at.is_some_and(|at| now - at <= HEARD_WITHIN),
            silent_seconds: self.heard_at.map(|at| (now - at).as_seconds_f64().max(0.0)),
            batch_part: Some(batch / all).filter(|part| part.is_finite()),
        }
    }

    pub(super) fn total(&self) -> LaneLog {
        self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envoy::LaneCounts;

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::<Utc>::UNIX_EPOCH + TimeDelta::seconds(1_000_000 + second)
    }

    fn log(admitted: f64, refused: f64) -> LaneLog {
        LaneLog {
            interactive: LaneCounts { admitted: 1.0, ..LaneCounts::default() },
            batch: LaneCounts { admitted, refused, dropped: 0.0 },
        }
    }

    #[test]
    fn refusals_are_counted_by_second_and_lanes_as_parts_of_what_was_offered() {
        let mut traffic = LaneTraffic::new(10, 40);
        assert_eq!(traffic.rates(at(0), at(0)), LaneRates::default());
        for second in 1..=20 {
            traffic.observe(&log(1.0, 2.0), 1.0, at(second));
        }
        let rates = traffic.rates(at(20), at(20));
        assert!((rates.batch_refused_rps - 2.0).abs() < 1e-9 && rates.is_counted, "{rates:?}");
        assert!((rates.batch_part.unwrap() - 0.75).abs() < 1e-9);
        assert!(!traffic.rates(at(51), at(51)).is_counted);
        assert_eq!(traffic.total().refused(), 40.0);
        assert_eq!(traffic.observe(&log(f64::NAN, 0.0), 1.0, at(60)), None);
        for second in 60..=400 {
            traffic.observe(&log(0.0, 0.0), 1.0, at(second));
        }
        assert!(traffic.rates(at(400), at(400)).batch_part.unwrap() < 0.01);
    }
}
