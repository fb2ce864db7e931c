//! Percentiles of one run, and the spread over runs.

use std::fmt;

/// Returns the smallest of the sorted values that at least `per_cent` of them do not exceed; 0 if there is none.
pub(crate) fn percentile(sorted: &[u64], per_cent: u64) -> u64 {
    let rank = (sorted.len() as u64 * per_cent).div_ceil(100).max(1) as usize;
    sorted.get(rank - 1).or(sorted.last()).copied().unwrap_or(0)
}

/// Median, least and greatest of a figure over the runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// Returns the spread of the values; `None` if there is none.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = match sorted.len() % 2 {
            0 => (sorted[middle - 1] + sorted[middle]) / 2.0,
            _ => sorted[middle],
        };
        Some(Self { median, min, max })
    }
}

/// The median, and the range where the runs differ in what is shown.
impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [median, min, max] = [self.median, self.min, self.max].map(short);
        if min == max { write!(f, "{median}") } else { write!(f, "{median} ({min}–{max})") }
    }
}

/// Returns the number with three digits at most after rounding, or all digits of a large one.
pub(crate) fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 99.95 => format!("{value:.0}"),
        size if size >= 9.995 => format!("{value:.1}"),
        size if size >= 0.0995 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}
