use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

mod backtest;
mod blend;
mod features;
mod forecast;
mod regression;
mod saved;
mod service;
mod spread;
mod state;
#[cfg(test)]
mod tests;

pub use backtest::{
    WaitBacktest, WaitForecastRow, WaitRow, WaitScore, WaitView, backtest_waits, last_observed_waits,
    little_waits, score_waits,
};
pub use forecast::{WaitExpert, WaitForecast, WaitStanding, WaitTicket};
pub use state::{WaitConfig, WaitQuery, WaitState};

use blend::{Blend, EXPERTS, Opinions};
use features::{SECONDS_MAX, SECONDS_MIN, Said, features};
use regression::{Fitted, Outcome};
use saved::Saved;
use service::{Service, Unit, Work};
use spread::Spread;

/// Format of a saved [`WaitModel`].
const VERSION: u32 = 2;

/// Outcomes by which memory grows: there are as many models as backends.
const GROWTH_OUTCOMES: usize = 100;

/// [`WaitExpert::Corrected`] is at least this part of the smaller of those it is made of.
const CORRECTED_MIN: f64 = 0.3;

/// The TTFT that is assumed while nothing is known, in seconds.
const TTFT_ASSUMED: f64 = 0.2;

/// Predicts the time to first token (TTFT) of a request at one backend.
///
/// Simple experts know how queues work: the last observed TTFT; what stands before the request over the rate at
/// which the backend works it off, learned from outcomes, over a short and a long memory (Little's law, in prompt tokens
/// when they are known, and in requests); and the latter, off by as much as it was last. A regression on the logarithm
/// of what their blend leaves is one more. They are weighed by their recent errors on outcomes that they had not seen,
/// for short and long waits apart, so that whatever fails on this backend is soon not heard.
///
/// The quantiles are those of recent residuals, shifted online until each is passed as often as it should be; the older
/// the state, the wider they are.
///
/// [`ask`](Self::ask) when a request arrives, [`observe`](Self::observe) its ticket when its first token came. The dear
/// part is [`refit`](Self::refit): call it every two hundred outcomes or so, on another thread if need be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Saved")]
pub struct WaitModel {
    version: u32,
    config: WaitConfig,
    outcomes: VecDeque<Outcome>,
    outcomes_since_fit: u64,
    in_tokens: Service,
    in_requests: Service,
    blend: Blend,
    spread: Spread,
    newest: Option<Newest>,
    fit: Option<Fitted>,
}

/// The outcome that was observed last.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Newest {
    ttft_seconds: f64,
    /// What the slow rate of service had said of it, in seconds.
    slow_then: f64,
    asked_at: f64,
    observed_at: f64,
    /// First tokens, forgotten with time constants of one and five seconds.
    tokens_1s: f64,
    tokens_5s: f64,
}

impl WaitModel {
    /// Returns a model that knows nothing yet.
    pub fn new(config: WaitConfig) -> Self {
        Self {
            version: VERSION,
            config: config.clamped(),
            outcomes: VecDeque::new(),
            outcomes_since_fit: 0,
            in_tokens: Service::new(Unit::PromptTokens),
            in_requests: Service::new(Unit::Requests),
            blend: Blend::default(),
            spread: Spread::default(),
            newest: None,
            fit: None,
        }
    }

    /// Predicts the TTFT of a request that arrives now.
    pub fn predict(&self, query: &WaitQuery) -> WaitForecast {
        self.ask(query).forecast
    }

    /// Predicts the TTFT of a request that arrives now, and keeps what was asked and said for its outcome.
    pub fn ask(&self, query: &WaitQuery) -> WaitTicket {
        let query = query.cleaned();
        let state = &query.state;
        let (age, beat) = (state.age_seconds, state.inter_token_seconds.unwrap_or(0.0));
        let requests_rate = self.in_requests.rates().slow;
        let work = Work::of(&query, requests_rate);
        let in_requests = Work::of(&WaitQuery { prompt_tokens: None, ..query }, requests_rate);
        let service = self.service(work.unit);
        let shown = self.newest.map(|newest| newest.ttft_seconds).or(state.recent_ttft_seconds);
        let last = shown.unwrap_or(TTFT_ASSUMED).clamp(SECONDS_MIN, SECONDS_MAX);

        let rates = service.rates();
        let (fast, slow) = (work.seconds(rates.fast, age, beat), work.seconds(rates.slow, age, beat));
        let slow_then = self.newest.map_or(slow, |newest| newest.slow_then);
        let corrected = (slow + last - slow_then).max(CORRECTED_MIN * slow.min(last)).min(SECONDS_MAX);
        let band = blend::band(slow);
        let by_requests = (work.unit == Unit::PromptTokens && self.in_requests.is_known())
            .then(|| in_requests.seconds(requests_rate, age, beat));
        let mut opinions: Opinions = [Some(last), Some(fast), Some(slow), by_requests, Some(corrected), None];
        if self.newest.is_none() && !service.is_known() {
            opinions = [Some(last), None, None, None, None, None];
        }
        let base = blend::mean(&opinions, &self.blend.shares(band, &opinions));
        let base = base.clamp(SECONDS_MIN, SECONDS_MAX);
        let said = self.said(
            &query,
            Said { last, fast, slow, by_requests, corrected, slow_then, base, ..Said::default() },
        );
        let features = features(&query, &work, rates, &said);
        opinions[WaitExpert::Regression.index()] =
            self.fit.as_ref().and_then(|fit| fit.seconds(&features, base));

        let shares = self.blend.shares(band, &opinions);
        let median = blend::mean(&opinions, &shares).clamp(SECONDS_MIN, SECONDS_MAX);
        let scale = self.spread.scale(band, age);
        let leader = shown.and_then(|_| leader(&shares));
        let forecast = WaitForecast { quantiles: self.spread.quantiles(band, median, &scale), leader };
        WaitTicket {
            forecast,
            asked_at: query.now_seconds,
            age_seconds: age,
            beat_seconds: beat,
            work,
            in_requests,
            opinions,
            shares,
            base,
            band,
            scale,
            features,
        }
    }

    /// Takes in the outcome of a request, or of `count` requests that arrived together and whose mean it is. The ticket
    /// is that of the time when they arrived; `now_seconds` is when their first token came.
    ///
    /// Ignored when the TTFT is negative or not finite, or the count is not positive.
    pub fn observe(&mut self, ticket: &WaitTicket, ttft_seconds: f64, count: f64, now_seconds: f64) {
        let lawful = ttft_seconds.is_finite() && ttft_seconds >= 0.0 && count.is_finite() && count > 0.0;
        if !lawful || !ticket.is_sound() {
            return;
        }
        let ttft_seconds = ttft_seconds.clamp(SECONDS_MIN, SECONDS_MAX);
        let now_seconds = if now_seconds.is_finite() { now_seconds } else { ticket.asked_at };
        let (age, beat) = (ticket.age_seconds, ticket.beat_seconds);
        self.blend.score(ticket.band, &ticket.opinions, ttft_seconds);
        let said = (&ticket.forecast.quantiles, &ticket.scale);
        self.spread.score(ticket.band, age, said, ttft_seconds);
        if ticket.work.unit == Unit::PromptTokens {
            self.in_tokens.observe(&ticket.work, age, beat, ttft_seconds);
        }
        self.in_requests.observe(&ticket.in_requests, age, beat, ttft_seconds);
        self.remember_newest(ticket, ttft_seconds, count, now_seconds);
        if self.outcomes.len() >= self.config.outcomes {
            self.outcomes.pop_front();
        }
        if self.outcomes.len() == self.outcomes.capacity() {
            self.outcomes
                .reserve_exact((self.config.outcomes - self.outcomes.len()).clamp(1, GROWTH_OUTCOMES));
        }
        self.outcomes.push_back(Outcome::new(ticket.features, ticket.base, ttft_seconds, count));
        self.outcomes_since_fit = self.outcomes_since_fit.saturating_add(1);
    }

    /// Returns how many outcomes came since the last fit.
    pub fn outcomes_since_fit(&self) -> u64 {
        self.outcomes_since_fit
    }

    /// Fits the regression to the outcomes that are kept; without enough of them there is none.
    pub fn refit(&mut self) {
        if self.outcomes.len() < self.config.outcomes_min {
            return;
        }
        self.outcomes_since_fit = 0;
        self.fit = Fitted::new(&self.outcomes);
        if self.fit.is_none() {
            self.blend.forget(WaitExpert::Regression.index());
        }
    }

    /// Returns how each expert stands on a question.
    pub fn standings(&self, ticket: &WaitTicket) -> [WaitStanding; EXPERTS] {
        WaitExpert::ALL.map(|expert| WaitStanding {
            expert,
            share: ticket.shares[expert.index()],
            seconds: ticket.opinions[expert.index()],
            recent_error_seconds: self.blend.error_seconds(expert.index()),
        })
    }

    /// Returns the learned rate of service in requests per second; `None` before the backend was seen under load.
    pub fn served_rps(&self) -> Option<f64> {
        self.in_requests.is_known().then(|| self.in_requests.rates().fast)
    }

    fn service(&self, unit: Unit) -> &Service {
        match unit {
            Unit::Requests => &self.in_requests,
            Unit::PromptTokens => &self.in_tokens,
        }
    }

    /// Adds what is fresher than the state to what the experts say.
    fn said(&self, query: &WaitQuery, said: Said) -> Said {
        let Some(newest) = self.newest else { return said };
        let since_arrival = (query.now_seconds - newest.asked_at).max(0.0);
        let since_token = (query.now_seconds - newest.observed_at).max(0.0);
        Said {
            tokens_1s: newest.tokens_1s * (-since_token).exp(),
            tokens_5s: newest.tokens_5s * (-since_token / 5.0).exp(),
            since_arrival,
            since_token,
            ..said
        }
    }

    fn remember_newest(&mut self, ticket: &WaitTicket, ttft_seconds: f64, count: f64, observed_at: f64) {
        let (mut tokens_1s, mut tokens_5s) = (count, count);
        if let Some(before) = self.newest {
            let passed = (observed_at - before.observed_at).max(0.0);
            tokens_1s += before.tokens_1s * (-passed).exp();
            tokens_5s += before.tokens_5s * (-passed / 5.0).exp();
        }
        let slow = self.service(ticket.work.unit).rates().slow;
        let slow_then = ticket.opinions[WaitExpert::Service.index()]
            .unwrap_or_else(|| ticket.work.seconds(slow, ticket.age_seconds, ticket.beat_seconds));
        let asked_at = ticket.asked_at;
        self.newest = Some(Newest { ttft_seconds, slow_then, asked_at, observed_at, tokens_1s, tokens_5s });
    }
}

fn leader(shares: &[f64; EXPERTS]) -> Option<WaitExpert> {
    let ascending = |a: &WaitExpert, b: &WaitExpert| shares[a.index()].total_cmp(&shares[b.index()]);
    WaitExpert::ALL.into_iter().max_by(ascending)
}
