//! Profiles: what an iteration of a backend's engine costs and what fits into it, learned from what it shows.
//!
//! - [`Interval`] → [`Iteration`]: from counters and gauges of one interval to a mean iteration; [`Stretch`] puts intervals
//!   with few iterations together.
//! - `Fit`: recursive least squares with forgetting, over non-negative parameters.
//! - [`ClassProfile`]: what the backends of a pool have in common; a newcomer starts from it.
//! - `Doubt`: whether a backend that looks slow is, or has another profile.
//! - [`Learner`]: all that is learned of one backend, with its present [speed](super::Speed).

mod class;
mod doubt;
mod fit;
mod iteration;
mod learner;
mod logged;
mod room;
mod stretch;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use super::curve::Curve;

pub use class::ClassProfile;
pub use iteration::{Interval, Iteration};
pub use learner::{Certainty, EngineSize, Learner};
pub use logged::{LoggedAnswers, LoggedInterval};
pub use stretch::Stretch;

/// What one iteration of a backend's engine costs, and what fits into it: `seconds = fixed + per_sequence n + per_prompt_token prefilled + per_kv_token resident` at its usual speed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    /// An iteration of an empty batch, seconds.
    pub fixed_seconds: f64,
    /// A sequence in the batch, seconds.
    pub per_sequence_seconds: f64,
    /// A token of a prompt that is computed, seconds.
    pub per_prompt_token_seconds: f64,
    /// A token that lies in the KV cache, seconds.
    pub per_kv_token_seconds: f64,
    /// Most sequences in a batch; none: not limited by number.
    pub max_sequences: Option<f64>,
    /// Tokens that the KV cache holds; none: unknown.
    pub kv_tokens: Option<f64>,
    /// Tokens of one iteration; none: unknown.
    pub token_budget: Option<f64>,
}

/// What the requests of a model are like, in the mean.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mix {
    /// Prompt tokens of a request.
    pub prompt_tokens: f64,
    /// Output tokens of a request.
    pub output_tokens: f64,
    /// Tokens that a running request has in the KV cache.
    pub resident_tokens: f64,
}

impl Default for Mix {
    /// A short conversation, for as long as nothing is known.
    fn default() -> Self {
        Self::of(512.0, 128.0)
    }
}

impl Mix {
    /// A mix of which only prompts and outputs are known: a running request holds its prompt and half of its output.
    pub fn of(prompt_tokens: f64, output_tokens: f64) -> Self {
        Self { prompt_tokens, output_tokens, resident_tokens: prompt_tokens + output_tokens / 2.0 }
    }

    /// The same within the bounds of what can be.
    pub(super) fn bounded(&self) -> Self {
        let within = |value: f64, low: f64| if value.is_finite() { value.clamp(low, 1e8) } else { low };
        Self {
            prompt_tokens: within(self.prompt_tokens, 0.0),
            output_tokens: within(self.output_tokens, 1.0),
            resident_tokens: within(self.resident_tokens, 1.0),
        }
    }
}

impl Profile {
    /// Seconds that an iteration takes with `sequences` in the batch, at the usual speed.
    pub fn iteration_seconds(&self, sequences: f64, prompt_tokens: f64, resident_tokens: f64) -> f64 {
        self.fixed_seconds
            + self.per_sequence_seconds * sequences
            + self.per_prompt_token_seconds * prompt_tokens
            + self.per_kv_token_seconds * resident_tokens
    }

    /// Requests of a mix that fit into a batch, at least 1: by their number, the KV cache, and the tokens of an iteration.
    pub fn batch(&self, mix: &Mix) -> f64 {
        Curve::of_profile(self, mix).map_or(1.0, |curve| curve.places)
    }

    /// The same with this capacity at a mix. What serves less than its iterations say has room for fewer at a time: its requests take as
    /// long as was seen, so that the requests in flight that fill it stay true. What serves more is faster.
    #[must_use]
    pub fn of_capacity(self, rps: f64, mix: &Mix) -> Self {
        let Some(curve) = Curve::of_profile(&self, mix) else { return self };
        if !(rps.is_finite() && rps > 0.0) {
            return self;
        }
        let places = curve.in_flight_of_rate(rps).max(1.0);
        let fewer = Self { max_sequences: Some(places), ..self };
        let (profile, is_less) = if places < curve.places { (fewer, true) } else { (self, false) };
        let factor = profile.capacity_rps(mix) / rps;
        // Of fewer places no rest is left, unless a single one is too much.
        let times = if is_less && places > 1.0 { 1.0 } else { factor };
        if !(times.is_normal() && times > 0.0) {
            return self;
        }
        Self {
            fixed_seconds: times * profile.fixed_seconds,
            per_sequence_seconds: times * profile.per_sequence_seconds,
            per_prompt_token_seconds: times * profile.per_prompt_token_seconds,
            per_kv_token_seconds: times * profile.per_kv_token_seconds,
            ..profile
        }
    }

    /// Requests/s of a mix that it completes with a full batch, at its usual speed.
    pub fn capacity_rps(&self, mix: &Mix) -> f64 {
        Curve::of_profile(self, mix).map_or(0.0, |curve| curve.capacity_rps())
    }
}
