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

/// A quantile of values in the order of their arrival, with its interval from `rounds` draws.
pub fn quantile_interval(values: &[f64], level: f64, rounds: usize, seed: u64) -> Interval {
    let mut rng = StdRng::seed_from_u64(seed);
    let draws = (0..rounds).map(|_| of_drawn(values, &draw(values.len(), &mut rng), level));
    let drawn = draws.collect();
    Interval::of(of_drawn(values, &(0..values.len()).collect::<Vec<_>>(), level), drawn)
}

/// The same requests under two policies, in the order of their arrival.
#[derive(Debug, Clone, Copy)]
pub struct Pair<'a> {
    /// Those that are judged.
    pub ours: &'a [f64],
    /// Those they are compared with.
    pub theirs: &'a [f64],
    /// What is subtracted from the quantiles of both, and 0 where nothing is.
    pub floor: f64,
}

/// The ratio of a quantile above the floor, ours to theirs: the geometric mean over cells, with its interval.
pub fn geometric_ratio(pairs: &[Pair<'_>], level: f64, rounds: usize, seed: u64) -> Option<Interval> {
    if pairs.is_empty() || pairs.iter().any(|pair| pair.ours.is_empty() || pair.theirs.is_empty()) {
        return None;
    }
    let all = |pair: &Pair<'_>| {
        let (ours, theirs) = ((0..pair.ours.len()).collect(), (0..pair.theirs.len()).collect());
        (ours, theirs)
    };
    let estimate = mean_ratio(pairs, level, all);
    let mut rng = StdRng::seed_from_u64(seed);
    let drawn = (0..rounds).map(|_| {
        mean_ratio(pairs, level, |pair| {
            let ours = draw(pair.ours.len(), &mut rng);
            let same = pair.ours.len() == pair.theirs.len();
            let theirs = if same { ours.clone() } else { draw(pair.theirs.len(), &mut rng) };
            (ours, theirs)
        })
    });
    let drawn = drawn.collect();
    Some(Interval::of(estimate, drawn))
}

fn mean_ratio(
    pairs: &[Pair<'_>],
    level: f64,
    mut chosen: impl FnMut(&Pair<'_>) -> (Vec<usize>, Vec<usize>),
) -> f64 {
    let logs = pairs.iter().map(|pair| {
        let (ours, theirs) = chosen(pair);
        let above = |values, chosen: &[usize]| {
            let least = (LEAST_ABOVE_FLOOR * pair.floor).max(f64::MIN_POSITIVE);
            (of_drawn(values, chosen, level) - pair.floor).max(least)
        };
        (above(pair.ours, &ours) / above(pair.theirs, &theirs)).ln()
    });
    (logs.sum::<f64>() / pairs.len() as f64).exp()
}

fn of_drawn(values: &[f64], chosen: &[usize], level: f64) -> f64 {
    let mut drawn: Vec<f64> = chosen.iter().map(|&index| values[index]).collect();
    drawn.sort_unstable_by(f64::total_cmp);
    quantile(&drawn, level)
}

/// As many indices as there are values, in blocks.
fn draw(len: usize, rng: &mut StdRng) -> Vec<usize> {
    let block = BLOCK.min(len.max(1));
    let mut chosen = Vec::with_capacity(len + block);
    while chosen.len() < len {
        let start = rng.random_range(0..=len - block);
        chosen.extend(start..start + block);
    }
    chosen.truncate(len);
    chosen
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

    #[test]
    fn a_ratio_is_the_geometric_mean_over_cells() {
        let values: Vec<f64> = (0..1000).map(f64::from).collect();
        let (half, double) = (values.iter().map(|v| v / 2.0), values.iter().map(|v| v * 8.0));
        let (half, double): (Vec<_>, Vec<_>) = (half.collect(), double.collect());
        let pairs = [&half, &double].map(|ours| Pair { ours, theirs: &values, floor: 0.0 });
        let found = geometric_ratio(&pairs, 0.99, 50, 1).unwrap();
        assert!((found.estimate - 2.0).abs() < 1e-9, "{found:?}");
        assert!(found.high - found.low < 1e-9, "the same blocks are drawn of both: {found:?}");
    }

    #[test]
    fn what_lies_at_the_floor_is_no_distance_of_nothing() {
        let (floor, far) = (vec![1.0; 100], vec![2.0; 100]);
        let pair = Pair { ours: &floor, theirs: &far, floor: 1.0 };
        let found = geometric_ratio(&[pair], 0.99, 10, 1).unwrap();
        assert!((found.estimate - LEAST_ABOVE_FLOOR).abs() < 1e-9, "{found:?}");
        assert!(geometric_ratio(&[], 0.99, 10, 1).is_none());
    }
}
