use serde::{Deserialize, Serialize};

use super::WaitQuery;
use super::service::{Rates, Work};

/// Features of a question; see [`features`].
pub(super) const FEATURES: usize = 31;

/// Steps of a stored feature per unit: a thousandth of a logarithm is finer than any measurement of a queue.
const STEPS: f64 = 1024.0;

/// Stored for a feature that is unknown.
const UNKNOWN: i16 = i16::MIN;

/// Features as they are kept for the next fit, and predicted from: fixed point, two bytes each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Features([i16; FEATURES]);

impl Features {
    fn of(values: [f64; FEATURES]) -> Self {
        Self(values.map(|value| {
            let steps = (value * STEPS).round().clamp(-f64::from(i16::MAX), f64::from(i16::MAX));
            if steps.is_nan() { UNKNOWN } else { steps as i16 }
        }))
    }

    /// Returns the values; NaN is unknown.
    pub(super) fn values(&self) -> [f64; FEATURES] {
        self.0.map(|steps| if steps == UNKNOWN { f64::NAN } else { f64::from(steps) / STEPS })
    }
}

/// Waits and TTFTs lie between these, in seconds.
pub(super) const SECONDS_MIN: f64 = 1e-4;
pub(super) const SECONDS_MAX: f64 = 600.0;

/// The KV cache is short from this share on: the engine begins to hold requests back.
const KV_SHORT: f64 = 0.8;

/// The logarithm of a duration, held in the range that is plausible for a wait.
pub(super) fn log_seconds(seconds: f64) -> f64 {
    seconds.clamp(SECONDS_MIN, SECONDS_MAX).ln()
}

/// What the simple experts say and what is fresher than the state, in seconds.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Said {
    pub(super) last: f64,
    pub(super) fast: f64,
    pub(super) slow: f64,
    pub(super) by_requests: Option<f64>,
    pub(super) corrected: f64,
    /// What the slow rate had said of the request that was observed last.
    pub(super) slow_then: f64,
    /// The blend of the simple experts: what the regression corrects.
    pub(super) base: f64,
    /// First tokens in the last second and in the last five, forgotten exponentially.
    pub(super) tokens_1s: f64,
    pub(super) tokens_5s: f64,
    /// Time since the arrival of the request that was observed last, and since its first token.
    pub(super) since_arrival: f64,
    pub(super) since_token: f64,
}

/// Returns what the regression sees of a cleaned question; NaN is unknown.
///
/// Logarithms, since the target is one; and ratios to the blend of the simple experts, so that a queue deeper than any
/// that was met is left to them: the regression learns how far they are off, and where.
pub(super) fn features(query: &WaitQuery, work: &Work, rates: Rates, said: &Said) -> Features {
    let state = &query.state;
    let (age, beat) = (state.age_seconds, state.inter_token_seconds.unwrap_or(0.0));
    let known = |value: Option<f64>, to: fn(f64) -> f64| value.map_or(f64::NAN, to);
    let base = said.base.ln();
    let over_base = |seconds: f64| log_seconds(seconds) - base;
    let waiting = state.waiting.unwrap_or(0.0) + query.sent_requests.unwrap_or(0.0);
    let left_of_state = (work.waiting - rates.slow * age).max(0.0) + work.arrived + work.own;
    let log_beat = known(state.inter_token_seconds, log_seconds);
    let values = [
        base,
        over_base(said.slow),
        over_base(said.last),
        over_base(said.corrected),
        over_base(said.fast),
        known(said.by_requests, log_seconds) - base,
        over_base(said.slow_then),
        waiting.ln_1p(),
        f64::from(waiting < 1.0),
        known(state.running, f64::ln_1p),
        known(state.kv_used, |used| used),
        known(state.kv_used, |used| (used - KV_SHORT).max(0.0)),
        known(state.gpu_utilisation, |share| share),
        log_beat,
        waiting.ln_1p() * log_beat,
        known(state.output_tps, f64::ln_1p),
        known(state.prompt_tps, |rate| (rate / 100.0).ln_1p()),
        known(state.arrived_rps, f64::ln_1p),
        known(state.recent_wait_seconds, |seconds| (seconds + 0.05).ln()),
        known(state.recent_ttft_seconds, log_seconds),
        age.ln_1p(),
        (rates.slow * age / work.total()).min(2.0),
        over_base(left_of_state / rates.slow + beat),
        over_base(work.total() / rates.slow + beat),
        known(query.prompt_tokens, f64::ln),
        known(query.sent_requests, f64::ln_1p),
        (work.own / (rates.slow * beat).max(1e-6)).ln_1p(),
        said.tokens_1s.ln_1p(),
        said.tokens_5s.ln_1p(),
        said.since_arrival.ln_1p(),
        said.since_token.ln_1p(),
    ];
    Features::of(values)
}
