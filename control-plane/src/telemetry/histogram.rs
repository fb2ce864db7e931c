/// Edges of one histogram that are kept; engines have up to thirty.
pub(super) const MOST_EDGES: usize = 256;

/// The buckets of a histogram: how many observations lie at or below each edge, since the engine started or within
/// an interval.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Buckets {
    /// Edge and count, by edge; the last edge may be infinite.
    edges: Vec<(f64, f64)>,
}

impl Buckets {
    /// Takes pairs of edge and count in any order. What no histogram has, edges or counts that are no numbers or
    /// counts below zero, is left out, and so is the second of two equal edges.
    pub fn new(pairs: impl IntoIterator<Item = (f64, f64)>) -> Self {
        let sound = |(edge, count): &(f64, f64)| !edge.is_nan() && count.is_finite() && *count >= 0.0;
        let mut edges: Vec<(f64, f64)> = pairs.into_iter().filter(sound).take(MOST_EDGES).collect();
        edges.sort_by(|one, other| one.0.total_cmp(&other.0));
        edges.dedup_by(|later, earlier| later.0 == earlier.0);
        Self { edges }
    }

    /// Edge and count, by edge.
    pub fn edges(&self) -> &[(f64, f64)] {
        &self.edges
    }

    /// Returns what was observed since an earlier reading; none when a count fell, as after a restart, or when the two
    /// share no edge.
    ///
    /// Where the edges differ, those that both have are still right: counts are of all below.
    pub fn since(&self, earlier: &Self) -> Option<Self> {
        let mut edges = Vec::with_capacity(self.edges.len());
        let mut rest = earlier.edges.iter().peekable();
        for &(edge, count) in &self.edges {
            while rest.next_if(|(other, _)| *other < edge).is_some() {}
            let Some(&(_, before)) = rest.next_if(|(other, _)| *other == edge) else { continue };
            if count < before {
                return None;
            }
            edges.push((edge, count - before));
        }
        (!edges.is_empty()).then_some(Self { edges })
    }

    /// Returns the value that a part `quantile` of `total` observations lies at or below, interpolated within its bucket
    /// (Prometheus' `histogram_quantile`); none without observations or without a finite edge.
    ///
    /// What lies beyond the last finite edge is told as that edge. Counts that fall from edge to edge, as when the
    /// page was written while requests ended, are taken as no lower than those before.
    pub fn quantile(&self, quantile: f64, total: f64) -> Option<f64> {
        let total = self.edges.iter().fold(total, |most, (_, count)| most.max(*count));
        if total <= 0.0 || !total.is_finite() {
            return None;
        }
        let rank = quantile * total;
        let (mut lower, mut below) = (None, 0.0);
        for &(edge, count) in self.edges.iter().filter(|(edge, _)| edge.is_finite()) {
            let count = count.max(below);
            if count >= rank && count > 0.0 {
                let from = match lower {
                    Some(lower) => lower,
                    // Times start at zero; an edge at or below it has nothing to interpolate from.
                    None if edge > 0.0 => 0.0,
                    None => return Some(edge),
                };
                let part = if count > below { (rank - below) / (count - below) } else { 1.0 };
                return Some(from + (edge - from) * part.clamp(0.0, 1.0));
            }
            (lower, below) = (Some(edge), count);
        }
        lower
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn buckets(pairs: &[(f64, f64)]) -> Buckets {
        Buckets::new(pairs.iter().copied())
    }

    #[test]
    fn quantiles_lie_within_their_bucket() {
        let seen = buckets(&[(0.1, 10.0), (0.5, 90.0), (1.0, 100.0), (f64::INFINITY, 100.0)]);
        assert!((seen.quantile(0.5, 100.0).unwrap() - 0.3).abs() < 1e-12);
        assert!((seen.quantile(0.95, 100.0).unwrap() - 0.75).abs() < 1e-12);
        assert!((seen.quantile(0.05, 100.0).unwrap() - 0.05).abs() < 1e-12);
        assert_eq!(buckets(&[(0.1, 0.0), (f64::INFINITY, 0.0)]).quantile(0.5, 0.0), None);
        assert_eq!(buckets(&[]).quantile(0.5, 3.0), None);
    }

    #[test]
    fn what_lies_beyond_the_last_edge_is_told_as_that_edge() {
        assert_eq!(buckets(&[(0.1, 1.0), (f64::INFINITY, 100.0)]).quantile(0.95, 100.0), Some(0.1));
        // Without a bucket for infinity the count tells how many there are.
        assert_eq!(buckets(&[(0.1, 1.0)]).quantile(0.95, 100.0), Some(0.1));
    }

    #[test]
    fn differences_hold_over_changed_edges_and_fail_over_resets() {
        let before = buckets(&[(0.1, 10.0), (0.5, 20.0), (1.0, 30.0)]);
        let after = buckets(&[(0.1, 15.0), (0.25, 21.0), (1.0, 50.0), (f64::INFINITY, 50.0)]);
        assert_eq!(after.since(&before), Some(buckets(&[(0.1, 5.0), (1.0, 20.0)])));
        assert_eq!(buckets(&[(0.1, 9.0)]).since(&before), None);
        assert_eq!(buckets(&[(0.2, 9.0)]).since(&before), None);
    }

    #[test]
    fn unsound_pairs_are_left_out() {
        let pairs = [(f64::NAN, 1.0), (1.0, f64::NAN), (2.0, -1.0), (0.5, 3.0), (0.5, 4.0), (0.1, 1.0)];
        assert_eq!(buckets(&pairs).edges(), [(0.1, 1.0), (0.5, 3.0)]);
    }

    proptest! {
        #[test]
        fn quantiles_are_true_to_the_bucket_of_the_observation(
            mut observed in proptest::collection::vec(0.0_f64..12.0, 1..200),
            quantile in 0.01_f64..1.0,
        ) {
            let edges = [0.1, 0.5, 1.0, 2.0, 5.0, 10.0, f64::INFINITY];
            let at_or_below = |edge: f64| observed.iter().filter(|value| **value <= edge).count() as f64;
            let seen = Buckets::new(edges.map(|edge| (edge, at_or_below(edge))));
            let total = observed.len() as f64;
            let told = seen.quantile(quantile, total).unwrap();
            observed.sort_by(f64::total_cmp);
            let rank = ((quantile * total).ceil() as usize).clamp(1, observed.len());
            let exact = observed[rank - 1];
            let upper = edges.into_iter().find(|edge| exact <= *edge).unwrap();
            let lower = edges.into_iter().rev().find(|edge| *edge < exact).unwrap_or(0.0);
            prop_assert!(told <= upper.min(10.0) + 1e-9 && told >= lower.min(10.0) - 1e-9, "{told} {lower} {upper}");
        }

        #[test]
        fn any_pairs_give_sound_quantiles(
            before in proptest::collection::vec((any::<f64>(), any::<f64>()), 0..20),
            after in proptest::collection::vec((any::<f64>(), any::<f64>()), 0..20),
            total in any::<f64>(),
        ) {
            let (before, after) = (Buckets::new(before), Buckets::new(after));
            if let Some(grown) = after.since(&before) {
                prop_assert!(grown.edges().iter().all(|(_, count)| *count >= 0.0));
            }
            if let Some(told) = after.quantile(0.95, total) {
                prop_assert!(!told.is_nan());
            }
        }
    }
}
