use serde::{Deserialize, Serialize};

use super::Iteration;

/// Parameters: of an iteration, a sequence, a prompt token, a token in the cache, and a squared sequence. The last one is
/// there because large batches cost more than in proportion.
pub(super) const TERMS: usize = 5;
/// Sizes that these have in a plausible engine, seconds: the fit is in these units.
const UNITS: [f64; TERMS] = [0.01, 2e-4, 5e-5, 1e-7, 2e-6];
/// What the fit starts from, in units.
const START: [f64; TERMS] = [1.0, 1.0, 1.0, 1.0, 0.0];
/// How many observations that counts for: little, but nothing stays undetermined.
const START_WEIGHTS: [f64; TERMS] = [0.01, 0.01, 0.01, 0.01, 0.1];
/// What is known in the direction of an observation loses this with it (half after about 350). Other directions keep
/// what they have, so that an even load makes nothing unknown.
const FORGETTING: f64 = 0.998;
/// An observation counts for no more than if it were this long, in units.
const LONGEST_ROW: f64 = 30.0;
/// Bound of all that is known, in observations.
const MOST_INFORMATION: f64 = 1e4;
/// Bounds of how far all is from the units.
const LEVELS: (f64, f64) = (-6.0, 9.0);

pub(super) type Vector = [f64; TERMS];
pub(super) type Matrix = [[f64; TERMS]; TERMS];

/// What observations say of the parameters: normal equations of relative errors, with forgetting. It has no inverse and
/// divides by no pivot; whatever it does not tell is filled in when it is [solved](solve).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Fit {
    information: Matrix,
    moment: Vector,
    /// Observations, by weight.
    pub(super) observations: f64,
    /// Logarithm of how many times slower than the units it is, in the mean.
    level: f64,
    /// The largest batch, slowly forgotten.
    pub(super) largest_batch: f64,
}

/// What is believed before any observation, and how strongly.
#[derive(Clone, Copy, Debug)]
pub(super) struct Prior {
    pub(super) mean: Vector,
    pub(super) information: Matrix,
}

impl Prior {
    /// Knowing nothing but how fast it is on the whole.
    pub(super) fn start(level: f64) -> Self {
        let scale = level.clamp(LEVELS.0, LEVELS.1).exp();
        let mut information = Matrix::default();
        for (index, row) in information.iter_mut().enumerate() {
            row[index] = START_WEIGHTS[index] / (scale * scale);
        }
        Self { mean: START.map(|value| scale * value), information }
    }
}

/// What an iteration is made of, in units per `seconds`.
pub(super) fn row(iteration: &Iteration, seconds: f64) -> Vector {
    let Iteration { sequences, prompt_tokens, resident_tokens, .. } = *iteration;
    let parts = [1.0, sequences, prompt_tokens, resident_tokens, sequences * sequences];
    let mut row = UNITS;
    row.iter_mut().zip(parts).for_each(|(unit, part)| *unit *= part / seconds);
    row
}

/// Seconds that an iteration takes by these parameters.
pub(super) fn predict(parameters: &Vector, iteration: &Iteration) -> f64 {
    dot(parameters, &row(iteration, 1.0)).max(1e-5)
}

/// Seconds per iteration, sequence, prompt token and token in the cache. The part that grows with the square becomes the
/// slope up to `batch`.
pub(super) fn in_seconds(parameters: &Vector, batch: f64) -> [f64; 4] {
    let part = |index: usize| parameters[index] * UNITS[index];
    [part(0), part(1) + part(4) * batch, part(2), part(3)]
}

impl Fit {
    /// Takes an iteration that took `seconds`; errors are relative to `expected_seconds`.
    pub(super) fn observe(&mut self, iteration: &Iteration, seconds: f64, expected_seconds: f64) {
        let mut row = row(iteration, expected_seconds);
        let mut value = seconds / expected_seconds;
        let too_long = (dot(&row, &row).sqrt() / LONGEST_ROW).max(1.0);
        row.iter_mut().for_each(|cell| *cell /= too_long);
        value /= too_long;
        self.forget_towards(&row);
        for (index, cell) in row.iter().enumerate() {
            for (other, known) in self.information[index].iter_mut().enumerate() {
                *known += iteration.weight * cell * row[other];
            }
            self.moment[index] += iteration.weight * cell * value;
        }
        self.observations = (self.observations + iteration.weight).min(1e9);
        let log_ratio = (seconds / predict(&START, iteration)).ln().clamp(LEVELS.0, LEVELS.1);
        self.level += (log_ratio - self.level) * iteration.weight / self.observations.clamp(1.0, 50.0);
        let kept = 0.5_f64.powf(iteration.interval_seconds / 1800.0);
        self.largest_batch = (kept * self.largest_batch).max(iteration.sequences);
        self.stay_bounded();
    }

    /// Takes a part off what is known in the direction of a row; what was found stays as it is.
    fn forget_towards(&mut self, row: &Vector) {
        let along = times(&self.information, row);
        let known = dot(&along, row);
        if known <= 1e-9 {
            return;
        }
        let part = (1.0 - FORGETTING) / known;
        let moment = dot(row, &self.moment);
        for (index, cell) in along.iter().enumerate() {
            for (other, value) in self.information[index].iter_mut().enumerate() {
                *value -= part * cell * along[other];
            }
            self.moment[index] -= part * cell * moment;
        }
    }

    fn stay_bounded(&mut self) {
        let trace: f64 = (0..TERMS).map(|index| self.information[index][index].max(0.0)).sum();
        if trace > MOST_INFORMATION {
            self.weaken(MOST_INFORMATION / trace);
        }
        let cells = self.information.iter().flatten().chain(&self.moment);
        if !cells.chain([&self.level, &self.largest_batch]).all(|cell| cell.is_finite()) {
            *self = Self::default();
        }
    }

    fn weaken(&mut self, part: f64) {
        self.information.iter_mut().flatten().for_each(|cell| *cell *= part);
        self.moment.iter_mut().for_each(|cell| *cell *= part);
    }

    /// From now on everything takes `times` as long as was seen; of what was seen, a tenth is left.
    pub(super) fn slow_down(&mut self, times: f64) {
        self.information.iter_mut().flatten().for_each(|cell| *cell /= times * times);
        self.moment.iter_mut().for_each(|cell| *cell /= times);
        self.weaken(0.1);
        self.observations *= 0.1;
        self.level += times.ln();
        self.stay_bounded();
    }

    /// What is believed where only the speed as a whole is known.
    pub(super) fn prior(&self) -> Prior {
        Prior::start(self.level)
    }

    /// For how many observations what is known counts, where these parameters are right.
    pub(super) fn weight(&self, parameters: &Vector) -> f64 {
        dot(&times(&self.information, parameters), parameters)
    }

    pub(super) fn level(&self) -> f64 {
        self.level
    }

    pub(super) fn information(&self) -> &Matrix {
        &self.information
    }

    /// All that is known together.
    pub(super) fn with(&self, prior: &Prior) -> (Matrix, Vector) {
        let mut moment = times(&prior.information, &prior.mean);
        moment.iter_mut().zip(self.moment).for_each(|(sum, own)| *sum += own);
        let mut information = prior.information;
        add(&mut information, &self.information, 1.0);
        (information, moment)
    }

    /// Adds what another one knows, with a weight.
    pub(super) fn add(&mut self, other: &Self, weight: f64) {
        add(&mut self.information, &other.information, weight);
        self.moment.iter_mut().zip(other.moment).for_each(|(sum, cell)| *sum += weight * cell);
        self.observations += weight * other.observations;
        self.largest_batch = self.largest_batch.max(other.largest_batch);
        self.stay_bounded();
    }

    pub(super) fn set_level(&mut self, level: f64) {
        self.level = level;
    }

    /// All numbers, in a fixed order.
    pub(super) fn cells(&self) -> impl Iterator<Item = f64> {
        self.information
            .iter()
            .flatten()
            .chain(&self.moment)
            .chain([&self.observations, &self.level])
            .copied()
    }
}

/// The parameters, none below 0, that fit best: least squares over each set of parameters that may be above 0, of which there
/// are few. None where the numbers allow no answer.
pub(super) fn solve(information: &Matrix, moment: &Vector) -> Option<Vector> {
    let all = (1 << TERMS) - 1;
    let is_feasible = |found: &Vector| found.iter().all(|value| *value >= 0.0 && value.is_finite());
    let best = least_squares(information, moment, all);
    if let Some(best) = best.filter(is_feasible) {
        return Some(best);
    }
    let subsets = (1..all).filter_map(|subset| least_squares(information, moment, subset));
    // What a set leaves of the sum of squares falls with this product.
    let explained = |found: &Vector| dot(found, moment);
    subsets.filter(is_feasible).max_by(|left, right| explained(left).total_cmp(&explained(right)))
}

/// Variance of what a row predicts, in that of one observation.
pub(super) fn leverage(information: &Matrix, row: &Vector) -> f64 {
    let solved = least_squares(information, row, (1 << TERMS) - 1);
    solved.map_or(f64::MAX, |solved| dot(&solved, row)).clamp(0.0, 1e6)
}

/// Solves the equations for the parameters of a set, the others being 0, by Cholesky's method on equations scaled to ones on the
/// diagonal.
fn least_squares(information: &Matrix, moment: &Vector, subset: usize) -> Option<Vector> {
    const LEAST_PIVOT: f64 = 1e-12;
    let mut terms = [0; TERMS];
    let mut count = 0;
    for term in (0..TERMS).filter(|term| subset >> term & 1 == 1) {
        terms[count] = term;
        count += 1;
    }
    let terms = &terms[..count];
    let mut scale = Vector::default();
    for (scale, term) in scale.iter_mut().zip(terms) {
        *scale = information[*term][*term].sqrt();
        if !(*scale > 1e-150 && scale.is_finite()) {
            return None;
        }
    }
    let mut factor = Matrix::default();
    let mut found = Vector::default();
    for row in 0..terms.len() {
        for column in 0..=row {
            let before: f64 = (0..column).map(|index| factor[row][index] * factor[column][index]).sum();
            let cell = information[terms[row]][terms[column]] / (scale[row] * scale[column]) - before;
            if row > column {
                factor[row][column] = cell / factor[column][column];
            } else if cell > LEAST_PIVOT {
                factor[row][row] = cell.sqrt();
            } else {
                return None;
            }
        }
        let before: f64 = (0..row).map(|index| factor[row][index] * found[index]).sum();
        found[row] = (moment[terms[row]] / scale[row] - before) / factor[row][row];
    }
    for row in (0..terms.len()).rev() {
        let after: f64 = (row + 1..terms.len()).map(|index| factor[index][row] * found[index]).sum();
        found[row] = (found[row] - after) / factor[row][row];
    }
    let mut result = Vector::default();
    for (index, term) in terms.iter().enumerate() {
        result[*term] = found[index] / scale[index];
    }
    Some(result)
}

fn dot(left: &Vector, right: &Vector) -> f64 {
    left.iter().zip(right).map(|(left, right)| left * right).sum()
}

fn times(matrix: &Matrix, vector: &Vector) -> Vector {
    let mut product = Vector::default();
    product.iter_mut().zip(matrix).for_each(|(cell, row)| *cell = dot(row, vector));
    product
}

pub(super) fn add(sum: &mut Matrix, other: &Matrix, weight: f64) {
    sum.iter_mut().flatten().zip(other.iter().flatten()).for_each(|(sum, cell)| *sum += weight * cell);
}
