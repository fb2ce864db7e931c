use std::collections::VecDeque;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// Length of the window over which present rates are taken, seconds.
const WINDOW_SECONDS: i64 = 10;
/// Part of a step that the telemetry of the model's backends has to cover for its demand to count as known.
const LEAST_COVERAGE: f64 = 0.8;
/// Steps without any telemetry that are still reported one by one; a longer silence is one gap.
const MOST_STEPS_AT_ONCE: i64 = 1000;

/// Arrivals of one model: the rate of the last seconds, and the forecast steps that are being filled.
///
/// What arrived within an interval is spread evenly over it, so a long one (a backend that was silent for a while) does
/// not look like a burst.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Arrivals {
    step_seconds: u32,
    /// By second: arrived requests, output tokens.
    seconds: VecDeque<(i64, f64, f64)>,
    /// Steps that are not closed yet, oldest first; two around the end of a step.
    open: VecDeque<OpenStep>,
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
        Self { step_seconds: step_seconds.max(1), seconds: VecDeque::new(), open: VecDeque::new() }
    }

    /// Takes what arrived at one backend in the interval that ended at `at`.
    pub fn observe(&mut self, at: DateTime<Utc>, arrived: f64, output_tokens: f64, interval_seconds: f64) {
        let interval = interval_seconds.clamp(0.001, 86_400.0);
        let end = seconds_of(at);
        let start = end - interval;
        self.fill_seconds(start, end, arrived, output_tokens);
        self.fill_steps(start, end, arrived);
    }

    fn fill_seconds(&mut self, start: f64, end: f64, arrived: f64, output_tokens: f64) {
        let last = end.floor() as i64;
        // A clock that was set back leaves seconds behind that are not there yet.
        self.seconds.retain(|entry| entry.0 <= last + 1 && entry.0 >= last - WINDOW_SECONDS - 1);
        for second in (start.floor() as i64).max(last - WINDOW_SECONDS - 1)..=last {
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

    fn fill_steps(&mut self, start: f64, end: f64, arrived: f64) {
        let length = f64::from(self.step_seconds);
        let last = (end / length).floor() as i64;
        while self.open.back().is_some_and(|open| open.index > last + 1) {
            self.open.pop_back();
        }
        if self.open.back().is_none_or(|open| open.index < last) {
            self.open.push_back(OpenStep { index: last, arrived: 0.0, covered_seconds: 0.0 });
        }
        for open in &mut self.open {
            let covered = overlap(start, end, open.index as f64 * length, length);
            open.arrived += arrived * covered / (end - start);
            open.covered_seconds += covered;
        }
    }

    /// Requests/s and output tokens/s over the last ten whole seconds.
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
        steps
    }

    fn closed(&self, open: &OpenStep, backends: usize) -> Step {
        let whole = f64::from(self.step_seconds) * backends.max(1) as f64;
        let known = open.covered_seconds >= LEAST_COVERAGE * whole;
        let missing = whole / open.covered_seconds.clamp(LEAST_COVERAGE * whole, whole);
        let rate = open.arrived * missing / f64::from(self.step_seconds);
        Step { index: open.index, requests_per_second: known.then_some(rate) }
    }
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
