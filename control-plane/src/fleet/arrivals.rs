use std::collections::VecDeque;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// Length of the window over which present rates are taken, seconds.
const WINDOW_SECONDS: i64 = 10;
/// Part of a step that the telemetry of the model's backends has to cover for its demand to count as known.
const LEAST_COVERAGE: f64 = 0.8;
/// Steps without any telemetry that are still reported one by one; a longer silence is one gap.
const MOST_STEPS_AT_ONCE: i64 = 1000;
/// Steps that one interval may open: a longer one is a gap that has just ended.
const MOST_STEPS_OPENED: i64 = 60;

/// Arrivals of one model: the rate of the last seconds, and the forecast steps that are being filled.
///
/// What arrived within an interval is spread evenly over it, so a long one (a backend that was silent for a while) does
/// not look like a burst.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Arrivals {
    step_seconds: u32,
    /// How long single seconds are kept beside the window.
    lag_seconds: i64,
    /// By second: arrived requests, output tokens.
    seconds: VecDeque<(i64, f64, f64)>,
    /// Steps that are not closed yet, oldest first; two around the end of a step.
    open: VecDeque<OpenStep>,
    /// Steps before this one are closed, and stay so.
    closed_before: i64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct OpenStep {
    index: i64,
    arrived: f64,
    /// Seconds of the step that telemetry covers, summed over backends.
    covered_seconds: f64,
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
        }
    }

    /// Takes what arrived at one backend in the interval that ended at `at`, which its telemetry covers.
    pub fn observe(&mut self, at: DateTime<Utc>, arrived: f64, output_tokens: f64, interval_seconds: f64) {
        let (start, end) = interval(at, interval_seconds);
        self.fill_seconds(start, end, arrived, output_tokens);
        self.fill_steps(start, end, arrived, 1.0);
    }

    /// Takes what arrived in the interval that ended at `at`, and leaves open whether that is all that did.
    pub fn count(&mut self, at: DateTime<Utc>, arrived: f64, interval_seconds: f64) {
        let (start, end) = interval(at, interval_seconds);
        self.fill_seconds(start, end, arrived, 0.0);
        self.fill_steps(start, end, arrived, 0.0);
    }

    /// Notes that all that arrived in the interval that ended at `at` has been counted, or will be.
    pub fn cover(&mut self, at: DateTime<Utc>, interval_seconds: f64) {
        let (start, end) = interval(at, interval_seconds);
        self.fill_steps(start, end, 0.0, 1.0);
    }

    fn fill_seconds(&mut self, start: f64, end: f64, arrived: f64, output_tokens: f64) {
        let last = end.floor() as i64;
        let newest = self.seconds.iter().map(|entry| entry.0).max().map_or(last, |newest| newest.max(last));
        let is_set_back = newest > last + self.lag_seconds + 1;
        // A clock that was set back leaves seconds behind that are not there yet.
        let newest = if is_set_back { last } else { newest };
        let oldest = newest - WINDOW_SECONDS - self.lag_seconds - 1;
        self.seconds.retain(|entry| (oldest..=newest + 1).contains(&entry.0));
        for second in (start.floor() as i64).max(oldest)..=last {
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
        while self.open.back().is_some_and(|open| open.index > last + 1 + self.lag_steps()) {
            self.open.pop_back();
            self.closed_before = i64::MIN;
        }
        if self.closed_before > last + 1 + self.lag_steps() {
            self.closed_before = i64::MIN;
        }
        let newest = self.open.back().map_or(i64::MIN, |open| open.index);
        let from = first.max(newest.saturating_add(1)).max(self.closed_before).max(last - MOST_STEPS_OPENED);
        // What comes at once opens the step of its end only; of a lag, all that are not closed. Before the first step of
        // all nothing is known.
        let is_first = self.open.is_empty() && self.closed_before == i64::MIN;
        let from = if is_first || self.lag_seconds == 0 { from.max(last) } else { from };
        for index in from..=last {
            self.open.push_back(OpenStep { index, arrived: 0.0, covered_seconds: 0.0 });
        }
        for open in &mut self.open {
            let covered = overlap(start, end, open.index as f64 * length, length);
            open.arrived += arrived * covered / (end - start);
            open.covered_seconds += covered_by * covered;
        }
    }

    fn lag_steps(&self) -> i64 {
        self.lag_seconds / i64::from(self.step_seconds)
    }

    /// Requests/s and output tokens/s over the ten whole seconds before `now`.
    pub fn rates(&self, now: DateTime<Utc>) -> (f64, f64) {
        let end = now.timestamp();
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
    use chrono::TimeDelta;

    use super::*;

    fn at(seconds: f64) -> DateTime<Utc> {
        DateTime::<Utc>::UNIX_EPOCH + TimeDelta::milliseconds(((1_000_000.0 + seconds) * 1000.0) as i64)
    }

    #[test]
    fn a_step_counts_only_when_telemetry_covered_it() {
        let mut arrivals = Arrivals::new(10);
        for second in 0..10 {
            arrivals.observe(at(f64::from(second) + 1.0), 4.0, 8.0, 1.0);
        }
        let (rate, tokens) = arrivals.rates(at(10.0));
        assert!((rate - 4.0).abs() < 0.01 && (tokens - 8.0).abs() < 0.01, "{rate} {tokens}");
        let closed = arrivals.close(1, at(10.2));
        assert_eq!(closed.len(), 1);
        let rate = closed[0].requests_per_second.unwrap();
        assert!((3.9..4.1).contains(&rate), "{rate}");
        arrivals.observe(at(17.0), 4.0, 8.0, 1.0);
        let closed = arrivals.close(1, at(45.0));
        assert_eq!(closed.len(), 3, "the half step and the silence behind it");
        assert!(closed.iter().all(|step| step.requests_per_second.is_none()));
    }

    #[test]
    fn what_silent_backends_took_is_unknown_and_not_nothing() {
        let mut arrivals = Arrivals::new(10);
        for second in 0..10 {
            arrivals.observe(at(f64::from(second) + 1.0), 4.0, 0.0, 1.0);
        }
        assert_eq!(arrivals.close(2, at(10.2))[0].requests_per_second, None);
    }

    #[test]
    fn a_long_interval_is_no_burst() {
        let mut arrivals = Arrivals::new(10);
        arrivals.observe(at(60.0), 600.0, 0.0, 60.0);
        arrivals.observe(at(61.0), 10.0, 0.0, 1.0);
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
        arrivals.observe(at(1000.5), 5.0, 0.0, 1.0);
        for second in 0..10 {
            arrivals.observe(at(f64::from(second) + 1.0), 4.0, 0.0, 1.0);
        }
        let closed = arrivals.close(1, at(10.5));
        assert!((3.9..4.1).contains(&closed[0].requests_per_second.unwrap()), "{closed:?}");
    }
}
