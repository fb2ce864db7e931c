use std::f64::consts::LN_2;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::decide::{LoggedInterval, Mix};
use crate::envoy::{BackendLog, FirstBytes, Responses, Tokens};

use super::Backend;

/// A longer time without answers was none in which requests were in flight, seconds.
const LONGEST_QUIET_SECONDS: f64 = 10.0;
/// Time after which an answer counts half in what is recent, seconds.
const HALF_LIFE_SECONDS: f64 = 10.0;

/// What Envoys tell of one backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GatewayView {
    /// Requests that ended with an answer or failed, since the backend joined.
    pub requests: f64,
    /// Requests among them that failed at it.
    pub errors: f64,
    /// Whole answers since it joined, and how long they took.
    pub responses: Responses,
    /// Tokens since it joined, where they are told.
    pub tokens: Tokens,
    /// The newest times to the first byte.
    pub first_bytes: Option<FirstBytes>,
    /// When Envoys last told of a request that it answered.
    pub served_at: Option<DateTime<Utc>>,
    /// Answers of late: each counts half after ten seconds.
    recent: Responses,
    recent_at: Option<DateTime<Utc>>,
}

impl GatewayView {
    pub(super) fn observe(&mut self, log: &BackendLog, now: DateTime<Utc>) {
        self.requests += log.requests;
        self.errors += log.errors;
        self.responses.add(log.responses);
        self.tokens.add(log.tokens);
        self.first_bytes = log.first_bytes.last().copied().or(self.first_bytes);
        // Only what has answers is recorded, so nothing else may move what decides.
        if !log.has_answers() {
            return;
        }
        self.served_at = Some(now);
        let elapsed = self.recent_at.map_or(0.0, |before| (now - before).as_seconds_f64().max(0.0));
        let kept = (-elapsed / HALF_LIFE_SECONDS).exp2();
        self.recent =
            Responses { count: kept * self.recent.count, sum_seconds: kept * self.recent.sum_seconds };
        self.recent.add(log.responses);
        self.recent_at = Some(now);
    }

    /// Time since the answers before, of a log of `seconds` that came at `now`, seconds: up to where what is gathered of them counts.
    fn since_answers(&self, seconds: f64, now: DateTime<Utc>) -> f64 {
        let elapsed = self.recent_at.map_or(seconds, |before| (now - before).as_seconds_f64());
        elapsed.clamp(seconds, LONGEST_QUIET_SECONDS.max(seconds))
    }

    /// Answers/s when the last ones came, less a standard deviation of chance.
    pub(super) fn answered_rps(&self) -> f64 {
        let count = self.recent.count.max(0.0);
        (count - count.sqrt()).max(0.0) * LN_2 / HALF_LIFE_SECONDS
    }

    /// Mean time from the first byte of a request to the last one of its answer, of late, seconds.
    pub fn response_seconds(&self) -> Option<f64> {
        // What is left of long ago still has a mean, down to where numbers end.
        self.recent.mean_seconds().filter(|mean| mean.is_finite())
    }
}

impl Backend {
    /// Takes what Envoys logged of it.
    pub(super) fn observe_log(&mut self, log: &BackendLog, seconds: f64, usual: &Mix, now: DateTime<Utc>) {
        // An answer tells of all the time since the one before it.
        let interval_seconds = self.gateway.since_answers(seconds, now);
        self.gateway.observe(log, now);
        self.learn_from_log(log, interval_seconds, usual, now);
    }

    /// Learns what iterations cost from how long answers took, as long as the engine does not tell. Where nobody tells tokens
    /// requests count as `usual` ones, those of the model: by these the profile is read.
    fn learn_from_log(&mut self, log: &BackendLog, seconds: f64, usual: &Mix, now: DateTime<Utc>) {
        if self.tells_iterations || !log.has_answers() {
            return;
        }
        let tells_tokens = self.sample.as_ref().is_some_and(|sample| sample.output_tokens > 0.0);
        let Responses { count, sum_seconds } = log.responses;
        let Tokens { prompt, output } = log.tokens;
        if !tells_tokens && output > 0.0 {
            self.traffic.count([count, prompt, count, output], seconds, now);
        }
        let first_bytes = log.first_bytes.iter().map(|first| first.requests).sum();
        let interval = LoggedInterval {
            seconds,
            answers: count,
            answer_seconds: sum_seconds,
            first_bytes,
            first_byte_seconds: log.first_bytes.iter().map(|first| first.requests * first.mean_seconds).sum(),
            prompt_tokens: prompt,
            output_tokens: output,
        };
        let own = self.traffic.tells_tokens().then(|| self.traffic.mix());
        if let Some(iteration) = self.answers.observe(&interval, own.as_ref().unwrap_or(usual)) {
            self.learner.observe(&iteration);
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    #[test]
    fn how_long_answers_took_of_late_counts_more_than_before() {
        let mut view = GatewayView::default();
        let second = |number| DateTime::<Utc>::UNIX_EPOCH + TimeDelta::seconds(number);
        let log = |sum_seconds| BackendLog {
            requests: 2.0,
            responses: Responses { count: 2.0, sum_seconds },
            ..BackendLog::default()
        };
        assert_eq!(view.response_seconds(), None);
        view.observe(&log(2.0), second(0));
        assert_eq!(view.response_seconds(), Some(1.0));
        view.observe(&log(8.0), second(10));
        assert_eq!(view.response_seconds(), Some(3.0), "(1 of 1 s + 2 of 4 s) / 3");
        assert!((view.answered_rps() - (3.0 - 3.0_f64.sqrt()) / 14.427).abs() < 1e-4);
        view.observe(&BackendLog::default(), second(100_000));
        assert!(view.response_seconds().is_none_or(|mean| (mean - 3.0).abs() < 1e-6));
        assert_eq!(view.responses, Responses { count: 4.0, sum_seconds: 10.0 });
    }
}
