use crate::quantiles::empirical;

use super::CapacityEstimate;

/// Windows of about the same rate that make one point of the curve.
const GROUP: usize = 8;

/// Share of windows that are to meet the target at the lower end of the estimate.
const SURE: f64 = 0.9;

/// The logarithm of a latency as a function of the rate that does not descend, and the windows' distance from it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Curve {
    /// Rates, ascending, with the typical logarithm at each.
    knots: Vec<(f64, f64)>,
    /// What one window in ten is below, and one in ten above, as logarithms.
    below: f64,
    above: f64,
}

impl Curve {
    /// Draws the curve through pairs of rate and logarithm; `None` when there are too few for two points.
    pub(super) fn through(mut points: Vec<(f64, f64)>) -> Option<Self> {
        points.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
        let groups = points.len() / GROUP;
        if groups < 2 {
            return None;
        }
        let bounds = |group: usize| (group * points.len() / groups, (group + 1) * points.len() / groups);
        let medians = (0..groups).map(|group| {
            let (from, to) = bounds(group);
            let rates: Vec<f64> = points[from..to].iter().map(|point| point.0).collect();
            let mut values: Vec<f64> = points[from..to].iter().map(|point| point.1).collect();
            values.sort_by(f64::total_cmp);
            (rates[rates.len() / 2], values[values.len() / 2])
        });
        let mut curve = Self { knots: ascending(&medians.collect::<Vec<_>>()), below: 0.0, above: 0.0 };
        let mut residuals: Vec<f64> = points.iter().map(|(rate, value)| value - curve.at(*rate)).collect();
        residuals.sort_by(f64::total_cmp);
        curve.below = empirical(&residuals, 1.0 - SURE).unwrap_or(0.0).min(0.0);
        curve.above = empirical(&residuals, SURE).unwrap_or(0.0).max(0.0);
        Some(curve)
    }

    /// The logarithm at a rate; beyond the ends that of the end.
    fn at(&self, rate: f64) -> f64 {
        let above = self.knots.partition_point(|knot| knot.0 <= rate);
        let Some(before) = above.checked_sub(1) else { return self.knots[0].1 };
        let (from, Some(to)) = (self.knots[before], self.knots.get(above)) else {
            return self.knots[before].1;
        };
        from.1 + (rate - from.0) / (to.0 - from.0) * (to.1 - from.1)
    }

    /// The highest rate at which the curve is not above `value`; `None` when it is above everywhere.
    fn rate_at(&self, value: f64) -> Option<f64> {
        let above = self.knots.partition_point(|knot| knot.1 <= value);
        let from = self.knots[above.checked_sub(1)?];
        let Some(to) = self.knots.get(above) else { return Some(from.0) };
        Some(from.0 + (value - from.1) / (to.1 - from.1) * (to.0 - from.0))
    }

    pub(super) fn estimate(&self, target: f64) -> CapacityEstimate {
        let (lowest, highest) = (self.knots[0], self.knots[self.knots.len() - 1]);
        if highest.1 <= target {
            return CapacityEstimate::AtLeast { rps: highest.0 };
        }
        let Some(rps) = self.rate_at(target) else { return CapacityEstimate::Below { rps: lowest.0 } };
        CapacityEstimate::Known {
            rps,
            lower_rps: self.rate_at(target - self.above).unwrap_or(0.0),
            upper_rps: self.rate_at(target - self.below).unwrap_or(rps).max(rps),
        }
    }
}

/// Makes the values ascend with the rates, in the sense of least squares (pool adjacent violators); groups of one rate
/// become one.
fn ascending(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    // Blocks of points that were pooled: sum of values, and how many.
    let mut blocks: Vec<(f64, usize)> = Vec::new();
    for (_, value) in points {
        blocks.push((*value, 1));
        while let [.., before, last] = blocks.as_mut_slice()
            && before.0 / before.1 as f64 > last.0 / last.1 as f64
        {
            *before = (before.0 + last.0, before.1 + last.1);
            blocks.pop();
        }
    }
    let values = blocks.iter().flat_map(|(sum, count)| std::iter::repeat_n(sum / *count as f64, *count));
    let mut knots: Vec<(f64, f64)> = Vec::new();
    for ((rate, _), value) in points.iter().zip(values) {
        match knots.last_mut() {
            Some(last) if last.0 >= *rate => last.1 = value,
            _ => knots.push((*rate, value)),
        }
    }
    knots
}
