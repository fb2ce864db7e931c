use super::{Mix, Profile};

/// Sequences in a batch where nothing limits them.
const MOST_SEQUENCES: f64 = 256.0;
/// Part of the KV cache that can be filled before sequences are put back.
const KV_FILLED: f64 = 0.97;
/// Without a profile: an iteration of a full batch takes this long, seconds, twice as long as one of an empty batch.
const GENERIC_FULL_SECONDS: f64 = 0.04;
const GENERIC_SLOPE: f64 = 0.5;
/// Bounds of what is computed with: beyond them a number is none.
const MOST: f64 = 1e9;
const LEAST_RPS: f64 = 1e-6;
const SLOWDOWNS: (f64, f64) = (0.1, 100.0);

/// How many requests a backend serves with how many in flight, at the present mix, and what a further one costs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Curve {
    /// `N`: sequences in a full batch.
    pub(super) places: f64,
    /// `A = o s a`: seconds of a request beside an empty batch.
    fixed: f64,
    /// `B = o s b' N`: what a full batch adds.
    slope: f64,
    /// `l` at which the batch is full.
    full_cost: f64,
    /// Only the capacity is known: how many requests in flight are many is not.
    pub(super) is_generic: bool,
}

impl Curve {
    /// The curve of a profile at usual speed; none when the profile says nothing that can be.
    pub(super) fn of_profile(profile: &Profile, mix: &Mix) -> Option<Self> {
        let Mix { prompt_tokens: prompt, output_tokens: output, resident_tokens: resident } = mix.bounded();
        let cost = |seconds: f64| (seconds.is_finite() && (0.0..MOST).contains(&seconds)).then_some(seconds);
        let limit = |limit: Option<f64>| limit.filter(|limit| limit.is_finite() && *limit > 0.0);
        let fixed = cost(profile.fixed_seconds)?;
        let per_sequence = cost(profile.per_sequence_seconds)?
            + cost(profile.per_kv_token_seconds)? * resident
            + cost(profile.per_prompt_token_seconds)? * prompt / output;
        let places = [
            limit(profile.max_sequences),
            limit(profile.kv_tokens).map(|tokens| KV_FILLED * tokens / resident),
            limit(profile.token_budget).map(|budget| budget * output / (prompt + output)),
        ];
        let places = places.into_iter().flatten().min_by(f64::total_cmp).unwrap_or(MOST_SEQUENCES);
        Self::new(places.clamp(1.0, 1e6), output * fixed, output * per_sequence)
    }

    /// The curve of a backend of which only the capacity is known.
    pub(super) fn generic(capacity_rps: f64, mix: &Mix) -> Self {
        let full = mix.bounded().output_tokens * GENERIC_FULL_SECONDS;
        let (fixed, slope) = ((1.0 - GENERIC_SLOPE) * full, GENERIC_SLOPE * full);
        let places = capacity_rps.clamp(LEAST_RPS, MOST) * full;
        Self { places, fixed, slope, full_cost: full, is_generic: true }
    }

    fn new(places: f64, fixed: f64, per_sequence: f64) -> Option<Self> {
        let (fixed, slope) = (fixed.max(1e-9), per_sequence * places);
        let curve = Self { places, fixed, slope, full_cost: fixed + slope, is_generic: false };
        (LEAST_RPS..=MOST).contains(&curve.capacity_rps()).then_some(curve)
    }

    /// The same so many times slower.
    pub(super) fn slowed(self, times: f64) -> Self {
        let times = if times.is_finite() { times.clamp(SLOWDOWNS.0, SLOWDOWNS.1) } else { 1.0 };
        Self {
            fixed: times * self.fixed,
            slope: times * self.slope,
            full_cost: times * self.full_cost,
            ..self
        }
    }

    /// `mu = X(N)`: requests/s with a full batch.
    pub(super) fn capacity_rps(&self) -> f64 {
        self.places / self.full_cost
    }

    /// `X(n)`: requests/s with `n` in flight.
    pub(super) fn rate(&self, in_flight: f64) -> f64 {
        let batch = in_flight.clamp(0.0, self.places);
        batch / self.request_seconds(batch)
    }

    /// `X⁻¹(r)`: requests in flight at which it completes so many requests/s, as if no batch were full; endless beyond what any does.
    pub(super) fn in_flight_of_rate(&self, rps: f64) -> f64 {
        let left = 1.0 - rps * self.slope / self.places;
        if left > 0.0 { rps * self.fixed / left } else { f64::INFINITY }
    }

    /// Seconds that a request takes beside so many.
    pub(super) fn request_seconds(&self, in_flight: f64) -> f64 {
        self.fixed + self.slope * in_flight.clamp(0.0, self.places) / self.places
    }

    /// `C(N)`: cost of one more request as the batch gets full.
    pub(super) fn cost_when_full(&self, barrier: f64) -> f64 {
        self.full_cost / (1.0 - barrier)
    }

    /// `n(l)`: requests in flight at which one more costs `level` seconds. Within the batch its own time, with a barrier
    /// that rises as the batch fills; beyond, the time that it waits, at a price.
    pub(super) fn in_flight_at(&self, level: f64, barrier: f64, waiting_price: f64) -> f64 {
        let full = self.cost_when_full(barrier);
        if level <= self.fixed {
            0.0
        } else if level < full {
            self.places * (level - self.fixed) / (self.slope + barrier * level)
        } else {
            self.places + (level - full) * self.capacity_rps() / waiting_price
        }
    }
}
