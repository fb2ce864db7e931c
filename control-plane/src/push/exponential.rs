//! Histograms whose buckets grow by a factor, as those with listed bounds are held.

/// Edges are powers of the square root of two, from about 0.1 ms to an hour and more, in seconds. They are the same whatever
/// the scale, which senders change as they go, so that readings can be compared.
const LEAST_HALF_POWER: i32 = -26;
const LARGEST_HALF_POWER: i32 = 24;
/// Most buckets of one histogram; senders have up to 160, or 320.
pub(super) const MOST_COUNTS: usize = 1024;
/// Factors from 2^1024 to 2^(2^-20), as OpenTelemetry has them.
const SCALES: std::ops::RangeInclusive<i32> = -10..=20;

/// Counts of the buckets from `offset` on: the bucket `i` is of what is larger than `base^i`, and at most `base^(i + 1)`, where
/// `base` is `2^(2^-scale)`.
#[derive(Debug, Default)]
pub(super) struct Exponential {
    pub(super) scale: i32,
    /// What is about zero, or below.
    pub(super) zeros: f64,
    pub(super) offset: i32,
    pub(super) counts: Vec<f64>,
}

impl Exponential {
    /// Edges in units of `factor`, with what is at or below each; none where there are too many buckets. Of a bucket that an
    /// edge parts, each side has its part of the logarithm. Left out are those below which nothing changes, and those above
    /// which nothing does: [`whole`] adds them.
    pub(super) fn cumulative(&self, factor: f64) -> Option<Vec<(f64, f64)>> {
        if self.counts.len() > MOST_COUNTS || !SCALES.contains(&self.scale) {
            return None;
        }
        let per_power = f64::from(self.scale).exp2();
        let shift = factor.log2();
        let (mut next, mut below) = (0, self.zeros);
        let mut edges: Vec<(f64, f64)> = Vec::new();
        for half_power in LEAST_HALF_POWER..=LARGEST_HALF_POWER {
            let power = f64::from(half_power) / 2.0;
            let place = (power - shift) * per_power - f64::from(self.offset);
            // An edge that should be that of a bucket is so in spite of rounding.
            let place = if (place - place.round()).abs() < 1e-6 { place.round() } else { place };
            while next < self.counts.len() && (next + 1) as f64 <= place {
                below += self.counts[next];
                next += 1;
            }
            let part = (place - next as f64).clamp(0.0, 1.0);
            let parted = self.counts.get(next).map_or(0.0, |count| count * part);
            let edge = (power.exp2(), below + parted);
            // Until something lies between two edges, the newer one says as much as the older.
            match edges.as_mut_slice() {
                [only] if only.1 == edge.1 => *only = edge,
                _ => edges.push(edge),
            }
        }
        let all = edges.last().map_or(0.0, |edge| edge.1);
        let needed = edges.iter().position(|edge| edge.1 == all).map_or(0, |last| last + 1);
        edges.truncate(if all == 0.0 { 0 } else { needed });
        Some(edges)
    }
}

/// All edges of a histogram of `count` values of which [`Exponential::cumulative`] made these.
pub(super) fn whole(edges: &[(f64, f64)], count: f64) -> Vec<(f64, f64)> {
    let mut below = edges.first().map_or(0.0, |edge| edge.1);
    let mut rest = edges.iter().peekable();
    let finite = (LEAST_HALF_POWER..=LARGEST_HALF_POWER).map(|half_power| {
        let bound = (f64::from(half_power) / 2.0).exp2();
        if let Some(edge) = rest.next_if(|edge| edge.0 <= bound) {
            below = edge.1;
        }
        (bound, below)
    });
    let mut all: Vec<(f64, f64)> = finite.collect();
    all.push((f64::INFINITY, count));
    all
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn edges_hold_what_lies_below_them_whatever_the_scale() {
        for (scale, offset) in [(3, 8 * 2), (1, 2 * 2), (0, 2)] {
            // One bucket that begins at 4 and what is zero.
            let spread = Exponential { scale, zeros: 3.0, offset, counts: vec![10.0] };
            let edges = spread.cumulative(1.0).unwrap();
            assert!((2..10).contains(&edges.len()), "{edges:?}");
            let edges = whole(&edges, 13.0);
            let at = |wanted: f64| edges.iter().find(|(edge, _)| (edge - wanted).abs() < 1e-9).unwrap().1;
            assert_eq!((at(2.0), at(4.0), at(8.0)), (3.0, 3.0, 13.0), "scale {scale}");
            assert_eq!(edges.last(), Some(&(f64::INFINITY, 13.0)));
        }
        // One from 256 ms to 512 ms is a quarter of a second to half of one, about.
        let spread = Exponential { scale: 0, zeros: 0.0, offset: 8, counts: vec![1.0] };
        let edges = whole(&spread.cumulative(1e-3).unwrap(), 1.0);
        let below = |wanted: f64| edges.iter().rev().find(|(edge, _)| *edge <= wanted).unwrap().1;
        assert!(below(0.25) < 0.01 && below(0.36) < 0.6 && below(0.8) == 1.0, "{edges:?}");
    }

    #[test]
    fn what_holds_nothing_has_no_edges() {
        let spread = Exponential { scale: 3, zeros: 0.0, offset: -5, counts: vec![0.0; 160] };
        assert_eq!(spread.cumulative(1.0), Some(Vec::new()));
        let edges = whole(&[], 0.0);
        assert!(edges.len() == 52 && edges.iter().all(|edge| edge.1 == 0.0), "{edges:?}");
        let zeros = Exponential { zeros: 4.0, ..spread };
        let edges = zeros.cumulative(1.0).unwrap();
        assert_eq!(edges.len(), 1, "{edges:?}");
        assert!(whole(&edges, 4.0).iter().all(|edge| edge.1 == 4.0));
    }

    proptest! {
        #[test]
        fn any_buckets_rise_to_what_there_is(
            scale in any::<i32>(),
            offset in any::<i32>(),
            counts in proptest::collection::vec(0_u32..1000, 0..200),
            factor in prop::sample::select(vec![1.0, 1e-3, 1e-6]),
        ) {
            let counts: Vec<f64> = counts.into_iter().map(f64::from).collect();
            let total = counts.iter().sum::<f64>() + 1.0;
            let spread = Exponential { scale: scale % 12, zeros: 1.0, offset, counts };
            let Some(edges) = spread.cumulative(factor) else { return Ok(()) };
            let edges = whole(&edges, total);
            prop_assert!(edges.is_sorted_by(|one, other| one.0 < other.0 && one.1 <= other.1 + 1e-6));
            prop_assert!(edges.iter().all(|(_, below)| *below <= total + 1e-6));
        }
    }
}
