use ndarray::Array2;
use serde::{Deserialize, Serialize};

use super::design::{Design, reweighted, solve};
use super::{Column, Line, LinearFit, Rows};

/// Passes of reweighting for the median; the other quantiles, further from where they begin, need more.
const PASSES_MEDIAN: usize = 5;

/// Quantile regressions of which the first goes on learning between two fits.
///
/// After a fit the products of the reweighted rows are kept. Each new row is added to them, weighted by what the line
/// missed it by, while older rows fade: one pass of reweighting, spread over time. `solve_again` then takes the line
/// through them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct OnlineFit {
    fit: LinearFit,
    ridge: f64,
    /// Upper triangle of `[1 | features | target]ᵀ W [1 | features | target]`, by row.
    products: Vec<f32>,
    total: f64,
    level: f64,
}

impl OnlineFit {
    /// Fits several quantiles, each by itself, beginning with the solution of the nearest level that came before it:
    /// the median goes first. `ridge` is the penalty in parts of the rows' own weights; `passes` of reweighting each,
    /// of which few leave a line between its neighbour's and its own.
    pub(crate) fn fit(rows: &Rows, ridge: f64, levels: &[f64], passes: usize) -> Option<Self> {
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
            let passes = if i == 0 { PASSES_MEDIAN } else { passes };
            solutions.push(design.reweight(rows, level, passes, start, solve)?);
        }
        let level = *levels.first()?;
        let residuals = design.residuals(solutions.first()?);
        let weights = design.weights(rows, level, &residuals);
        let products = pack(&design.products(&weights));
        let lines = solutions.iter().map(|solution| Line::new(solution)).collect();
        Some(Self { fit: LinearFit { columns, lines }, ridge, products, total, level })
    }

    /// Adds a row whose target has become known, and lets all others fade to `keep` of their weight.
    pub(crate) fn learn(&mut self, features: &[f64], target: f64, keep: f64) {
        let line = &self.fit.lines[0];
        let standard = self.fit.standardise(features.iter().copied());
        let weight = reweighted(target - line.at(&standard), self.level);
        let row: Vec<f64> = std::iter::once(1.0).chain(standard).chain([target]).collect();
        self.total = self.total * keep + 1.0;
        let mut cells = self.products.iter_mut();
        for (i, left) in row.iter().enumerate() {
            for (right, cell) in row[i..].iter().zip(&mut cells) {
                *cell = (f64::from(*cell) * keep + weight * left * right) as f32;
            }
        }
    }

    /// Takes the line of the first level through what has been learned; keeps the old one when there is none.
    pub(crate) fn solve_again(&mut self) {
        let size = self.fit.width() + 2;
        if let Some(solution) = solve(unpack(&self.products, size), self.total, self.ridge) {
            self.fit.lines[0] = Line::new(&solution);
        }
    }

    pub(crate) fn lines(&self) -> &LinearFit {
        &self.fit
    }

    /// Lifts every line: what a test takes for a fit gone wrong.
    #[cfg(test)]
    pub(crate) fn lift(&mut self, by: f32) {
        self.fit.lines.iter_mut().for_each(|line| line.intercept += by);
    }

    /// Returns whether it can be computed with: a saved state may be anything.
    pub(crate) fn is_sound(&self) -> bool {
        let size = self.fit.width() + 2;
        self.fit.is_sound() && self.products.len() == size * (size + 1) / 2 && self.total > 0.0
    }
}

fn pack(products: &Array2<f64>) -> Vec<f32> {
    let rows = products.rows().into_iter().enumerate();
    rows.flat_map(|(i, row)| row.iter().skip(i).map(|value| *value as f32).collect::<Vec<_>>()).collect()
}

fn unpack(packed: &[f32], size: usize) -> Array2<f64> {
    let mut products = Array2::zeros((size, size));
    let mut cells = packed.iter();
    for i in 0..size {
        for (j, cell) in (i..size).zip(&mut cells) {
            products[[i, j]] = f64::from(*cell);
            products[[j, i]] = f64::from(*cell);
        }
    }
    products
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_has_its_share_of_rows_below() {
        let mut rows = Rows::default();
        for i in 0..4000_u32 {
            let (x, noise) = (f64::from(i % 40), f64::from(i * 7919 % 3989) / 3989.0);
            rows.push(&[x], 0.1 * x + noise * (1.0 + 0.1 * x), 1.0);
        }
        let levels = [0.5, 0.9, 0.95, 0.1];
        let fit = OnlineFit::fit(&rows, 1e-6, &levels, 12).unwrap();
        let mut below = [0.0; 4];
        for (row, target) in rows.features.iter().zip(&rows.targets) {
            let predicted = fit.lines().predict_levels(&[*row]);
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
    fn goes_on_learning_between_fits() {
        let mut rows = Rows::default();
        (0..400_u32).for_each(|i| rows.push(&[f64::from(i % 20)], 2.0, 1.0));
        let mut fit = OnlineFit::fit(&rows, 1e-3, &[0.5], 0).unwrap();
        for i in 0..1200_u32 {
            let x = f64::from(i % 20);
            fit.learn(&[x], 0.5 * x, 0.98);
            fit.solve_again();
        }
        let predicted = fit.lines().predict_levels(&[12.0]);
        assert!((predicted[0] - 6.0).abs() < 0.1, "{predicted:?}");
        assert!(fit.is_sound());
    }
}
