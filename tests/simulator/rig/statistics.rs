//! Quantiles and ratios with intervals, by the bootstrap.
//!
//! Requests that follow each other meet the same queues, so blocks of them are drawn, not single ones (Künsch, 1989); and as
//! every policy gets the same arrivals, a ratio draws the same blocks of both.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::Serialize;

/// Requests of a block: several seconds of traffic.
const BLOCK: usize = 50;
/// Part of the floor below which a distance from it says nothing: it is noise of the servers.
const LEAST_ABOVE_FLOOR: f64 = 0.05;

/// An estimate with its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Interval {
    /// The estimate.
    pub estimate: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

impl Interval {
    fn of(estimate: f64, mut drawn: Vec<f64>) -> Self {
        drawn.sort_by(f64::total_cmp);
        Self { estimate, low: quantile(&drawn, 0.025), high: quantile(&drawn, 0.975) }
    }
}

/// A quantile of sorted values, linear between two of them; NaN of none.
pub fn quantile(sorted: &[f64], level: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let position = level.clamp(0.0, 1.0) * last as f64;
    let (below, part) = (position.floor() as usize, position.fract());
    let above = (below + 1).min(last);
    sorted[below] + part * (sorted[above] - sorted[below])
}

/// Values of requests, by size, so that a quantile of drawn requests takes one pass.
#[derive(Debug, Clone)]
pub struct Sample {
    /// The value, its weight, and the index of its request.
    sorted: Vec<(f64, f64, usize)>,
}

impl Sample {
    /// One value for each request, in the order of their arrival.
    pub fn new(values: &[f64]) -> Self {
        Self::weighted(values.iter().enumerate().map(|(index, value)| (*value, 1.0, index)).collect())
    }

    /// Values with weights, and the index of the request that each belongs to.
    pub fn weighted(mut values: Vec<(f64, f64, usize)>) -> Self {
        values.sort_by(|a, b| a.0.total_cmp(&b.0));
        Self { sorted: values }
    }

    /// The least value below or at which this part of the weight lies; NaN of none.
    pub fn quantile(&self, level: f64) -> f64 {
        self.of_drawn(level, |_| 1.0)
    }

    /// The same, where each request counts as often as it was drawn.
    fn of_drawn(&self, level: f64, times: impl Fn(usize) -> f64) -> f64 {
        let total: f64 = self.sorted.iter().map(|(_, weight, index)| weight * times(*index)).sum();
        let mut above = (1.0 - level) * total;
        for (value, weight, index) in self.sorted.iter().rev() {
            above -= weight * times(*index);
            // What rounding leaves is no weight.
            if above < -1e-9 * total {
                return *value;
            }
        }
        self.sorted.first().map_or(f64::NAN, |(value, ..)| *value)
    }
}

/// A quantile of values in the order of their arrival, with its interval from `rounds` draws.
pub fn quantile_interval(values: &[f64], level: f64, rounds: usize, seed: u64) -> Interval {
    let sample = Sample::new(values);
    let mut rng = StdRng::seed_from_u64(seed);
    let drawn = (0..rounds).map(|_| {
        let times = draw(values.len(), &mut rng);
        sample.of_drawn(level, |index| times[index])
    });
    let drawn = drawn.collect();
    Interval::of(sample.quantile(level), drawn)
}

/// The same requests under two policies.
#[derive(Debug, Clone)]
pub struct Pair {
    /// How many there are.
    pub requests: usize,
    /// Those that are judged.
    pub ours: Sample,
    /// Those they are compared with.
    pub theirs: Sample,
    /// The same requests on idle machines, whose quantile is subtracted from both; none where nothing is.
    pub idle: Option<Sample>,
}

/// The ratio of a quantile above that of idle machines, ours to theirs: the geometric mean over cells, with its interval.
pub fn geometric_ratio(pairs: &[Pair], level: f64, rounds: usize, seed: u64) -> Option<Interval> {
    if pairs.is_empty() || pairs.iter().any(|pair| pair.requests == 0) {
        return None;
    }
    let mean = |logs: f64| (logs / pairs.len() as f64).exp();
    let estimate = mean(pairs.iter().map(|pair| log_ratio(pair, level, |_| 1.0)).sum());
    let mut rng = StdRng::seed_from_u64(seed);
    let drawn = (0..rounds).map(|_| {
        let logs = pairs.iter().map(|pair| {
            let times = draw(pair.requests, &mut rng);
            log_ratio(pair, level, |index| times[index])
        });
        mean(logs.sum())
    });
    let drawn = drawn.collect();
    Some(Interval::of(estimate, drawn))
}

fn log_ratio(pair: &Pair, level: f64, times: impl Fn(usize) -> f64) -> f64 {
    let floor = pair.idle.as_ref().map_or(0.0, |idle| idle.of_drawn(level, &times));
    let least = (LEAST_ABOVE_FLOOR * floor).max(f64::MIN_POSITIVE);
    let above = |sample: &Sample| (sample.of_drawn(level, &times) - floor).max(least);
    (above(&pair.ours) / above(&pair.theirs)).ln()
}

/// How often each of so many requests is drawn, in blocks.
fn draw(len: usize, rng: &mut StdRng) -> Vec<f64> {
    let block = BLOCK.min(len);
    let mut times = vec![0.0; len];
    let mut drawn = 0;
    while drawn < len {
        let start = rng.random_range(0..=len - block);
        let until = (start + block).min(start + len - drawn);
        times[start..until].iter_mut().for_each(|times| *times += 1.0);
        drawn += until - start;
    }
    times
}

#[cfg(test)]
mod tests {
    use rand_distr::{Distribution, Exp1};

    use super::*;

    fn exponential(seed: u64, len: usize, mean: f64) -> Vec<f64> {
        let mut rng = StdRng::seed_from_u64(seed);
        (0..len).map(|_| mean * Distribution::<f64>::sample(&Exp1, &mut rng)).collect()
    }

    #[test]
    fn quantiles_lie_between_values() {
        assert_eq!(quantile(&[1.0, 2.0, 4.0], 0.5), 2.0);
        assert_eq!(quantile(&[1.0, 2.0, 4.0], 0.75), 3.0);
        assert_eq!(quantile(&[7.0], 0.99), 7.0);
        assert!(quantile(&[], 0.5).is_nan());
    }

    #[test]
    fn the_interval_holds_the_true_quantile_most_of_the_time() {
        let truth = 0.1f64.ln().abs();
        let holds = (0..60).filter(|&seed| {
            let values = exponential(seed, 2000, 1.0);
            let found = quantile_interval(&values, 0.9, 200, seed);
            assert!(found.low <= found.estimate && found.estimate <= found.high);
            (found.low..=found.high).contains(&truth)
        });
        assert!(holds.count() >= 50);
    }

    fn pair(ours: &[f64], theirs: &[f64], floor: Option<f64>) -> Pair {
        let idle = floor.map(|floor| Sample::new(&vec![floor; ours.len()]));
        Pair { requests: ours.len(), ours: Sample::new(ours), theirs: Sample::new(theirs), idle }
    }

    #[test]
    fn a_sample_counts_weight() {
        let sample = Sample::weighted(vec![(1.0, 1.0, 0), (3.0, 1.0, 2), (2.0, 8.0, 1)]);
        assert_eq!([0.05, 0.5, 0.99].map(|level| sample.quantile(level)), [1.0, 2.0, 3.0]);
        assert_eq!(sample.of_drawn(0.99, |index| [1.0, 1.0, 0.0][index]), 2.0);
        assert!(Sample::new(&[]).quantile(0.5).is_nan());
    }

    #[test]
    fn as_many_are_drawn_as_there_are() {
        let mut rng = StdRng::seed_from_u64(3);
        for len in [1, 49, 50, 51, 1234] {
            assert_eq!(draw(len, &mut rng).iter().sum::<f64>(), len as f64);
        }
    }

    #[test]
    fn a_ratio_is_the_geometric_mean_over_cells() {
        let values: Vec<f64> = (1..=1000).map(f64::from).collect();
        let pairs = [0.5, 8.0].map(|factor| {
            pair(&values.iter().map(|value| value * factor).collect::<Vec<_>>(), &values, None)
        });
        let found = geometric_ratio(&pairs, 0.99, 50, 1).unwrap();
        assert!((found.estimate - 2.0).abs() < 1e-9, "{found:?}");
        assert!(found.high - found.low < 1e-9, "the same blocks are drawn of both: {found:?}");
    }

    #[test]
    fn what_lies_at_the_floor_is_no_distance_of_nothing() {
        let found = geometric_ratio(&[pair(&[1.0; 100], &[2.0; 100], Some(1.0))], 0.99, 10, 1).unwrap();
        assert!((found.estimate - LEAST_ABOVE_FLOOR).abs() < 1e-9, "{found:?}");
        assert!(geometric_ratio(&[], 0.99, 10, 1).is_none());
    }
}
