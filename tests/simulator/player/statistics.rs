//! What a player counts and measures, in bounded memory.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use super::request::{FailureCause, Outcome};

/// Requests without a whole answer, by cause.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Failures {
    /// No connection to the target.
    pub connect: u64,
    /// The connection ended before an answer began.
    pub reset: u64,
    /// Answers with a status other than 200, by status.
    pub status: BTreeMap<u16, u64>,
    /// Streams that ended before their end mark.
    pub cut_stream: u64,
    /// Requests whose time was over.
    pub timeout: u64,
}

impl Failures {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.connect + self.reset + self.status.values().sum::<u64>() + self.cut_stream + self.timeout
    }

    /// Adds those of another model.
    pub fn add(&mut self, other: &Self) {
        self.connect += other.connect;
        self.reset += other.reset;
        self.cut_stream += other.cut_stream;
        self.timeout += other.timeout;
        for (status, count) in &other.status {
            *self.status.entry(*status).or_default() += count;
        }
    }

    fn count(&mut self, cause: FailureCause) {
        match cause {
            FailureCause::Connect => self.connect += 1,
            FailureCause::Reset => self.reset += 1,
            FailureCause::Status(status) => *self.status.entry(status).or_default() += 1,
            FailureCause::CutStream => self.cut_stream += 1,
            FailureCause::Timeout => self.timeout += 1,
        }
    }
}

impl fmt::Display for Failures {
    /// The causes that happened: `2 connect, 1 status 503`, or `none`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = [
            (self.connect, "connect"),
            (self.reset, "reset"),
            (self.cut_stream, "cut stream"),
            (self.timeout, "timeout"),
        ];
        let mut parts: Vec<String> = named
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, name)| format!("{count} {name}"))
            .collect();
        parts.extend(self.status.iter().map(|(status, count)| format!("{count} status {status}")));
        f.write_str(if parts.is_empty() { "none" } else { "" })?;
        f.write_str(&parts.join(", "))
    }
}

/// Counts and times of the requests of one model.
#[derive(Debug, Clone, Default)]
pub struct ModelStatistics {
    /// Requests sent.
    pub sent: u64,
    /// Requests answered whole.
    pub completed: u64,
    /// Requests without a whole answer.
    pub failures: Failures,
    /// Arrivals that were not sent because too many requests were in flight.
    pub over_the_cap: u64,
    /// Tokens received.
    pub output_tokens: u64,
    /// Time to first token.
    pub ttft: Histogram,
    /// Time to the last token, of the whole answers.
    pub duration: Histogram,
}

impl ModelStatistics {
    /// Requests sent whose end is not known.
    pub fn in_flight(&self) -> u64 {
        self.sent - self.completed - self.failures.total()
    }
}

/// Shortest time that a [`Histogram`] tells apart, in seconds.
const SHORTEST_SECONDS: f64 = 1e-4;

/// Ratio of the borders of one bucket: a quantile is off by half of it, 2.5 %, at most.
const GROWTH: f64 = 1.05;

/// From 0.1 ms, 360 buckets reach over an hour.
const BUCKETS: usize = 360;

/// Durations in buckets of 5 % width, for quantiles.
#[derive(Debug, Clone, Default)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

impl Histogram {
    /// Adds one duration.
    pub fn record(&mut self, duration: Duration) {
        self.counts.resize(BUCKETS, 0);
        let ratio = (duration.as_secs_f64() / SHORTEST_SECONDS).max(1.0);
        let bucket = (ratio.ln() / GROWTH.ln()) as usize;
        self.counts[bucket.min(BUCKETS - 1)] += 1;
        self.total += 1;
    }

    /// Number of durations.
    pub fn count(&self) -> u64 {
        self.total
    }

    /// The `level` quantile (0 to 1) in seconds, or nothing without durations.
    pub fn quantile_seconds(&self, level: f64) -> Option<f64> {
        let rank = (level.clamp(0.0, 1.0) * self.total as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Some(SHORTEST_SECONDS * GROWTH.powf(bucket as f64 + 0.5));
            }
        }
        None
    }
}

/// Shared by the requests of one model.
#[derive(Debug, Default)]
pub(super) struct Recorder(Mutex<ModelStatistics>);

impl Recorder {
    pub(super) fn sent(&self) {
        self.with(|statistics| statistics.sent += 1);
    }

    pub(super) fn over_the_cap(&self) {
        self.with(|statistics| statistics.over_the_cap += 1);
    }

    pub(super) fn finished(&self, outcome: &Outcome) {
        self.with(|statistics| {
            statistics.output_tokens += outcome.output_tokens;
            if let Some(ttft) = outcome.ttft {
                statistics.ttft.record(ttft);
            }
            match outcome.failure {
                Some(cause) => statistics.failures.count(cause),
                None => {
                    statistics.completed += 1;
                    statistics.duration.record(outcome.duration);
                }
            }
        });
    }

    pub(super) fn snapshot(&self) -> ModelStatistics {
        self.with(|statistics| statistics.clone())
    }

    fn with<T>(&self, f: impl FnOnce(&mut ModelStatistics) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_within_a_bucket() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile_seconds(0.5), None);
        for milliseconds in 1..=1000 {
            histogram.record(Duration::from_millis(milliseconds));
        }
        for (level, expected) in [(0.5, 0.5), (0.95, 0.95), (0.0, 0.001)] {
            let seconds = histogram.quantile_seconds(level).unwrap();
            assert!((seconds / expected - 1.0).abs() < 0.06, "{level}: {seconds}");
        }
    }

    #[test]
    fn extremes_do_not_leave_the_histogram() {
        let mut histogram = Histogram::default();
        histogram.record(Duration::ZERO);
        histogram.record(Duration::MAX);
        assert_eq!(histogram.count(), 2);
        assert!(histogram.quantile_seconds(1.0).is_some_and(f64::is_finite));
    }

    #[test]
    fn failures_are_named_by_cause() {
        let mut failures = Failures::default();
        assert_eq!(failures.to_string(), "none");
        for cause in [FailureCause::Status(503), FailureCause::Connect, FailureCause::Status(503)] {
            failures.count(cause);
        }
        assert_eq!((failures.to_string().as_str(), failures.total()), ("1 connect, 2 status 503", 3));
    }
}
