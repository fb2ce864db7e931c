use serde::{Deserialize, Serialize};

mod design;

use design::{Design, solve};

/// Standard deviations beyond which a feature is cut: one burst must not carry a whole prediction.
const CLIP: f64 = 6.0;

/// Below this spread a feature is constant and left out.
const CONSTANT: f64 = 1e-9;

/// Passes of reweighting at most, for a median by itself.
const PASSES: usize = 12;

/// The same for the first of several levels; the others, further from where they begin, may need more.
const PASSES_FIRST: usize = 5;

/// Linear quantile regressions with a ridge penalty on the same standardised features, one for each level.
///
/// A quantile regression is reached by iteratively reweighted least squares: weights `level / |residual|` above the
/// line and `(1 - level) / |residual|` below it (Schlossmacher 1973 for the median), each pass one least-squares fit
/// by linfa.
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
    /// Measures all columns; `None` without any.
    fn all(rows: &Rows) -> Option<Vec<Self>> {
        let width = rows.width();
        (width > 0).then(|| (0..width).map(|index| Self::measure(rows, index, width)).collect())
    }

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
    /// Fits the median of the rows; `ridge` is the penalty in parts of the reweighted rows. `None` when there are no
    /// rows or no solution.
    pub(crate) fn fit(rows: &Rows, ridge: f64) -> Option<Self> {
        let columns = Column::all(rows)?;
        let mut design = Design::new(rows, &columns);
        let solve = |products, total| solve(products, total, ridge);
        let mean = solve(design.products(&rows.weights), rows.weights.iter().sum())?;
        let median = design.reweight(rows, 0.5, PASSES, mean, solve)?;
        Some(Self { columns, lines: vec![Line::new(&median)] })
    }

    /// Fits several quantiles, each by itself, beginning with the solution of the nearest level that came before it:
    /// the median goes first. `ridge` is the penalty in parts of the rows' own weights; `passes` of reweighting each,
    /// of which few leave a line between its neighbour's and its own.
    pub(crate) fn fit_levels(rows: &Rows, ridge: f64, levels: &[f64], passes: usize) -> Option<Self> {
        let columns = Column::all(rows)?;
        let mut design = Design::new(rows, &columns);
        let total = rows.weights.iter().sum();
        let solve = |products, _| solve(products, total, ridge);
        let mean = solve(design.products(&rows.weights), total)?;
        let mut solutions: Vec<Vec<f64>> = Vec::with_capacity(levels.len());
        for (i, &level) in levels.iter().enumerate() {
            let distance = |&near: &usize| (levels[near] - level).abs();
            let nearest = (0..i).min_by(|a, b| distance(a).total_cmp(&distance(b)));
            let start = nearest.map_or(&mean, |near| &solutions[near]).clone();
            let passes = if i == 0 { PASSES_FIRST } else { passes };
            solutions.push(design.reweight(rows, level, passes, start, solve)?);
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

    /// Lifts every line: what a test takes for a fit gone wrong.
    #[cfg(test)]
    pub(crate) fn lift(&mut self, by: f32) {
        self.lines.iter_mut().for_each(|line| line.intercept += by);
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
    /// From the intercept and the coefficients after it.
    fn new(solution: &[f64]) -> Self {
        let mut values = solution.iter().map(|value| *value as f32);
        Self { intercept: values.next().unwrap_or(0.0), coefficients: values.collect() }
    }

    fn at(&self, standard: &[f64]) -> f64 {
        let products = standard.iter().zip(&self.coefficients).map(|(value, by)| value * f64::from(*by));
        f64::from(self.intercept) + products.sum::<f64>()
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
        let fit = LinearFit::fit_levels(&rows, 1e-6, &levels, 12).unwrap();
        let mut below = [0.0; 4];
        for (row, target) in rows.features.iter().zip(&rows.targets) {
            let predicted = fit.predict_levels(&[*row]);
            below
                .iter_mut()
                .zip(predicted)
                .for_each(|(sum, line)| *sum += f64::from(*target <= line) / 4000.0);
        }
        for (share, level) in below.into_iter().zip(levels) {
            assert!((share - level).abs() < 0.05, "{share} below the line of {level}");
        }
    }

    #[test]
    fn nothing_to_learn_from_is_no_fit() {
        assert_eq!(LinearFit::fit(&Rows::default(), 1e-3), None);
    }
}
