use serde::{Deserialize, Serialize};

use super::WaitQuery;
use super::features::{SECONDS_MAX, SECONDS_MIN};

/// Outcomes after which the fast and the slow rate of service weigh an old one half: the fast one follows a server
/// whose speed changes within a minute of load, the slow one has less noise.
const FAST_HALF_LIFE: f64 = 60.0;
const SLOW_HALF_LIFE: f64 = 1200.0;

/// Outcomes under load from which their rate is believed.
const LOADED_MIN: f64 = 5.0;

/// A wait shows the rate of service when it lasted this many iterations: shorter ones show their granularity.
const ITERATIONS_MIN: f64 = 5.0;

/// A rate of arrivals is taken to last for this long, in seconds; from then on to be this part of what the backend can
/// serve, if it was as high: a surge does not go on for ever.
const SURGE_SECONDS: f64 = 5.0;
const SURGE_PART: f64 = 0.5;

/// The rate that is assumed while no outcome has been seen, per second, of requests and of tokens.
const REQUESTS_ASSUMED: f64 = 10.0;
const TOKENS_ASSUMED: f64 = 10_000.0;

/// What stands before a request and itself, in one unit: prompt tokens when all of it is known, else requests.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Work {
    pub(super) unit: Unit,
    /// Waiting when the state was taken.
    pub(super) waiting: f64,
    /// Arrived since, known or expected.
    pub(super) arrived: f64,
    /// The request itself.
    pub(super) own: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Unit {
    Requests,
    PromptTokens,
}

impl Work {
    /// Takes a cleaned query, and the rate of service in requests per second.
    pub(super) fn of(query: &WaitQuery, served_rps: f64) -> Self {
        let state = &query.state;
        let sent_tokens = query.sent_prompt_tokens.or((state.age_seconds == 0.0).then_some(0.0));
        if let (Some(waiting), Some(arrived), Some(own)) =
            (state.waiting_prompt_tokens, sent_tokens, query.prompt_tokens)
        {
            return Self { unit: Unit::PromptTokens, waiting, arrived, own };
        }
        let arrived_rps = state.arrived_rps.unwrap_or(0.0);
        let soon = state.age_seconds.min(SURGE_SECONDS);
        let later = SURGE_PART * arrived_rps.min(served_rps) * (state.age_seconds - soon);
        let expected = arrived_rps * soon + later;
        Self {
            unit: Unit::Requests,
            waiting: state.waiting.unwrap_or(0.0),
            arrived: query.sent_requests.unwrap_or(expected),
            own: 1.0,
        }
    }

    pub(super) fn total(&self) -> f64 {
        self.waiting + self.arrived + self.own
    }

    /// The time until the request is served, in seconds, when work is done at `rate`: what was done since the state was
    /// taken is off, and `beat_seconds`, the time of an iteration, comes on top.
    pub(super) fn seconds(&self, rate: f64, age_seconds: f64, beat_seconds: f64) -> f64 {
        let left = (self.waiting + self.arrived - rate * age_seconds).max(0.0) + self.own;
        (left / rate + beat_seconds).clamp(SECONDS_MIN, SECONDS_MAX)
    }
}

/// Work over time, of outcomes that are slowly forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Rate {
    keep: f64,
    work: f64,
    seconds: f64,
    outcomes: f64,
}

impl Rate {
    fn new(half_life: f64) -> Self {
        Self { keep: 0.5_f64.powf(1.0 / half_life), work: 0.0, seconds: 0.0, outcomes: 0.0 }
    }

    fn add(&mut self, work: f64, seconds: f64) {
        self.work = self.work * self.keep + work;
        self.seconds = self.seconds * self.keep + seconds;
        self.outcomes = self.outcomes * self.keep + 1.0;
    }

    fn per_second(&self, outcomes_min: f64) -> Option<f64> {
        let rate = self.work / self.seconds;
        (self.outcomes >= outcomes_min && rate.is_finite() && rate > 0.0).then_some(rate)
    }
}

/// The rate at which one backend works off what waits, learned from outcomes: a request that found `work` before it and
/// waited `seconds` shows `work / seconds`, if there was enough to do in that time.
///
/// The rate of completions is no rate of service: a quiet backend completes what arrives, however fast it is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Service {
    fast: Rate,
    slow: Rate,
    /// Of all outcomes: not less than what a backend can do, used until it was loaded once.
    any: Rate,
    assumed: f64,
}

/// The fast and the slow rate of service, per second; positive and finite.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rates {
    pub(super) fast: f64,
    pub(super) slow: f64,
}

impl Service {
    pub(super) fn new(unit: Unit) -> Self {
        let assumed = match unit {
            Unit::Requests => REQUESTS_ASSUMED,
            Unit::PromptTokens => TOKENS_ASSUMED,
        };
        let (fast, slow) = (Rate::new(FAST_HALF_LIFE), Rate::new(SLOW_HALF_LIFE));
        Self { fast, slow, any: fast, assumed }
    }

    /// Takes in the outcome of a request.
    pub(super) fn observe(&mut self, work: &Work, age_seconds: f64, beat_seconds: f64, ttft_seconds: f64) {
        let seconds = ttft_seconds + age_seconds;
        self.any.add(work.total(), seconds);
        let long_enough = ttft_seconds > age_seconds.max(ITERATIONS_MIN * beat_seconds);
        if work.waiting > 0.0 && long_enough {
            self.fast.add(work.total(), seconds);
            self.slow.add(work.total(), seconds);
        }
    }

    pub(super) fn rates(&self) -> Rates {
        let any = self.any.per_second(1.0).unwrap_or(self.assumed);
        let slow = self.slow.per_second(LOADED_MIN).unwrap_or(any);
        Rates { fast: self.fast.per_second(LOADED_MIN).unwrap_or(slow), slow }
    }

    /// Whether the backend was seen under load often enough for its rate to be believed.
    pub(super) fn is_known(&self) -> bool {
        self.slow.per_second(LOADED_MIN).is_some()
    }
}
