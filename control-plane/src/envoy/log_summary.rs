use std::collections::BTreeMap;
use std::net::SocketAddr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::decide::PartOutcomes;

use super::lanes::{self, LaneLog};

/// Backends and clusters of which is told at once; of more there is nothing.
pub(super) const MOST_NAMES: usize = 100_000;
/// First bytes of one backend that wait for the controller, in seconds of arrival; older ones are left out.
const MOST_FIRST_BYTES: usize = 60;

/// What the access logs told within a second, or within a few that are handed on as one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogSummary {
    /// Over how long, seconds.
    #[serde(default = "one_second")]
    pub seconds: f64,
    /// By backend.
    pub backends: BTreeMap<SocketAddr, BackendLog>,
    /// Requests that no backend took, by model.
    pub unplaced: BTreeMap<String, f64>,
    /// Requests, each as it was first told of, by model and lane.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub lanes: BTreeMap<String, LaneLog>,
    /// How both parts of the requests of canaries fared, by model. Entries are counted, not what they stand for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parts: BTreeMap<String, PartOutcomes>,
}

fn one_second() -> f64 {
    1.0
}

impl Default for LogSummary {
    fn default() -> Self {
        Self {
            seconds: 1.0,
            backends: BTreeMap::new(),
            unplaced: BTreeMap::new(),
            lanes: BTreeMap::new(),
            parts: BTreeMap::new(),
        }
    }
}

/// What they told of one backend. Counts are sums of weights.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BackendLog {
    /// Requests that ended with an answer or failed; of those whose clients left before, nothing is known.
    pub requests: f64,
    /// Requests among them that failed at the backend.
    pub errors: f64,
    /// How long answers took.
    pub responses: Responses,
    /// Tokens of prompts and of answers, where they are told.
    pub tokens: Tokens,
    /// First bytes, by the second in which their requests arrived; oldest first.
    pub first_bytes: Vec<FirstBytes>,
}

impl BackendLog {
    /// Whether the backend answered anything: a whole answer, or the first bytes of one.
    pub fn has_answers(&self) -> bool {
        self.requests > self.errors || !self.first_bytes.is_empty()
    }
}

/// Whole answers, and the time from the request's first byte to the answer's last, at the backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Responses {
    /// How many there were.
    pub count: f64,
    /// Their times together, seconds.
    pub sum_seconds: f64,
}

/// Tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tokens {
    /// Of prompts.
    pub prompt: f64,
    /// Of answers.
    pub output: f64,
}

/// Times to the first byte of streamed answers whose requests arrived within one second.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct FirstBytes {
    /// When they arrived, in the mean.
    pub arrived_at: DateTime<Utc>,
    /// How many there were.
    pub requests: f64,
    /// Their mean, seconds.
    pub mean_seconds: f64,
    /// Their median, seconds.
    pub p50_seconds: f64,
    /// Their 95th percentile, seconds.
    pub p95_seconds: f64,
}

impl LogSummary {
    /// Adds what was told in the time after. Returns how many first bytes found no room.
    pub fn append(&mut self, later: Self) -> u64 {
        let mut left_out = 0;
        self.seconds += later.seconds;
        for (address, log) in later.backends {
            let is_known = self.backends.contains_key(&address);
            if is_known || self.backends.len() < MOST_NAMES {
                left_out += self.backends.entry(address).or_default().append(log);
            }
        }
        for (model, requests) in later.unplaced {
            if self.unplaced.contains_key(&model) || self.unplaced.len() < MOST_NAMES {
                *self.unplaced.entry(model).or_default() += requests;
            }
        }
        lanes::append(&mut self.lanes, later.lanes);
        // There are no more of them than canaries.
        for (model, parts) in later.parts {
            self.parts.entry(model).or_default().add(&parts);
        }
        left_out
    }

    /// Makes every entry stand for `factor` of them.
    pub(super) fn scale(&mut self, factor: f64) {
        self.unplaced.values_mut().for_each(|requests| *requests *= factor);
        self.lanes.values_mut().for_each(|log| *log = log.scaled(factor));
        for log in self.backends.values_mut() {
            let counts = [&mut log.requests, &mut log.errors, &mut log.tokens.prompt, &mut log.tokens.output];
            counts.into_iter().for_each(|count| *count *= factor);
            log.responses.count *= factor;
            log.responses.sum_seconds *= factor;
            log.first_bytes.iter_mut().for_each(|first| first.requests *= factor);
        }
    }
}

impl BackendLog {
    fn append(&mut self, later: Self) -> u64 {
        self.requests += later.requests;
        self.errors += later.errors;
        self.responses.add(later.responses);
        self.tokens.add(later.tokens);
        self.first_bytes.extend(later.first_bytes);
        let left_out = self.first_bytes.len().saturating_sub(MOST_FIRST_BYTES);
        self.first_bytes.drain(..left_out);
        left_out as u64
    }
}

impl Responses {
    /// Adds others.
    pub fn add(&mut self, others: Self) {
        self.count += others.count;
        self.sum_seconds += others.sum_seconds;
    }

    /// Their mean, seconds; none of none.
    pub fn mean_seconds(&self) -> Option<f64> {
        (self.count > 0.0).then(|| self.sum_seconds / self.count)
    }
}

impl Tokens {
    /// Adds others.
    pub fn add(&mut self, others: Self) {
        self.prompt += others.prompt;
        self.output += others.output;
    }
}
