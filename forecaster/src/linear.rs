use linfa::Dataset;
use linfa::traits::Fit;
use linfa_linear::LinearRegression;
use ndarray::{Array1, Array2};
use serde::{Deserialize, Serialize};

/// Standard deviations beyond which a feature is cut: one burst must not carry a whole prediction.
const CLIP: f64 = 6.0;

/// Below this spread a feature is constant and left out.
const CONSTANT: f64 = 1e-9;

/// Residuals below this count alike in the reweighting, in units of the (logarithmic) target.
const SMALL_RESIDUAL: f64 = 0.02;

/// Passes of reweighting after the plain fit; more change the coefficients by less than their noise.
const PASSES: usize = 5;

/// A linear regression of least absolute deviations with a ridge penalty, on standardised features.
///
/// Least absolute deviations are reached by iteratively reweighted least squares (weights `1 / |residual|`;
/// Schlossmacher 1973), each pass one least-squares fit. The ridge is made of one extra row per feature, whose
/// least squares are those of the penalised problem (Hastie et al., *The Elements of Statistical Learning*,
/// exercise 3.12): it is exact, and never singular, however correlated the features are.
///
/// A feature that is NaN is unknown and counts as its mean; when predicting, each feature is held inside the
/// range met in training, so that nothing is extrapolated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct LinearFit {
    intercept: f64,
    columns: Vec<Column>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Column {
    mean: f64,
    deviation: f64,
    low: f64,
    high: f64,
    coefficient: f64,
}

/// Rows to learn from; all of one length.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    features: Vec<f64>,
    targets: Vec<f64>,
    weights: Vec<f64>,
}

impl Rows {
    /// Adds one row: its weight must be positive, its target finite.
    pub(crate) fn push(&mut self, features: &[f64], target: f64, weight: f64) {
        self.features.extend_from_slice(features);
        self.targets.push(target);
        self.weights.push(weight);
    }

    pub(crate) fn len(&self) -> usize {
        self.targets.len()
    }

    fn width(&self) -> usize {
        self.features.len().checked_div(self.len()).unwrap_or(0)
    }
}

impl Column {
    /// Measures column `index` of rows that are `width` wide, over its known values.
    fn measure(rows: &Rows, index: usize, width: usize) -> Self {
        let known = || {
            let values = rows.features.iter().skip(index).step_by(width);
            values.zip(&rows.weights).filter(|(value, _)| value.is_finite())
        };
        let total: f64 = known().map(|(_, weight)| weight).sum();
        if total <= 0.0 {
            return Self { mean: 0.0, deviation: 0.0, low: 0.0, high: 0.0, coefficient: 0.0 };
        }
        let mean = known().map(|(value, weight)| value * weight).sum::<f64>() / total;
        let variance = known().map(|(value, weight)| (value - mean).powi(2) * weight).sum::<f64>() / total;
        let low = known().map(|(value, _)| *value).fold(mean, f64::min);
        let high = known().map(|(value, _)| *value).fold(mean, f64::max);
        Self { mean, deviation: variance.sqrt(), low, high, coefficient: 0.0 }
    }

    fn standardise(&self, value: f64) -> f64 {
        if !value.is_finite() || self.deviation < CONSTANT {
            return 0.0;
        }
        ((value - self.mean) / self.deviation).clamp(-CLIP, CLIP)
    }
}

impl LinearFit {
    /// Fits the rows with `ridge` as penalty per row; `None` when there are no rows or the solver gives up.
    pub(crate) fn fit(rows: &Rows, ridge: f64) -> Option<Self> {
        let (count, width) = (rows.len(), rows.width());
        if count == 0 || width == 0 {
            return None;
        }
        let mut columns: Vec<Column> = (0..width).map(|index| Column::measure(rows, index, width)).collect();
        let standard: Vec<f64> = rows
            .features
            .chunks_exact(width)
            .flat_map(|row| row.iter().zip(&columns).map(|(value, column)| column.standardise(*value)))
            .collect();
        let mut weights = rows.weights.clone();
        let mut solution = solve(&standard, &rows.targets, &weights, width, ridge)?;
        for _ in 0..PASSES {
            for (i, row) in standard.chunks_exact(width).enumerate() {
                let residual = (rows.targets[i] - dot(row, &solution)).abs();
                weights[i] = rows.weights[i] / residual.max(SMALL_RESIDUAL);
            }
            solution = solve(&standard, &rows.targets, &weights, width, ridge)?;
        }
        for (column, coefficient) in columns.iter_mut().zip(&solution) {
            column.coefficient = *coefficient;
        }
        Some(Self { intercept: solution[width], columns })
    }

    /// Predicts one row of as many features as were fitted.
    pub(crate) fn predict(&self, features: &[f64]) -> f64 {
        let parts = features.iter().zip(&self.columns).map(|(value, column)| {
            let inside = if value.is_finite() { value.clamp(column.low, column.high) } else { *value };
            column.coefficient * column.standardise(inside)
        });
        self.intercept + parts.sum::<f64>()
    }

    /// Returns how many features a row has.
    pub(crate) fn width(&self) -> usize {
        self.columns.len()
    }

    /// Returns whether it can be computed with: a range read from a saved state may be upside down.
    pub(crate) fn is_sound(&self) -> bool {
        self.columns.iter().all(|column| column.low <= column.high)
    }
}

fn dot(row: &[f64], solution: &[f64]) -> f64 {
    let (coefficients, intercept) = solution.split_at(row.len());
    row.iter().zip(coefficients).map(|(a, b)| a * b).sum::<f64>() + intercept[0]
}

/// One weighted ridge fit; returns the coefficients, then the intercept, which is not penalised.
fn solve(standard: &[f64], targets: &[f64], weights: &[f64], width: usize, ridge: f64) -> Option<Vec<f64>> {
    let count = targets.len();
    let total: f64 = weights.iter().sum();
    let mut records = Array2::zeros((count + width, width + 1));
    let mut values = Array1::zeros(count + width);
    for (i, row) in standard.chunks_exact(width).enumerate() {
        let root = (weights[i] * count as f64 / total).sqrt();
        for (j, value) in row.iter().enumerate() {
            records[[i, j]] = root * value;
        }
        records[[i, width]] = root;
        values[i] = root * targets[i];
    }
    let penalty = (ridge * count as f64).sqrt();
    for j in 0..width {
        records[[count + j, j]] = penalty;
    }
    let fit = LinearRegression::new().with_intercept(false).fit(&Dataset::new(records, values)).ok()?;
    fit.params().iter().all(|value| value.is_finite()).then(|| fit.params().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(outlier: f64) -> Rows {
        let mut rows = Rows::default();
        for i in 0..200_u32 {
            let (a, b) = (f64::from(i % 17), f64::from(i % 5) * 1000.0);
            let target = 3.0 + 0.5 * a - 0.001 * b + if i % 20 == 7 { outlier } else { 0.0 };
            rows.push(&[a, b, 4.0], target, 1.0);
        }
        rows
    }

    #[test]
    fn finds_the_line_on_features_of_any_scale_and_ignores_outliers() {
        for outlier in [0.0, 50.0] {
            let fit = LinearFit::fit(&line(outlier), 1e-6).unwrap();
            let predicted = fit.predict(&[10.0, 2000.0, 4.0]);
            assert!((predicted - 6.0).abs() < 0.05, "{predicted} with outliers of {outlier}");
        }
    }

    #[test]
    fn does_not_extrapolate_and_takes_unknown_for_the_mean() {
        let fit = LinearFit::fit(&line(0.0), 1e-6).unwrap();
        let edge = fit.predict(&[16.0, 0.0, 4.0]);
        assert_eq!(fit.predict(&[1e9, -1e9, 7.0]), edge);
        let mean = line(0.0).features.chunks(3).map(|row| row[0]).sum::<f64>() / 200.0;
        assert!((fit.predict(&[f64::NAN, 0.0, 4.0]) - fit.predict(&[mean, 0.0, 4.0])).abs() < 1e-9);
    }

    #[test]
    fn copies_of_one_feature_are_not_singular() {
        let mut rows = Rows::default();
        for i in 0..50_u32 {
            let x = f64::from(i % 10);
            rows.push(&[x, x, x, f64::NAN], 2.0 * x, 1.0);
        }
        let fit = LinearFit::fit(&rows, 1e-3).unwrap();
        assert!((fit.predict(&[4.0, 4.0, 4.0, 1.0]) - 8.0).abs() < 0.1);
    }

    #[test]
    fn nothing_to_learn_from_is_no_fit() {
        assert_eq!(LinearFit::fit(&Rows::default(), 1e-3), None);
    }
}
