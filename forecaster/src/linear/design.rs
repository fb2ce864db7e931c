use linfa::Dataset;
use linfa::traits::Fit;
use linfa_linalg::cholesky::CholeskyInplace;
use linfa_linear::LinearRegression;
use ndarray::{Array1, Array2, Axis, s};

use super::{Column, Rows};

/// Residuals below this count alike in the reweighting, in units of the (logarithmic) target.
const SMALL_RESIDUAL: f64 = 0.02;

/// A pass that moves no prediction by more than this, in units of the target, is the last.
const SETTLED: f64 = 0.002;

/// Keeps the factorisation away from zero where the penalty does not.
const JITTER: f64 = 1e-9;

/// Standardised rows as least squares wants them.
pub(super) struct Design {
    /// `[1 | features | target]` by row.
    table: Array2<f64>,
    /// The same, each row times the root of its weight.
    weighted: Array2<f64>,
}

impl Design {
    pub(super) fn new(rows: &Rows, columns: &[Column]) -> Self {
        let width = columns.len();
        let mut table = Array2::ones((rows.len(), width + 2));
        for (i, row) in rows.features.chunks_exact(width).enumerate() {
            for ((value, column), cell) in row.iter().zip(columns).zip(table.row_mut(i).iter_mut().skip(1)) {
                *cell = column.standardise(*value);
            }
            table[[i, width + 1]] = rows.targets[i];
        }
        Self { weighted: table.clone(), table }
    }

    /// Improves a solution until it is that of the quantile, or the passes are used up.
    pub(super) fn reweight(
        &mut self,
        rows: &Rows,
        level: f64,
        passes: usize,
        mut solution: Vec<f64>,
        solve: impl Fn(Array2<f64>, f64) -> Option<Vec<f64>>,
    ) -> Option<Vec<f64>> {
        let mut residuals = self.residuals(&solution);
        for _ in 0..passes {
            let weights = self.weights(rows, level, &residuals);
            solution = solve(self.products(&weights), weights.iter().sum())?;
            let moved = self.residuals(&solution);
            let most = moved.iter().zip(&residuals).map(|(new, old)| (new - old).abs()).fold(0.0, f64::max);
            residuals = moved;
            if most < SETTLED {
                break;
            }
        }
        Some(solution)
    }

    /// The weights under which least squares has the solution of the quantile.
    fn weights(&self, rows: &Rows, level: f64, residuals: &Array1<f64>) -> Vec<f64> {
        let weight = |(residual, weight): (&f64, &f64)| {
            let side = if *residual > 0.0 { level } else { 1.0 - level };
            weight * side / residual.abs().max(SMALL_RESIDUAL)
        };
        residuals.iter().zip(&rows.weights).map(weight).collect()
    }

    fn residuals(&self, solution: &[f64]) -> Array1<f64> {
        let width = solution.len();
        let lines = self.table.slice(s![.., ..width]).dot(&Array1::from(solution.to_vec()));
        &self.table.column(width) - &lines
    }

    /// Returns `[1 | features | target]ᵀ W [1 | features | target]`.
    pub(super) fn products(&mut self, weights: &[f64]) -> Array2<f64> {
        for ((into, from), weight) in
            self.weighted.axis_iter_mut(Axis(0)).zip(self.table.axis_iter(Axis(0))).zip(weights)
        {
            let root = weight.sqrt();
            into.into_iter().zip(from).for_each(|(into, from)| *into = root * from);
        }
        self.weighted.t().dot(&self.weighted)
    }
}

/// Solves least squares from its products, by linfa; returns the intercept, which is not penalised, then the
/// coefficients. The penalty is `ridge * total`.
///
/// A least-squares fit sees its rows only through their products: the rows of their triangular factor, as many as
/// there are columns, have the same products and so the same solution as thousands of rows.
pub(super) fn solve(mut products: Array2<f64>, total: f64, ridge: f64) -> Option<Vec<f64>> {
    products /= total;
    let size = products.nrows();
    for i in 0..size {
        products[[i, i]] += if i > 0 && i < size - 1 { ridge } else { JITTER };
    }
    let factor = products.cholesky_into().ok()?.reversed_axes();
    let records = factor.slice(s![.., ..size - 1]).to_owned();
    let targets = factor.column(size - 1).to_owned();
    let fit = LinearRegression::new().with_intercept(false).fit(&Dataset::new(records, targets)).ok()?;
    fit.params().iter().all(|value| value.is_finite()).then(|| fit.params().to_vec())
}
