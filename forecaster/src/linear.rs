use linfa::Dataset;
use linfa::traits::Fit;
use linfa_linalg::cholesky::CholeskyInplace;
use linfa_linear::LinearRegression;
use ndarray::{Array1, Array2, Axis, s};
use serde::{Deserialize, Serialize};

/// Standard deviations beyond which a feature is cut: one burst must not carry a whole prediction.
const CLIP: f64 = 6.0;

/// Below this spread a feature is constant and left out.
const CONSTANT: f64 = 1e-9;

/// Residuals below this count alike in the reweighting, in units of the (logarithmic) target.
const SMALL_RESIDUAL: f64 = 0.02;

/// Passes of reweighting at most, for each level.
const PASSES: usize = 12;

/// A pass that moves no prediction by more than this, in units of the target, is the last.
const SETTLED: f64 = 0.002;

/// Keeps the factorisation away from zero where the penalty does not, as part of the weight of all rows.
const JITTER: f64 = 1e-10;

/// Linear quantile regressions with a ridge penalty on the same standardised features, one for each level.
///
/// A quantile regression is reached by iteratively reweighted least squares: weights `level / |residual|` above the
/// line and `(1 - level) / |residual|` below it (Schlossmacher 1973 for the median), each pass one least-squares fit
/// by linfa. A least-squares fit sees its rows only through their products, so each pass hands linfa the triangular
/// factor of `XᵀWX + ridge`, which has as many rows as columns and the same solution, instead of thousands of rows.
///
/// A feature that is NaN is unknown and counts as its mean.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct LinearFit {
    columns: Vec<Column>,
    lines: Vec<Line>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Column {
    mean: f32,
    deviation: f32,
    low: f32,
    high: f32,
}

/// One level's intercept and coefficients, by column.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Line {
    intercept: f32,
    coefficients: Vec<f32>,
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

    pub(crate) fn width(&self) -> usize {
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
            return Self { mean: 0.0, deviation: 0.0, low: 0.0, high: 0.0 };
        }
        let mean = known().map(|(value, weight)| value * weight).sum::<f64>() / total;
        let variance = known().map(|(value, weight)| (value - mean).powi(2) * weight).sum::<f64>() / total;
        let low = known().map(|(value, _)| *value).fold(mean, f64::min);
        let high = known().map(|(value, _)| *value).fold(mean, f64::max);
        Self { mean: mean as f32, deviation: variance.sqrt() as f32, low: low as f32, high: high as f32 }
    }

    fn standardise(&self, value: f64) -> f64 {
        let deviation = f64::from(self.deviation);
        if !value.is_finite() || deviation < CONSTANT {
            return 0.0;
        }
        ((value - f64::from(self.mean)) / deviation).clamp(-CLIP, CLIP)
    }

    fn held_inside(&self, value: f64) -> f64 {
        if value.is_finite() { value.clamp(self.low.into(), self.high.into()) } else { value }
    }
}

impl LinearFit {
    /// Fits the median of the rows with `ridge` as penalty per row; `None` when there are no rows or no solution.
    pub(crate) fn fit(rows: &Rows, ridge: f64) -> Option<Self> {
        Self::fit_levels(rows, ridge, &[0.5])
    }

    /// Fits several quantiles, each by itself, beginning with the solution of the nearest level that came before it:
    /// the median goes first.
    pub(crate) fn fit_levels(rows: &Rows, ridge: f64, levels: &[f64]) -> Option<Self> {
        let (count, width) = (rows.len(), rows.width());
        if count == 0 || width == 0 {
            return None;
        }
        let columns: Vec<Column> = (0..width).map(|index| Column::measure(rows, index, width)).collect();
        let mut design = Design::new(rows, &columns, ridge);
        let mean = design.least_squares(&rows.weights)?;
        let mut solutions: Vec<Vec<f64>> = Vec::with_capacity(levels.len());
        for (i, &level) in levels.iter().enumerate() {
            let distance = |&near: &usize| (levels[near] - level).abs();
            let nearest = (0..i).min_by(|a, b| distance(a).total_cmp(&distance(b)));
            let start = nearest.map_or(&mean, |near| &solutions[near]);
            solutions.push(design.reweight(rows, level, start.clone())?);
        }
        Some(Self { columns, lines: solutions.iter().map(|solution| Line::new(solution)).collect() })
    }

    /// Predicts the first level for one row of as many features as were fitted, each held inside the range met in
    /// training, so that nothing is extrapolated.
    pub(crate) fn predict(&self, features: &[f64]) -> f64 {
        let inside = features.iter().zip(&self.columns).map(|(value, column)| column.held_inside(*value));
        let standard = self.standardise(inside);
        self.lines.first().map_or(f64::NAN, |line| line.at(&standard))
    }

    /// Predicts every level for one row of as many features as were fitted.
    pub(crate) fn predict_levels(&self, features: &[f64]) -> Vec<f64> {
        let standard = self.standardise(features.iter().copied());
        self.lines.iter().map(|line| line.at(&standard)).collect()
    }

    fn standardise(&self, features: impl Iterator<Item = f64>) -> Vec<f64> {
        features.zip(&self.columns).map(|(value, column)| column.standardise(value)).collect()
    }

    /// Returns how many features a row has.
    pub(crate) fn width(&self) -> usize {
        self.columns.len()
    }

    /// Returns whether it can be computed with, for rows of any `width`: a saved state may be anything.
    pub(crate) fn is_sound(&self) -> bool {
        let width = self.width();
        self.columns.iter().all(|column| column.low <= column.high)
            && self.lines.iter().all(|line| line.coefficients.len() == width)
            && !self.lines.is_empty()
    }
}

impl Line {
    fn new(solution: &[f64]) -> Self {
        let (coefficients, intercept) = solution.split_at(solution.len() - 1);
        let coefficients = coefficients.iter().map(|value| *value as f32).collect();
        Self { intercept: intercept[0] as f32, coefficients }
    }

    fn at(&self, standard: &[f64]) -> f64 {
        let products = standard.iter().zip(&self.coefficients).map(|(value, by)| value * f64::from(*by));
        f64::from(self.intercept) + products.sum::<f64>()
    }
}

/// Standardised rows as least squares wants them.
struct Design {
    /// `[features | 1 | target]` by row.
    table: Array2<f64>,
    /// The same, each row times the root of its weight.
    weighted: Array2<f64>,
    ridge: f64,
}

impl Design {
    fn new(rows: &Rows, columns: &[Column], ridge: f64) -> Self {
        let width = columns.len();
        let mut table = Array2::ones((rows.len(), width + 2));
        for (i, row) in rows.features.chunks_exact(width).enumerate() {
            for ((value, column), cell) in row.iter().zip(columns).zip(table.row_mut(i)) {
                *cell = column.standardise(*value);
            }
            table[[i, width + 1]] = rows.targets[i];
        }
        Self { weighted: table.clone(), table, ridge }
    }

    /// Improves a solution until it is that of the quantile, or the passes are used up.
    fn reweight(&mut self, rows: &Rows, level: f64, mut solution: Vec<f64>) -> Option<Vec<f64>> {
        let mut residuals = self.residuals(&solution);
        for _ in 0..PASSES {
            let weights = residuals.iter().zip(&rows.weights).map(|(residual, weight)| {
                let side = if *residual > 0.0 { level } else { 1.0 - level };
                weight * side / residual.abs().max(SMALL_RESIDUAL)
            });
            solution = self.least_squares(&weights.collect::<Vec<f64>>())?;
            let moved = self.residuals(&solution);
            let most = moved.iter().zip(&residuals).map(|(new, old)| (new - old).abs()).fold(0.0, f64::max);
            residuals = moved;
            if most < SETTLED {
                break;
            }
        }
        Some(solution)
    }

    fn residuals(&self, solution: &[f64]) -> Array1<f64> {
        let width = solution.len() - 1;
        let lines = self.table.slice(s![.., ..=width]).dot(&Array1::from(solution.to_vec()));
        &self.table.column(width + 1) - &lines
    }

    /// One weighted ridge fit; returns the coefficients, then the intercept, which is not penalised.
    fn least_squares(&mut self, weights: &[f64]) -> Option<Vec<f64>> {
        let total: f64 = weights.iter().sum();
        for ((into, from), weight) in
            self.weighted.axis_iter_mut(Axis(0)).zip(self.table.axis_iter(Axis(0))).zip(weights)
        {
            let root = (weight / total).sqrt();
            into.into_iter().zip(from).for_each(|(into, from)| *into = root * from);
        }
        let mut products = self.weighted.t().dot(&self.weighted);
        let size = products.nrows();
        for i in 0..size {
            products[[i, i]] += if i < size - 2 { self.ridge } else { JITTER };
        }
        let factor = products.cholesky_into().ok()?.reversed_axes();
        let records = factor.slice(s![.., ..size - 1]).to_owned();
        let targets = factor.column(size - 1).to_owned();
        let fit = LinearRegression::new().with_intercept(false).fit(&Dataset::new(records, targets)).ok()?;
        fit.params().iter().all(|value| value.is_finite()).then(|| fit.params().to_vec())
    }
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
        assert!((fit.predict(&[f64::NAN, 0.0, 4.0]) - fit.predict(&[mean, 0.0, 4.0])).abs() < 1e-6);
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
    fn a_level_has_its_share_of_rows_below() {
        let mut rows = Rows::default();
        for i in 0..4000_u32 {
            let (x, noise) = (f64::from(i % 40), f64::from(i * 7919 % 3989) / 3989.0);
            rows.push(&[x], 0.1 * x + noise * (1.0 + 0.1 * x), 1.0);
        }
        let levels = [0.5, 0.9, 0.95, 0.1];
        let fit = LinearFit::fit_levels(&rows, 1e-6, &levels).unwrap();
        let mut below = [0.0; 4];
        for (row, target) in rows.features.iter().zip(&rows.targets) {
            let predicted = fit.predict_levels(&[*row]);
            below
                .iter_mut()
                .zip(predicted)
                .for_each(|(sum, line)| *sum += f64::from(*target <= line) / 4000.0);
        }
        for (share, level) in below.into_iter().zip(levels) {
            assert!((share - level).abs() < 0.03, "{share} below the line of {level}");
        }
    }

    #[test]
    fn nothing_to_learn_from_is_no_fit() {
        assert_eq!(LinearFit::fit(&Rows::default(), 1e-3), None);
    }
}
