//! Percentiles and spreads.

use crate::stats::{Spread, percentile, short};

#[test]
fn a_percentile_is_one_of_the_values() {
    let values: Vec<u64> = (1..=200).collect();
    assert_eq!(percentile(&values, 50), 100);
    assert_eq!(percentile(&values, 99), 198);
    assert_eq!(percentile(&values, 100), 200);
    assert_eq!(percentile(&[7], 50), 7);
    assert_eq!(percentile(&[], 99), 0);
}

#[test]
fn the_median_lies_between_the_middle_two() {
    assert_eq!(Spread::of([3.0, 1.0, 2.0]), Some(Spread { median: 2.0, min: 1.0, max: 3.0 }));
    assert_eq!(Spread::of([4.0, 1.0]), Some(Spread { median: 2.5, min: 1.0, max: 4.0 }));
    assert_eq!(Spread::of([]), None);
}

#[test]
fn a_spread_is_shown_only_when_runs_differ() {
    assert_eq!(Spread { median: 2.5, min: 1.0, max: 41.26 }.to_string(), "2.50 (1.00–41.3)");
    assert_eq!(Spread { median: 1204.4, min: 1204.3, max: 1204.4 }.to_string(), "1204");
    assert_eq!(short(0.034), "0.034");
}
