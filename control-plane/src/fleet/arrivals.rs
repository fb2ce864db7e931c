use std::collections::VecDeque;

use chrono::{DateTime, Utc};

/// Length of the window over which present rates are taken, seconds.
const WINDOW_SECONDS: i64 = 10;
/// Part of a step that telemetry has to cover for its demand to count as known.
const LEAST_COVERAGE: f64 = 0.8;
/// Steps without any telemetry that are still reported one by one; a longer silence is one gap.
const MOST_STEPS_AT_ONCE: i64 = 1000;

/// Arrivals of one model: the rate of the last seconds, and the forecast step that is being filled.
#[derive(Debug)]
pub struct Arrivals {
    step_seconds: u32,
    /// By second: arrived requests, output tokens.
    seconds: VecDeque<(i64, f64, f64)>,
    /// Steps that are not closed yet, oldest first; two around the end of a step.
    open: VecDeque<OpenStep>,
}

#[derive(Debug)]
struct OpenStep {
    index: i64,
    arrived: f64,
    first_at: DateTime<Utc>,
    last_at: DateTime<Utc>,
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

    /// Takes what arrived in the interval that ended at `at`.
    pub fn observe(&mut self, at: DateTime<Utc>, arrived: f64, output_tokens: f64, interval_seconds: f64) {
        let second = at.timestamp();
        match self.seconds.iter_mut().rev().find(|entry| entry.0 == second) {
            Some(entry) => {
                entry.1 += arrived;
                entry.2 += output_tokens;
            }
            None => self.seconds.push_back((second, arrived, output_tokens)),
        }
        while self.seconds.front().is_some_and(|entry| entry.0 < second - WINDOW_SECONDS - 1) {
            self.seconds.pop_front();
        }
        let index = second.div_euclid(i64::from(self.step_seconds));
        let from = at - chrono::TimeDelta::milliseconds((interval_seconds * 1000.0) as i64);
        match self.open.back_mut() {
            // A late sample of a step that is closed already counts for the present one.
            Some(open) if open.index >= index => {
                open.arrived += arrived;
                open.first_at = open.first_at.min(from);
                open.last_at = open.last_at.max(at);
            }
            _ => self.open.push_back(OpenStep { index, arrived, first_at: from, last_at: at }),
        }
    }

    /// Requests/s and output tokens/s over the last ten whole seconds.
    pub fn rates(&self, now: DateTime<Utc>) -> (f64, f64) {
        let end = now.timestamp();
        let recent = self.seconds.iter().filter(|entry| entry.0 < end && entry.0 >= end - WINDOW_SECONDS);
        let (arrived, tokens) = recent.fold((0.0, 0.0), |sum, entry| (sum.0 + entry.1, sum.1 + entry.2));
        (arrived / WINDOW_SECONDS as f64, tokens / WINDOW_SECONDS as f64)
    }

    /// Closes the steps that ended before `now`, oldest first.
    pub fn close(&mut self, now: DateTime<Utc>) -> Vec<Step> {
        let step = i64::from(self.step_seconds);
        let current = now.timestamp().div_euclid(step);
        let mut steps = Vec::new();
        while let Some(open) = self.open.pop_front_if(|open| open.index < current) {
            let next = self.open.front().map_or(current, |next| next.index.min(current));
            steps.push(self.closed(&open));
            let gap = (open.index + 1).max(next - MOST_STEPS_AT_ONCE)..next;
            steps.extend(gap.map(|index| Step { index, requests_per_second: None }));
        }
        steps
    }

    fn closed(&self, open: &OpenStep) -> Step {
        let step = i64::from(self.step_seconds);
        let start = DateTime::<Utc>::from_timestamp(open.index * step, 0).unwrap_or(open.first_at);
        let end = DateTime::<Utc>::from_timestamp((open.index + 1) * step, 0).unwrap_or(open.last_at);
        let covered = (open.last_at.min(end) - open.first_at.max(start)).as_seconds_f64();
        let length = f64::from(self.step_seconds);
        // The last sample of a step comes up to a scrape interval before its end.
        let known = covered > 0.0 && covered + 1.0 >= LEAST_COVERAGE * length;
        let requests_per_second =
            known.then(|| open.arrived / covered.max(LEAST_COVERAGE * length).min(length));
        Step { index: open.index, requests_per_second }
    }
}
