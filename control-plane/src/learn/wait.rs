use std::collections::VecDeque;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use clairvoy_forecaster::{WaitConfig, WaitForecast, WaitModel, WaitQuery, WaitState, WaitTicket};

use crate::envoy::FirstBytes;
use crate::telemetry::Sample;

use super::Residual;

/// Time between two fits of one backend's model, seconds.
const REFIT_EVERY_SECONDS: f64 = 10.0;
/// Outcomes since the last fit that make another one worth its time.
const LEAST_NEW_OUTCOMES: u64 = 5;
/// Time constant of rates, seconds.
const RATE_TIME_CONSTANT_SECONDS: f64 = 5.0;
/// A fitted model is kept in the database this often, seconds.
const KEEP_EVERY_SECONDS: f64 = 60.0;
/// Questions that wait for their outcome, at least half a second apart. When there are more, every second one of the older
/// half is let go: at one sample a second they reach back for a minute, and the newest are still dense.
const MOST_TICKETS: usize = 32;
const TICKET_EVERY_SECONDS: f64 = 0.5;
/// The state that requests saw is known when the newest question before them is at most this much older than they are:
/// seconds, and a part of how long ago they came.
const LOOSE_SECONDS: f64 = 5.0;
const LOOSE_PART: f64 = 0.25;
/// A request arrives this long after the sample that it is sent by at most, seconds: longer gaps are outages.
const LONGEST_INTERVAL_SECONDS: f64 = 30.0;
/// While Envoys have told first bytes within this time, seconds, the means of the backend's own histogram teach nothing:
/// they would be the same requests again, and when those arrived is only guessed.
const TOLD_SECONDS: f64 = 30.0;

/// The wait model of one backend and the questions whose outcome is still to come.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(super) struct Lessons {
    model: Option<WaitModel>,
    tickets: VecDeque<(DateTime<Utc>, WaitTicket)>,
    rates: Rates,
    ttft_seconds: Option<f64>,
    /// When Envoys last told of first bytes, by the time at which they came.
    told_at: Option<DateTime<Utc>>,
    fitted_at: Option<DateTime<Utc>>,
    kept_at: Option<DateTime<Utc>>,
}

/// Recent rates, per second.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Rates {
    arrived: f64,
    prompt_tokens: f64,
    output_tokens: f64,
}

impl Rates {
    fn observe(&mut self, sample: &Sample) {
        let seconds = sample.interval_seconds;
        if seconds <= 0.0 {
            return;
        }
        let gain = 1.0 - (-seconds / RATE_TIME_CONSTANT_SECONDS).exp();
        for (rate, count) in [
            (&mut self.arrived, sample.arrived),
            (&mut self.prompt_tokens, sample.prompt_tokens),
            (&mut self.output_tokens, sample.output_tokens),
        ] {
            *rate += gain * (count / seconds - *rate);
        }
    }
}

impl Lessons {
    pub(super) fn restore(state: serde_json::Value) -> Result<Self, String> {
        let model: WaitModel = serde_json::from_value(state).map_err(|error| error.to_string())?;
        Ok(Self { model: Some(model), ..Self::default() })
    }

    /// Takes a sample: its TTFT is the outcome of what was seen when those requests arrived, and it is itself the state
    /// that requests are sent by until the next one. Returns the forecast, and how far off the one before was.
    pub(super) fn observe(&mut self, sample: &Sample) -> (WaitForecast, Option<Residual>) {
        let residual = self.score(sample);
        self.rates.observe(sample);
        self.ttft_seconds = sample.ttft_seconds.or(self.ttft_seconds);
        let model = self.model.get_or_insert_with(|| WaitModel::new(WaitConfig::default()));
        let ticket = model.ask(&WaitQuery {
            state: WaitState {
                waiting: sample.queue_depth,
                running: sample.running,
                kv_used: sample.kv_used,
                gpu_utilisation: sample.gpu_utilisation,
                inter_token_seconds: sample.inter_token_seconds,
                output_tps: Some(self.rates.output_tokens),
                prompt_tps: Some(self.rates.prompt_tokens),
                arrived_rps: Some(self.rates.arrived),
                recent_ttft_seconds: self.ttft_seconds,
                // Requests come all the while until the next sample: in the mean, half an interval from now.
                age_seconds: sample.interval_seconds.clamp(0.0, LONGEST_INTERVAL_SECONDS) / 2.0,
                ..WaitState::default()
            },
            now_seconds: seconds(sample.at),
            ..WaitQuery::default()
        });
        self.keep_ticket(sample.at, &ticket);
        (ticket.forecast(), residual)
    }

    /// Takes what Envoys saw: outcomes whose time of arrival is known.
    pub(super) fn observe_first_bytes(&mut self, seen: &FirstBytes) {
        let Some(model) = self.model.as_mut() else { return };
        let came_at = seen.arrived_at + TimeDelta::microseconds((1e6 * seen.mean_seconds) as i64);
        let Some((at, ticket)) = self.tickets.iter().rev().find(|(at, _)| *at <= seen.arrived_at) else {
            return;
        };
        let newest = self.tickets.back().map_or(*at, |(newest, _)| *newest);
        let ago_seconds = (newest - seen.arrived_at).as_seconds_f64().max(0.0);
        if (seen.arrived_at - *at).as_seconds_f64() > LOOSE_SECONDS + LOOSE_PART * ago_seconds {
            return;
        }
        self.told_at = self.told_at.max(Some(came_at));
        model.observe(ticket, seen.mean_seconds, seen.requests, seconds(came_at));
    }

    fn score(&mut self, sample: &Sample) -> Option<Residual> {
        let is_told = self.told_at.is_some_and(|at| (sample.at - at).as_seconds_f64() < TOLD_SECONDS);
        let (ttft, model) = sample.ttft_seconds.zip(self.model.as_mut())?;
        if sample.ttft_count <= 0.0 || !ttft.is_finite() {
            return None;
        }
        // Their first tokens came within the interval: in the mean, in the middle of it.
        let ago_seconds = ttft.clamp(0.0, 3600.0) + sample.interval_seconds.max(0.0) / 2.0;
        let arrived_at = sample.at - TimeDelta::microseconds((1e6 * ago_seconds) as i64);
        let (at, ticket) = self.tickets.iter().rev().find(|(at, _)| *at <= arrived_at)?;
        let loose_seconds = LOOSE_SECONDS.max(sample.interval_seconds) + LOOSE_PART * ago_seconds;
        if (arrived_at - *at).as_seconds_f64() > loose_seconds {
            return None;
        }
        let at_seconds = seconds(sample.at);
        if !is_told {
            model.observe(ticket, ttft, sample.ttft_count, at_seconds);
        }
        // A guess that nothing was known for is not off.
        ticket.forecast().leader.map(|_| Residual { errors: ticket.residual(ttft), at_seconds })
    }

    fn keep_ticket(&mut self, at: DateTime<Utc>, ticket: &WaitTicket) {
        let newest = self.tickets.back().map(|(newest, _)| *newest);
        if newest.is_some_and(|newest| (at - newest).as_seconds_f64() < TICKET_EVERY_SECONDS) {
            return;
        }
        if self.tickets.len() >= MOST_TICKETS {
            let mut index = 0;
            self.tickets.retain(|_| {
                index += 1;
                index > MOST_TICKETS / 2 || index % 2 == 0
            });
        }
        self.tickets.push_back((at, *ticket));
    }

    pub(super) fn is_due(&self, now: DateTime<Utc>) -> bool {
        self.model.as_ref().is_some_and(|model| model.outcomes_since_fit() >= LEAST_NEW_OUTCOMES)
            && self.fitted_at.is_none_or(|at| (now - at).as_seconds_f64() >= REFIT_EVERY_SECONDS)
    }

    pub(super) fn fitted_at(&self) -> Option<DateTime<Utc>> {
        self.fitted_at
    }

    /// Fits anew; returns the state when it is time to keep it.
    pub(super) fn refit(&mut self, now: DateTime<Utc>) -> Option<serde_json::Value> {
        let model = self.model.as_mut()?;
        model.refit();
        self.fitted_at = Some(now);
        let keep = self.kept_at.is_none_or(|at| (now - at).as_seconds_f64() >= KEEP_EVERY_SECONDS);
        if !keep {
            return None;
        }
        self.kept_at = Some(now);
        serde_json::to_value(&*model).ok()
    }
}

fn seconds(at: DateTime<Utc>) -> f64 {
    at.timestamp_micros() as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A backend that works off five requests a second, scraped every second.
    fn sample(second: i64, queue_depth: f64, ttft_seconds: Option<f64>) -> Sample {
        Sample {
            at: DateTime::from_timestamp(1_700_000_000 + second, 0).unwrap(),
            backend: "10.0.0.1:8000".into(),
            interval_seconds: 1.0,
            queue_depth: Some(queue_depth),
            running: Some(16.0),
            kv_used: Some(0.3),
            ttft_seconds,
            ttft_count: if ttft_seconds.is_some() { 5.0 } else { 0.0 },
            inter_token_seconds: Some(0.03),
            arrived: 5.0,
            completed: 5.0,
            prompt_tokens: 2000.0,
            output_tokens: 500.0,
            ..Sample::default()
        }
    }

    /// A queue that builds up and drains over five minutes.
    fn queue(second: i64) -> f64 {
        (50.0 - 50.0 * (second as f64 * std::f64::consts::TAU / 300.0).cos()).round()
    }

    #[test]
    fn a_wait_is_scored_by_the_queue_that_its_requests_met() {
        let mut lessons = Lessons::default();
        let mut errors = Vec::new();
        for second in 0..1800 {
            // Those who get their first token now came when the queue was as long as they waited.
            let waited = (0..60).find(|ago| queue(second - ago) / 5.0 <= *ago as f64).unwrap() as f64;
            let (wait, _) = lessons.observe(&sample(second, queue(second), Some(0.3 + waited)));
            let now = lessons.fitted_at().unwrap_or_default() + TimeDelta::seconds(60);
            if second % 60 == 59 && lessons.is_due(now) {
                let _ = lessons.refit(now);
            }
            if second > 900 {
                errors.push((wait.known_seconds().unwrap() - 0.3 - queue(second) / 5.0).abs());
            }
        }
        let mean = errors.iter().sum::<f64>() / errors.len() as f64;
        // Waits are 10 s in the mean, and the last observed TTFT is off by some 3 s.
        assert!(mean < 0.8, "{mean}");
    }

    #[test]
    fn what_envoys_saw_teaches_instead_of_the_histogram() {
        let mut lessons = Lessons::default();
        let outcomes = |lessons: &Lessons| lessons.model.as_ref().unwrap().outcomes_since_fit();
        for second in 0..20 {
            let _ = lessons.observe(&sample(second, 3.0, None));
        }
        let arrived_at = sample(15, 0.0, None).at + TimeDelta::milliseconds(300);
        let seen = |arrived_at| FirstBytes {
            arrived_at,
            requests: 4.0,
            mean_seconds: 0.5,
            p50_seconds: 0.5,
            p95_seconds: 0.6,
        };
        lessons.observe_first_bytes(&seen(arrived_at));
        assert_eq!(outcomes(&lessons), 1);
        let _ = lessons.observe(&sample(20, 3.0, Some(9.0)));
        assert_eq!(outcomes(&lessons), 1, "the same requests do not count twice");
        lessons.observe_first_bytes(&seen(arrived_at - TimeDelta::seconds(60)));
        assert_eq!(outcomes(&lessons), 1, "what arrived before anything was known teaches nothing");
        for second in 21..60 {
            let _ = lessons.observe(&sample(second, 3.0, Some(0.4)));
        }
        assert!(outcomes(&lessons) > 5, "without Envoys the histogram is used");
    }

    #[test]
    fn a_first_token_after_an_outage_teaches_nothing() {
        let mut lessons = Lessons::default();
        let _ = lessons.observe(&sample(0, 3.0, None));
        let _ = lessons.observe(&sample(600, 3.0, Some(30.0)));
        assert_eq!(lessons.model.as_ref().unwrap().outcomes_since_fit(), 0);
    }

    #[test]
    fn questions_are_bounded_and_reach_back_for_a_minute() {
        let mut lessons = Lessons::default();
        for second in 0..600 {
            let _ = lessons.observe(&sample(second, 3.0, Some(0.5)));
            assert!(lessons.tickets.len() <= MOST_TICKETS);
        }
        let back = lessons.tickets[lessons.tickets.len() - 1].0 - lessons.tickets[0].0;
        assert!(back.num_seconds() >= 40, "{back}");
    }
}
