use serde::{Deserialize, Serialize};

/// The levels of every [`Quantiles`], ascending.
pub const QUANTILES: [f64; 5] = [0.1, 0.5, 0.9, 0.95, 0.99];

/// Five quantiles of a rate, at the levels of [`QUANTILES`]: finite, not negative and not crossing.
///
/// ```
/// use clairvoy_forecaster::Quantiles;
///
/// let q = Quantiles::new([1.0, 2.0, 4.0, 3.0, f64::NAN]);
/// assert_eq!(q.values(), [1.0, 2.0, 4.0, 4.0, 4.0]);
/// assert_eq!(q.at(0.7), 3.0);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(from = "[f64; 5]", into = "[f64; 5]")]
pub struct Quantiles([f64; 5]);

impl Quantiles {
    /// Makes five values lawful: one that is negative or not finite becomes zero, then each is raised to the
    /// one before it.
    pub fn new(values: [f64; 5]) -> Self {
        let mut floor = 0.0;
        Self(values.map(|value| {
            if value.is_finite() {
                floor = f64::max(floor, value);
            }
            floor
        }))
    }

    /// Returns the values in the order of [`QUANTILES`].
    pub fn values(&self) -> [f64; 5] {
        self.0
    }

    /// Returns the value that one outcome in ten stays below.
    pub fn q10(&self) -> f64 {
        self.0[0]
    }

    /// Returns the median.
    pub fn q50(&self) -> f64 {
        self.0[1]
    }

    /// Returns the median; the same as [`q50`](Self::q50).
    pub fn median(&self) -> f64 {
        self.0[1]
    }

    /// Returns the value that nine outcomes in ten stay below.
    pub fn q90(&self) -> f64 {
        self.0[2]
    }

    /// Returns the 0.95 quantile.
    pub fn q95(&self) -> f64 {
        self.0[3]
    }

    /// Returns the 0.99 quantile.
    pub fn q99(&self) -> f64 {
        self.0[4]
    }

    /// Returns the quantile at `level`, on straight lines between the five; outside 0.1 to 0.99 the outermost.
    pub fn at(&self, level: f64) -> f64 {
        let above = QUANTILES.iter().position(|&known| level <= known).unwrap_or(QUANTILES.len() - 1);
        if above == 0 || level >= QUANTILES[above] {
            return self.0[above];
        }
        let part = (level - QUANTILES[above - 1]) / (QUANTILES[above] - QUANTILES[above - 1]);
        self.0[above - 1] + part * (self.0[above] - self.0[above - 1])
    }

    /// Returns the forecast between two points of time: `part` 0 is `self`, 1 is `other`.
    pub fn between(&self, other: &Self, part: f64) -> Self {
        let part = if part.is_finite() { part.clamp(0.0, 1.0) } else { 0.0 };
        Self::new(std::array::from_fn(|i| self.0[i] * (1.0 - part) + other.0[i] * part))
    }
}

impl From<[f64; 5]> for Quantiles {
    fn from(values: [f64; 5]) -> Self {
        Self::new(values)
    }
}

impl From<Quantiles> for [f64; 5] {
    fn from(quantiles: Quantiles) -> Self {
        quantiles.0
    }
}

/// Returns the `level` quantile of ascending values at position `(n + 1) level`, which is what split conformal
/// prediction asks for (Vovk et al., *Algorithmic Learning in a Random World*); `None` without values.
pub(crate) fn empirical(ascending: &[f64], level: f64) -> Option<f64> {
    let last = ascending.len().checked_sub(1)?;
    let position = ((ascending.len() + 1) as f64 * level - 1.0).clamp(0.0, last as f64);
    let below = position.floor() as usize;
    let above = (below + 1).min(last);
    Some(ascending[below] + (position - below as f64) * (ascending[above] - ascending[below]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interpolates_between_levels_and_stops_at_the_ends() {
        let q = Quantiles::new([10.0, 50.0, 90.0, 95.0, 99.0]);
        for level in [0.1, 0.37, 0.5, 0.93, 0.99] {
            assert!((q.at(level) - 100.0 * level).abs() < 1e-9, "{level}");
        }
        assert_eq!(q.at(0.0), 10.0);
        assert_eq!(q.at(1.0), 99.0);
    }

    #[test]
    fn a_point_between_two_forecasts_is_between_them() {
        let early = Quantiles::new([0.0, 2.0, 4.0, 4.0, 8.0]);
        let late = Quantiles::new([2.0, 4.0, 8.0, 8.0, 8.0]);
        assert_eq!(early.between(&late, 0.5).values(), [1.0, 3.0, 6.0, 6.0, 8.0]);
        assert_eq!(early.between(&late, 7.0), late);
    }

    #[test]
    fn empirical_quantiles_use_the_conformal_position() {
        let values: Vec<f64> = (1..=9).map(f64::from).collect();
        assert_eq!(empirical(&values, 0.5), Some(5.0));
        assert_eq!(empirical(&values, 0.9), Some(9.0));
        assert_eq!(empirical(&values, 0.99), Some(9.0));
        assert_eq!(empirical(&[], 0.5), None);
    }
}
