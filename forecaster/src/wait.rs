use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::linear::{LinearFit, Rows};

mod backtest;
mod blend;
mod features;
mod forecast;
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
use features::{FEATURES, Features, SECONDS_MAX, SECONDS_MIN, Said, features};
use service::{Service, Unit, Work};
use spread::Spread;

/// Format of a saved [`WaitModel`].
const VERSION: u32 = 2;

/// Ridge penalty per outcome on standardised features.
const RIDGE: f64 = 3e-2;

/// Outcomes after which a row of the regression weighs half.
const HALF_LIFE_OUTCOMES: f64 = 1000.0;

/// Outcomes that one fit learns from at most: the newest, and some of those before. Bounds its time.
const FIT_NEWEST: usize = 400;
const FIT_OLDER: usize = 350;

/// The most that one outcome weighs, in requests: a busy second must not drown an idle minute.
const COUNT_MAX: f64 = 10.0;

/// The regression moves the blend of the simple experts by at most this factor, as a logarithm.
const CORRECTION_MAX: f64 = 3.0;

/// [`WaitExpert::Corrected`] is at least this part of the smaller of those it is made of.
const CORRECTED_MIN: f64 = 0.3;

/// The TTFT that is assumed while nothing is known, in seconds.
const TTFT_ASSUMED: f64 = 0.2;

/// Predicts the time to first token (TTFT) of a request at one backend.
///
/// Four simple experts know how queues work: the last observed TTFT; what stands before the request over the rate at
/// which the backend works it off, learned from outcomes, over a short and a long memory (Little's law, in prompt tokens
/// when they are known, else in requests); and the latter, off by as much as it was last. A regression on the logarithm
/// of what their blend leaves is the fifth. They are weighed by their recent errors on outcomes that they had not seen,
/// for short and long waits apart, so that whatever fails on this backend is soon not heard.
///
/// The quantiles are those of recent residuals, shifted online until each is passed as often as it should be; the older
/// the state, the wider they are.
///
/// [`ask`](Self::ask) when a request arrives, [`observe`](Self::observe) its ticket when its first token came. Of the
/// two, [`refit`](Self::refit) is the dear part: call it every two hundred outcomes or so, on another thread if need be.
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
    line: Option<LinearFit>,
}

/// What the regression learns from.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Outcome {
    features: Features,
    /// Logarithm of the TTFT over what the simple experts had said.
    left: f32,
    count: f32,
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
            line: None,
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
        let work = Work::of(&query);
        let in_requests = Work::of(&WaitQuery { prompt_tokens: None, ..query });
        let service = self.service(work.unit);
        let shown = self.newest.map(|newest| newest.ttft_seconds).or(state.recent_ttft_seconds);
        let last = shown.unwrap_or(TTFT_ASSUMED).clamp(SECONDS_MIN, SECONDS_MAX);

        let rates = service.rates();
        let (fast, slow) = (work.seconds(rates.fast, age, beat), work.seconds(rates.slow, age, beat));
        let slow_then = self.newest.map_or(slow, |newest| newest.slow_then);
        let corrected = (slow + last - slow_then).max(CORRECTED_MIN * slow.min(last)).min(SECONDS_MAX);
        let band = blend::band(slow);
        let mut opinions: Opinions = [Some(last), Some(fast), Some(slow), Some(corrected), None];
        if self.newest.is_none() && !service.is_known() {
            opinions = [Some(last), None, None, None, None];
        }
        let base = blend::mean(&opinions, &self.blend.shares(band, &opinions));
        let base = base.clamp(SECONDS_MIN, SECONDS_MAX);
        let said =
            self.said(&query, Said { last, fast, slow, corrected, slow_then, base, ..Said::default() });
        let features = features(&query, &work, rates, &said);
        opinions[WaitExpert::Regression.index()] = self.by_regression(&features, base);

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
        let left = (ttft_seconds / ticket.base).ln() as f32;
        self.outcomes.push_back(Outcome {
            features: ticket.features,
            left,
            count: count.min(COUNT_MAX) as f32,
        });
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
        let mut rows = Rows::default();
        // The newest outcomes are all learned from; of older ones every so many, which then stand for those left out.
        let every = self.outcomes.len().saturating_sub(FIT_NEWEST).div_ceil(FIT_OLDER).max(1);
        let chosen = |age: &usize| *age < FIT_NEWEST || age.is_multiple_of(every);
        for (age, outcome) in self.outcomes.iter().rev().enumerate().filter(|(age, _)| chosen(age)) {
            let stands_for = if age < FIT_NEWEST { 1.0 } else { every as f64 };
            let forgotten = 0.5_f64.powf(age as f64 / HALF_LIFE_OUTCOMES);
            rows.push(
                &outcome.features.values(),
                f64::from(outcome.left),
                stands_for * forgotten * f64::from(outcome.count),
            );
        }
        let line = LinearFit::fit(&rows, RIDGE);
        if line.is_none() {
            self.blend.forget(WaitExpert::Regression.index());
        }
        self.line = line;
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

    fn by_regression(&self, features: &Features, base: f64) -> Option<f64> {
        let correction = self.line.as_ref()?.predict(&features.values());
        let seconds = base * correction.clamp(-CORRECTION_MAX, CORRECTION_MAX).exp();
        correction.is_finite().then(|| seconds.clamp(SECONDS_MIN, SECONDS_MAX))
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

/// A state as it was read, before it is known to be usable.
#[derive(Deserialize)]
struct Saved {
    version: u32,
    config: WaitConfig,
    outcomes: VecDeque<Outcome>,
    outcomes_since_fit: u64,
    in_tokens: Service,
    in_requests: Service,
    blend: Blend,
    spread: Spread,
    newest: Option<Newest>,
    line: Option<LinearFit>,
}

impl TryFrom<Saved> for WaitModel {
    type Error = Error;

    fn try_from(saved: Saved) -> Result<Self, Error> {
        let Saved { version, config, outcomes, outcomes_since_fit, in_tokens, in_requests, blend, .. } =
            saved;
        let Saved { spread, newest, line, .. } = saved;
        if version != VERSION {
            return Err(Error::Version { found: version, supported: VERSION });
        }
        if config.clamped() != config || outcomes.len() > config.outcomes {
            return Err(Error::Inconsistent("outcomes differ from the configuration"));
        }
        if line.as_ref().is_some_and(|line| !line.is_sound() || line.width() != FEATURES) {
            return Err(Error::Inconsistent("a regression that cannot be computed"));
        }
        Ok(Self {
            version,
            config,
            outcomes,
            outcomes_since_fit,
            in_tokens,
            in_requests,
            blend,
            spread,
            newest,
            line,
        })
    }
}
