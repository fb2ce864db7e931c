/// Shares in the proportion of parts, of sum 1; equal ones where that cannot be. A part that is no number counts as none.
pub(super) fn normalised(parts: &[f64]) -> Vec<f64> {
    let usable = |part: f64| if part.is_finite() { part.max(0.0) } else { 0.0 };
    // Divided first by the largest: sums of huge numbers have an end.
    let largest = parts.iter().map(|part| usable(*part)).fold(0.0, f64::max);
    if largest <= 0.0 {
        return vec![1.0 / parts.len().max(1) as f64; parts.len()];
    }
    let scaled: Vec<f64> = parts.iter().map(|part| usable(*part) / largest).collect();
    let sum: f64 = scaled.iter().sum();
    scaled.iter().map(|part| part / sum).collect()
}

/// Whole weights in the proportion of shares, each at least 1, that add up to `total` exactly (or to their number, if that
/// is more): what is left after rounding down goes to the largest remainders.
pub fn whole_weights(shares: &[f64], total: u32) -> Vec<u32> {
    let exact: Vec<f64> = normalised(shares).iter().map(|share| share * f64::from(total)).collect();
    let mut weights: Vec<u32> = exact.iter().map(|exact| (exact.floor() as u32).max(1)).collect();
    let sum: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
    let (sum, total) = (sum as i64, i64::from(total));
    let mut order: Vec<usize> = (0..weights.len()).collect();
    if sum < total {
        let remainder = |index: &usize| exact[*index] - f64::from(weights[*index]);
        order.sort_by(|left, right| remainder(right).total_cmp(&remainder(left)));
        for index in order.into_iter().cycle().take((total - sum) as usize) {
            weights[index] += 1;
        }
    } else {
        // Those that were lifted to 1 take from the largest.
        let mut surplus = sum - total;
        order.sort_by_key(|index| std::cmp::Reverse(weights[*index]));
        order.retain(|index| weights[*index] > 1);
        while surplus > 0 && !order.is_empty() {
            for index in &order {
                if surplus > 0 {
                    weights[*index] -= 1;
                    surplus -= 1;
                }
            }
            order.retain(|index| weights[*index] > 1);
        }
    }
    weights
}
