use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::Error;

mod curve;
#[cfg(test)]
mod tests;

use curve::Curve;

/// Format of a saved [`CapacityModel`].
const VERSION: u32 = 1;

/// Windows of load that are kept: at one in ten seconds the last hour and a half.
const WINDOWS: usize = 500;

/// Windows that show a latency, before anything is said of it.
const WINDOWS_MIN: usize = 24;

/// Requests that wait at the end of a window from which on it counts as saturated.
const SATURATED_WAITING: f64 = 1.0;

/// What one backend did within a window of some seconds. What is not finite or negative counts as unknown.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct LoadWindow {
    /// Arrivals, requests per second.
    pub arrived_rps: Option<f64>,
    /// Completions, requests per second.
    pub completed_rps: Option<f64>,
    /// Requests that waited at its end.
    pub waiting: Option<f64>,
    /// Requests that were being served at its end.
    pub running: Option<f64>,
    /// Mean time to first token, in seconds.
    pub ttft_seconds: Option<f64>,
    /// Mean time between two tokens of a stream (TPOT), in seconds.
    pub inter_token_seconds: Option<f64>,
}

/// What requests are promised; a part that is `None` is not.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct LatencyTarget {
    /// Time to first token, in seconds.
    pub ttft_seconds: Option<f64>,
    /// Time between two tokens of a stream (TPOT), in seconds.
    pub inter_token_seconds: Option<f64>,
}

/// The rate of requests at which a backend still keeps its target, per second. All rates are finite and not negative.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CapacityEstimate {
    /// Nothing can be said: too few windows, or no target.
    Unknown,
    /// The target was missed even at the lowest rate that was seen, which is given: what less load would do is not known.
    Below {
        /// The lowest rate that was seen.
        rps: f64,
    },
    /// The backend was seen on both sides of the target.
    Known {
        /// At this rate a typical window just meets it.
        rps: f64,
        /// At this rate nine windows in ten meet it; 0 when they never did.
        lower_rps: f64,
        /// Above this rate fewer than one window in ten meets it, as far as was seen.
        upper_rps: f64,
    },
    /// The target was met at the highest rate that was seen, which is given: more load was not met.
    AtLeast {
        /// The highest rate that was seen.
        rps: f64,
    },
}

impl CapacityEstimate {
    /// Returns the rate to plan with, requests per second: the typical one where it is known, the highest that was seen
    /// to do where it is not; `None` when no rate was seen to keep the target.
    pub fn rps(&self) -> Option<f64> {
        match *self {
            Self::Known { rps, .. } | Self::AtLeast { rps } => Some(rps),
            Self::Unknown | Self::Below { .. } => None,
        }
    }

    /// The estimate for two targets at once: a rate must keep both.
    fn and(self, other: Self) -> Self {
        use CapacityEstimate::{AtLeast, Below, Known, Unknown};
        match (self, other) {
            (Unknown, _) | (_, Unknown) => Unknown,
            (Below { rps: a }, Below { rps: b }) => Below { rps: a.min(b) },
            (Below { rps }, _) | (_, Below { rps }) => Below { rps },
            (AtLeast { rps: a }, AtLeast { rps: b }) => AtLeast { rps: a.min(b) },
            (AtLeast { rps: seen }, Known { rps, lower_rps, upper_rps })
            | (Known { rps, lower_rps, upper_rps }, AtLeast { rps: seen }) => {
                if seen < rps {
                    return AtLeast { rps: seen };
                }
                Known { rps, lower_rps, upper_rps }
            }
            (
                Known { rps: a, lower_rps: lower_a, upper_rps: upper_a },
                Known { rps: b, lower_rps: lower_b, upper_rps: upper_b },
            ) => Known { rps: a.min(b), lower_rps: lower_a.min(lower_b), upper_rps: upper_a.min(upper_b) },
        }
    }
}

/// Learns the rate of requests at which one backend keeps a latency target.
///
/// Latency grows with load: the medians of windows at about the same rate, made to ascend (isotonic regression, Barlow et
/// al. 1972), are a curve, and the target is looked up on it. A window at whose end requests wait counts at the rate of
/// its completions, as more did not go through, any other at that of its arrivals. Nothing is extrapolated.
///
/// Higher targets never give lower rates. About 30 KB of memory.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Saved")]
pub struct CapacityModel {
    version: u32,
    windows: VecDeque<Point>,
}

/// A window, cleaned.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Point {
    rps: f64,
    ttft_seconds: Option<f64>,
    inter_token_seconds: Option<f64>,
}

impl Default for CapacityModel {
    fn default() -> Self {
        Self { version: VERSION, windows: VecDeque::new() }
    }
}

impl CapacityModel {
    /// Takes in a window; ignored when it shows no rate or no latency.
    pub fn observe(&mut self, window: &LoadWindow) {
        let lawful = |value: Option<f64>| value.filter(|value| value.is_finite() && *value >= 0.0);
        let positive = |value: Option<f64>| lawful(value).filter(|value| *value > 0.0);
        let (arrived, completed) = (lawful(window.arrived_rps), lawful(window.completed_rps));
        let saturated = lawful(window.waiting).is_some_and(|waiting| waiting >= SATURATED_WAITING);
        let rps = if saturated { completed.or(arrived) } else { arrived.or(completed) };
        let (ttft_seconds, inter_token_seconds) =
            (positive(window.ttft_seconds), positive(window.inter_token_seconds));
        let (Some(rps), true) = (rps, ttft_seconds.is_some() || inter_token_seconds.is_some()) else {
            return;
        };
        if self.windows.len() >= WINDOWS {
            self.windows.pop_front();
        }
        self.windows.push_back(Point { rps, ttft_seconds, inter_token_seconds });
    }

    /// Returns the rate at which the target is kept.
    pub fn estimate(&self, target: &LatencyTarget) -> CapacityEstimate {
        let lawful = |target: Option<f64>| target.filter(|seconds| seconds.is_finite() && *seconds > 0.0);
        let ttft =
            lawful(target.ttft_seconds).map(|target| self.estimate_one(target, |point| point.ttft_seconds));
        let inter_token = lawful(target.inter_token_seconds)
            .map(|target| self.estimate_one(target, |point| point.inter_token_seconds));
        let estimates = [ttft, inter_token].into_iter().flatten();
        estimates.reduce(CapacityEstimate::and).unwrap_or(CapacityEstimate::Unknown)
    }

    fn estimate_one(&self, target: f64, latency: fn(&Point) -> Option<f64>) -> CapacityEstimate {
        let points = self.windows.iter().filter_map(|point| Some((point.rps, latency(point)?.ln())));
        let points: Vec<(f64, f64)> = points.collect();
        if points.len() < WINDOWS_MIN {
            return CapacityEstimate::Unknown;
        }
        Curve::through(points).map_or(CapacityEstimate::Unknown, |curve| curve.estimate(target.ln()))
    }
}

/// A state as it was read, before it is known to be usable.
#[derive(Deserialize)]
struct Saved {
    version: u32,
    windows: VecDeque<Point>,
}

impl TryFrom<Saved> for CapacityModel {
    type Error = Error;

    fn try_from(saved: Saved) -> Result<Self, Error> {
        let Saved { version, windows } = saved;
        if version != VERSION {
            return Err(Error::Version { found: version, supported: VERSION });
        }
        let sound = |point: &Point| {
            let latencies = [point.ttft_seconds, point.inter_token_seconds];
            point.rps.is_finite()
                && point.rps >= 0.0
                && latencies.iter().flatten().all(|seconds| *seconds > 0.0)
        };
        if windows.len() > WINDOWS || !windows.iter().all(sound) {
            return Err(Error::Inconsistent("windows of load that cannot have been seen"));
        }
        Ok(Self { version, windows })
    }
}
