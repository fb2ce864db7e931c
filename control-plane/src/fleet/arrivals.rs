use std::collections::VecDeque;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Deserializer, Serialize};

/// Length of the window over which present rates are taken, seconds.
const WINDOW_SECONDS: i64 = 10;
/// What comes later than this, seconds, no longer counts for present rates; telemetry so old is none.
const LATE_SECONDS: i64 = 10;
/// What is farther ahead of the own clock does not count.
const MOST_AHEAD: TimeDelta = TimeDelta::seconds(1);
/// Part of a step that the telemetry of the model's backends has to cover for its demand to count as known.
const LEAST_COVERAGE: f64 = 0.8;
/// Steps without any telemetry that are still reported one by one; a longer silence is one gap.
const MOST_STEPS_AT_ONCE: i64 = 1000;
/// Steps back from the present one that reports with a lag may still open: a longer interval is a gap that has just
/// ended.
const MOST_STEPS_OPENED: i64 = 60;

/// Arrivals of one model: the rate of the last seconds, and the forecast steps that are being filled.
///
/// What arrived within an interval is spread evenly over it, so a long one (a backend that was silent for a while) does
/// not look like a burst.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Arrivals {
    #[serde(deserialize_with = "at_least_one")]
    step_seconds: u32,
    /// How long single seconds are kept beside the window.
    #[serde(deserialize_with = "a_day_at_most")]
    lag_seconds: i64,
    /// By second: arrived requests, output tokens.
    seconds: VecDeque<(i64, f64, f64)>,
    /// Steps that are not closed yet, oldest first; two around the end of a step.
    open: VecDeque<OpenStep>,
    /// Steps before this one are closed, and stay so.
    closed_before: i64,
    /// The newest time of the own clock.
    now: DateTime<Utc>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct OpenStep {
    index: i64,
    arrived: f64,
    /// Seconds of the step that telemetry covers, summed over backends.
    covered_seconds: f64,
}

/// A saved state may come from a file.
fn at_least_one<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    Ok(u32::deserialize(deserializer)?.max(1))
}

fn a_day_at_most<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    Ok(i64::deserialize(deserializer)?.clamp(0, 86_400))
}

/// Demand in one closed step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// Number of the step: Unix seconds / step length.
    pub index: i64,
    /// Requests/s; none when telemetry covered too little of it.
    pub requests_per_second: Option<f64>,
}

impl Arrivals {
    /// No arrivals yet, with a given step length.
    pub fn new(step_seconds: u32) -> Self {
        Self::with_lag(step_seconds, 0)
    }

    /// No arrivals yet, of which some become known as much as `lag_seconds` after others.
    pub fn with_lag(step_seconds: u32, lag_seconds: u32) -> Self {
        Self {
            step_seconds: step_seconds.max(1),
            lag_seconds: i64::from(lag_seconds),
            seconds: VecDeque::new(),
            open: VecDeque::new(),
            closed_before: i64::MIN,
            now: DateTime::<Utc>::UNIX_EPOCH,
        }
    }

    /// Takes what arrived at one backend in the interval that ended at `at`, which its telemetry covers. It may come later
    /// than what arrived after it; what is ahead of the clock that showed `now` is left out.
    pub fn observe(
        &mut self,
        at: DateTime<Utc>,
        arrived: f64,
        output_tokens: f64,
        interval_seconds: f64,
        now: DateTime<Utc>,
    ) {
        self.forget_before(now);
        if at > now + MOST_AHEAD {
            return;
        }
        let (start, end) = interval(at, interval_seconds);
        self.fill_seconds(start, end, arrived, output_tokens);
        self.fill_steps(start, end, arrived, 1.0);
    }

    /// Takes what arrived in the interval that ended at `at`, and leaves open whether that is all that did.
    pub fn count(&mut self, at: DateTime<Utc>, arrived: f64, interval_seconds: f64) {
        self.forget_before(self.clock(at));
        let (start, end) = interval(at, interval_seconds);
        self.fill_seconds(start, end, arrived, 0.0);
        self.fill_steps(start, end, arrived, 0.0);
    }

    /// Notes that all that arrived in the interval that ended at `at` has been counted, or will be.
    pub fn cover(&mut self, at: DateTime<Utc>, interval_seconds: f64) {
        self.forget_before(self.clock(at));
        let (start, end) = interval(at, interval_seconds);
        self.fill_steps(start, end, 0.0, 1.0);
    }

    /// The time, as far as what comes with a lag tells of it.
    fn clock(&self, at: DateTime<Utc>) -> DateTime<Utc> {
        let is_set_back = at + TimeDelta::seconds(self.lag_seconds + 1) < self.now;
        if is_set_back { at } else { at.max(self.now) }
    }

    /// Forgets what is too old at `now`, and what a clock that was set back has left in the future.
    fn forget_before(&mut self, now: DateTime<Utc>) {
        if now + MOST_AHEAD < self.now {
            let current = self.step_of(now);
            self.open.retain(|open| open.index <= current);
            if self.closed_before > current + 1 {
                self.closed_before = i64::MIN;
            }
        }
        self.now = now;
        let kept = self.oldest()..=now.timestamp() + 1;
        self.seconds.retain(|entry| kept.contains(&entry.0));
    }

    /// The oldest second that is kept.
    fn oldest(&self) -> i64 {
        self.now.timestamp() - WINDOW_SECONDS - self.lag_seconds.max(LATE_SECONDS) - 1
    }

    fn step_of(&self, at: DateTime<Utc>) -> i64 {
        at.timestamp().div_euclid(i64::from(self.step_seconds))
    }

    fn fill_seconds(&mut self, start: f64, end: f64, arrived: f64, output_tokens: f64) {
        for second in (start.floor() as i64).max(self.oldest())..=end.floor() as i64 {
            let part = overlap(start, end, second as f64, 1.0) / (end - start);
            match self.seconds.iter_mut().rev().find(|entry| entry.0 == second) {
                Some(entry) => {
                    entry.1 += part * arrived;
                    entry.2 += part * output_tokens;
                }
                None => self.seconds.push_back((second, part * arrived, part * output_tokens)),
            }
        }
    }

    fn fill_steps(&mut self, start: f64, end: f64, arrived: f64, covered_by: f64) {
        let length = f64::from(self.step_seconds);
        let (first, last) = ((start / length).floor() as i64, (end / length).floor() as i64);
        // Before the first step of all nothing is known.
        let known_from = match self.open.front() {
            Some(oldest) if self.closed_before == i64::MIN => oldest.index.min(last),
            None if self.closed_before == i64::MIN => last,
            _ => self.closed_before,
        };
        let late = if self.lag_seconds > 0 {
            MOST_STEPS_OPENED
        } else {
            1 + LATE_SECONDS / i64::from(self.step_seconds)
        };
        for index in first.max(known_from).max(self.step_of(self.now) - late)..=last {
            if let Err(place) = self.open.binary_search_by_key(&index, |open| open.index) {
                self.open.insert(place, OpenStep { index, arrived: 0.0, covered_seconds: 0.0 });
            }
        }
        for open in &mut self.open {
            let covered = overlap(start, end, open.index as f64 * length, length);
            open.arrived += arrived * covered / (end - start);
            open.covered_seconds += covered_by * covered;
        }
    }

    /// Requests/s and output tokens/s over the ten whole seconds before `until`: a time up to which everyone has told
    /// what arrived.
    pub fn rates(&self, until: DateTime<Utc>) -> (f64, f64) {
        let end = until.timestamp();
        let recent = self.seconds.iter().filter(|entry| entry.0 < end && entry.0 >= end - WINDOW_SECONDS);
        let (arrived, tokens) = recent.fold((0.0, 0.0), |sum, entry| (sum.0 + entry.1, sum.1 + entry.2));
        (arrived / WINDOW_SECONDS as f64, tokens / WINDOW_SECONDS as f64)
    }

    /// Closes the steps that ended before `now`, oldest first. A step is known when telemetry of `backends`, as many as
    /// share the demand, covers most of it: what a silent backend took is not counted as no demand.
    pub fn close(&mut self, backends: usize, now: DateTime<Utc>) -> Vec<Step> {
        let current = now.timestamp().div_euclid(i64::from(self.step_seconds));
        let mut steps = Vec::new();
        while let Some(open) = self.open.pop_front_if(|open| open.index < current) {
            let next = self.open.front().map_or(current, |next| next.index.min(current));
            steps.push(self.closed(&open, backends));
            let gap = (open.index + 1).max(next - MOST_STEPS_AT_ONCE)..next;
            steps.extend(gap.map(|index| Step { index, requests_per_second: None }));
        }
        if let Some(last) = steps.last() {
            self.closed_before = last.index + 1;
        }
        steps
    }

    fn closed(&self, open: &OpenStep, backends: usize) -> Step {
        let whole = f64::from(self.step_seconds) * backends.max(1) as f64;
        let known = open.covered_seconds >= LEAST_COVERAGE * whole;
        // What comes with a lag tells of the time before, too: nothing of it is missing.
        let counted = if self.lag_seconds > 0 { whole } else { open.covered_seconds };
        let missing = whole / counted.clamp(LEAST_COVERAGE * whole, whole);
        let rate = open.arrived * missing / f64::from(self.step_seconds);
        Step { index: open.index, requests_per_second: known.then_some(rate) }
    }
}

/// Begin and end of the interval that ended at `at`, Unix seconds.
fn interval(at: DateTime<Utc>, interval_seconds: f64) -> (f64, f64) {
    let end = seconds_of(at);
    (end - interval_seconds.clamp(0.001, 86_400.0), end)
}

fn seconds_of(at: DateTime<Utc>) -> f64 {
    at.timestamp() as f64 + f64::from(at.timestamp_subsec_millis()) / 1000.0
}

/// Seconds that the interval `start..end` has in common with the `length` seconds from `from`.
fn overlap(start: f64, end: f64, from: f64, length: f64) -> f64 {
    (end.min(from + length) - start.max(from)).max(0.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: f64) -> DateTime<Utc> {
        DateTime::<Utc>::UNIX_EPOCH + TimeDelta::milliseconds(((1_000_000.0 + seconds) * 1000.0) as i64)
    }

    #[test]
    fn a_step_counts_only_when_telemetry_covered_it() {
        let mut arrivals = Arrivals::new(10);
        for second in 0..10 {
            arrivals.observe(at(f64::from(second) + 1.0), 4.0, 8.0, 1.0, at(f64::from(second) + 1.0));
        }
        let (rate, tokens) = arrivals.rates(at(10.0));
        assert!((rate - 4.0).abs() < 0.01 && (tokens - 8.0).abs() < 0.01, "{rate} {tokens}");
        let closed = arrivals.close(1, at(10.2));
        assert_eq!(closed.len(), 1);
        let rate = closed[0].requests_per_second.unwrap();
        assert!((3.9..4.1).contains(&rate), "{rate}");
        arrivals.observe(at(17.0), 4.0, 8.0, 1.0, at(17.0));
        let closed = arrivals.close(1, at(45.0));
        assert_eq!(closed.len(), 3, "the half step and the silence behind it");
        assert!(closed.iter().all(|step| step.requests_per_second.is_none()));
    }

    #[test]
    fn what_silent_backends_took_is_unknown_and_not_nothing() {
        let mut arrivals = Arrivals::new(10);
        for second in 0..10 {
            arrivals.observe(at(f64::from(second) + 1.0), 4.0, 0.0, 1.0, at(f64::from(second) + 1.0));
        }
        assert_eq!(arrivals.close(2, at(10.2))[0].requests_per_second, None);
    }

    #[test]
    fn a_long_interval_is_no_burst() {
        let mut arrivals = Arrivals::new(10);
        arrivals.observe(at(60.0), 600.0, 0.0, 60.0, at(60.0));
        arrivals.observe(at(61.0), 10.0, 0.0, 1.0, at(61.0));
        let (rate, _) = arrivals.rates(at(61.0));
        assert!((9.0..11.0).contains(&rate), "{rate}");
    }

    #[test]
    fn a_closed_step_stays_closed_and_a_late_report_fills_only_what_is_open() {
        let mut arrivals = Arrivals::with_lag(10, 20);
        for second in 1..=20 {
            arrivals.cover(at(f64::from(second)), 1.0);
        }
        arrivals.count(at(10.0), 30.0, 10.0);
        let closed = arrivals.close(1, at(10.5));
        assert_eq!(closed.iter().map(|step| step.requests_per_second).collect::<Vec<_>>(), [Some(3.0)]);
        // A report of 20 s: half of it belongs to the step that is closed.
        arrivals.count(at(20.0), 40.0, 20.0);
        arrivals.cover(at(20.2), 0.2);
        let closed = arrivals.close(1, at(20.5));
        assert_eq!(closed.len(), 1, "{closed:?}");
        assert!((closed[0].requests_per_second.unwrap() - 2.0).abs() < 1e-6, "{closed:?}");
        arrivals.count(at(19.0), 40.0, 2.0);
        assert_eq!(arrivals.close(1, at(21.0)), []);
    }

    #[test]
    fn reports_that_lag_behind_others_count_in_the_window_in_which_they_happened() {
        let mut arrivals = Arrivals::with_lag(60, 30);
        for second in (2..=40).step_by(2) {
            arrivals.count(at(f64::from(second)), 4.0, 2.0);
        }
        arrivals.count(at(30.0), 100.0, 10.0);
        let (rate, _) = arrivals.rates(at(30.0));
        assert!((rate - 12.0).abs() < 1e-6, "{rate}");
    }

    #[test]
    fn a_clock_that_is_set_back_leaves_nothing_behind() {
        let mut arrivals = Arrivals::new(10);
        arrivals.observe(at(1000.5), 5.0, 0.0, 1.0, at(1000.5));
        for second in 0..10 {
            arrivals.observe(at(f64::from(second) + 1.0), 4.0, 0.0, 1.0, at(f64::from(second) + 1.0));
        }
        let closed = arrivals.close(1, at(10.5));
        assert!((3.9..4.1).contains(&closed[0].requests_per_second.unwrap()), "{closed:?}");
    }

    #[test]
    fn one_backend_that_lags_takes_nothing_from_the_others() {
        let mut arrivals = Arrivals::new(10);
        for second in 1..=20 {
            let now = at(f64::from(second));
            arrivals.observe(now, 10.0, 20.0, 1.0, now);
            arrivals.observe(now - TimeDelta::seconds(3), 1.0, 2.0, 1.0, now);
        }
        let (rate, tokens) = arrivals.rates(at(17.0));
        assert!((rate - 11.0).abs() < 1e-6 && (tokens - 22.0).abs() < 1e-6, "{rate} {tokens}");
        arrivals.observe(at(60.0), 1e6, 0.0, 1.0, at(20.0));
        assert!((arrivals.rates(at(17.0)).0 - 11.0).abs() < 1e-6, "a sample from the future");
    }

    proptest! {
        #[test]
        fn order_and_lag_of_samples_do_not_change_what_is_counted(
            samples in proptest::collection::vec((1_u32..100, 0_u32..50, 1_u32..25, any::<u32>()), 1..60),
        ) {
            let count = |samples: &[(u32, u32, u32, u32)], is_late: bool| {
                let mut arrivals = Arrivals::new(3);
                arrivals.observe(at(-4.0), 1.0, 1.0, 1.0, at(-4.0));
                arrivals.close(1, at(0.0));
                for (tenths, arrived, interval, _) in samples {
                    let end = at(f64::from(*tenths) / 10.0);
                    let now = if is_late { at(10.0) } else { end };
                    arrivals.observe(end, f64::from(*arrived), 0.0, f64::from(*interval) / 10.0, now);
                }
                let steps = arrivals.close(1, at(12.0)).into_iter();
                (arrivals.rates(at(10.0)).0, steps.map(|step| step.requests_per_second).collect::<Vec<_>>())
            };
            let mut in_order = samples.clone();
            in_order.sort_unstable();
            let (rate, steps) = count(&in_order, false);
            let mut mixed = samples;
            mixed.sort_unstable_by_key(|sample| sample.3);
            let (other_rate, other_steps) = count(&mixed, true);
            prop_assert!((rate - other_rate).abs() < 1e-6, "{rate} {other_rate}");
            prop_assert_eq!(steps.len(), other_steps.len());
            for (one, other) in steps.into_iter().zip(other_steps) {
                prop_assert!((one.unwrap_or(-1.0) - other.unwrap_or(-1.0)).abs() < 1e-6);
            }
        }
    }
}
