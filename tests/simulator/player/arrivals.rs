//! When requests arrive: a Poisson process with a changing rate.

use std::sync::Arc;

use rand::{RngExt, SeedableRng, rngs::StdRng};
use rand_distr::{Distribution, Exp1};

use crate::history::Replay;

/// Requests per second over time.
pub trait Demand: Send + Sync {
    /// The rate at a moment, in requests per second; never negative.
    fn rate_rps(&self, unix_s: f64) -> f64;

    /// An upper bound of the rate over `seconds` from `unix_s`, in requests per second.
    fn peak_rps(&self, unix_s: f64, seconds: f64) -> f64;
}

impl Demand for Replay {
    fn rate_rps(&self, unix_s: f64) -> f64 {
        Self::rate_rps(self, unix_s)
    }

    fn peak_rps(&self, unix_s: f64, seconds: f64) -> f64 {
        Self::peak_rps(self, unix_s, seconds)
    }
}

/// A constant rate in requests per second.
impl Demand for f64 {
    fn rate_rps(&self, _unix_s: f64) -> f64 {
        *self
    }

    fn peak_rps(&self, _unix_s: f64, _seconds: f64) -> f64 {
        *self
    }
}

/// How far ahead one bound of the rate is used, in seconds. Shorter follows the rate closer and rejects less.
const BOUND_SECONDS: f64 = 5.0;

/// Draws arrivals by thinning (Lewis and Shedler, 1979): candidates arrive at the highest rate of the next
/// seconds, and each is kept with the probability of the rate at its moment over that bound.
pub(super) struct Arrivals {
    demand: Arc<dyn Demand>,
    now_unix_s: f64,
    rng: StdRng,
}

impl Arrivals {
    pub(super) fn new(demand: Arc<dyn Demand>, begin_unix_s: f64, seed: u64) -> Self {
        Self { demand, now_unix_s: begin_unix_s, rng: StdRng::seed_from_u64(seed) }
    }

    /// The moment reached so far.
    pub(super) fn now_unix_s(&self) -> f64 {
        self.now_unix_s
    }

    /// Moves on to the next candidate, at most [`BOUND_SECONDS`]; true when a request arrives there.
    pub(super) fn advance(&mut self) -> bool {
        let bound = self.demand.peak_rps(self.now_unix_s, BOUND_SECONDS);
        let unit: f64 = Exp1.sample(&mut self.rng);
        // Without demand this is infinite; no memory is lost by drawing again after the bound.
        let gap = unit / bound;
        if bound.is_nan() || bound <= 0.0 || gap > BOUND_SECONDS {
            self.now_unix_s += BOUND_SECONDS;
            return false;
        }
        self.now_unix_s += gap;
        self.rng.random::<f64>() * bound < self.demand.rate_rps(self.now_unix_s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Ramp;

    impl Demand for Ramp {
        fn rate_rps(&self, unix_s: f64) -> f64 {
            unix_s / 10.0
        }

        fn peak_rps(&self, unix_s: f64, seconds: f64) -> f64 {
            (unix_s + seconds) / 10.0
        }
    }

    fn count(demand: Arc<dyn Demand>, from: f64, until: f64) -> usize {
        let mut arrivals = Arrivals::new(demand, 0.0, 7);
        let mut count = 0;
        while arrivals.now_unix_s() < until {
            let arrived = arrivals.advance();
            count += usize::from(arrived && (from..until).contains(&arrivals.now_unix_s()));
        }
        count
    }

    #[test]
    fn a_constant_demand_is_met_on_average() {
        let count = count(Arc::new(20.0), 0.0, 1000.0) as f64;
        // Five standard deviations of a Poisson count of 20,000.
        assert!((count - 20_000.0).abs() < 707.0, "{count}");
    }

    #[test]
    fn a_ramp_brings_three_times_as_many_in_its_second_half() {
        let (first, second) = (count(Arc::new(Ramp), 0.0, 500.0), count(Arc::new(Ramp), 500.0, 1000.0));
        let ratio = second as f64 / first as f64;
        assert!((2.9..3.1).contains(&ratio), "{first}, {second}");
    }

    #[test]
    fn no_demand_brings_no_request() {
        assert_eq!(count(Arc::new(0.0), 0.0, 100.0), 0);
    }
}
