use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// A rate above this is cut to it, so that no sum of squares can overflow.
const RATE_MAX: f64 = 1e12;

/// The newest steps of a series, without holes: an unknown step is filled with the same phase of the season before,
/// else with the step before, which uses nothing from its future.
///
/// Starts with the first known value; the oldest steps leave when it is full.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(from = "Saved")]
pub(super) struct History {
    newest_step: i64,
    capacity: usize,
    season: usize,
    cells: VecDeque<Cell>,
    /// The newest of these steps that was observed; follows from the cells.
    #[serde(skip_serializing)]
    newest_known_step: Option<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Cell {
    value: f64,
    known: bool,
    /// Sum of all values up to this one, so that a mean over any window is one subtraction.
    total: f64,
}

/// Returns a rate to compute with: not finite is unknown, negative is zero.
pub(super) fn clean(value: Option<f64>) -> Option<f64> {
    value.filter(|value| value.is_finite()).map(|value| value.clamp(0.0, RATE_MAX))
}

impl History {
    /// An empty history, `newest_step` being the last step that is over.
    pub(super) fn new(newest_step: i64, capacity: usize, season: usize) -> Self {
        Self { newest_step, capacity, season, cells: VecDeque::new(), newest_known_step: None }
    }

    pub(super) fn newest_step(&self) -> i64 {
        self.newest_step
    }

    pub(super) fn len(&self) -> usize {
        self.cells.len()
    }

    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    pub(super) fn season(&self) -> usize {
        self.season
    }

    pub(super) fn oldest_step(&self) -> i64 {
        self.newest_step - self.cells.len() as i64 + 1
    }

    /// Appends the step after the newest one.
    pub(super) fn push(&mut self, value: Option<f64>) {
        let total = self.cells.back().map_or(0.0, |cell| cell.total);
        let known = value.is_some();
        let value = value.or_else(|| self.fill());
        self.newest_step += 1;
        let Some(value) = value else { return };
        if known {
            self.newest_known_step = Some(self.newest_step);
        }
        if self.cells.len() == self.capacity {
            self.cells.pop_front();
        }
        self.cells.push_back(Cell { value, known, total: total + value });
        let oldest_step = self.oldest_step();
        self.newest_known_step = self.newest_known_step.filter(|step| *step >= oldest_step);
    }

    /// Forgets everything, and goes on at `newest_step`.
    pub(super) fn restart(&mut self, newest_step: i64) {
        self.cells.clear();
        self.newest_known_step = None;
        self.newest_step = newest_step;
    }

    /// Returns the value of a step, filled where it was unknown; `None` outside the history.
    pub(super) fn value(&self, step: i64) -> Option<f64> {
        self.cell(step).map(|cell| cell.value)
    }

    /// Returns the value of a step that was observed.
    pub(super) fn known(&self, step: i64) -> Option<f64> {
        self.cell(step).filter(|cell| cell.known).map(|cell| cell.value)
    }

    /// Returns the newest observed value.
    pub(super) fn last_known(&self) -> Option<f64> {
        self.value(self.newest_known_step?)
    }

    /// Returns the mean of up to `steps` steps, the last of them `newest`, as far as the history reaches.
    pub(super) fn mean(&self, newest: i64, steps: usize) -> Option<f64> {
        let end = self.cell(newest)?;
        let oldest = (newest - steps as i64 + 1).max(self.oldest_step());
        let start = self.cell(oldest)?;
        let count = (newest - oldest + 1) as f64;
        // The difference of two large sums can fall below zero by rounding.
        Some(((end.total - start.total + start.value) / count).max(0.0))
    }

    /// Returns mean and maximum of the observed values.
    pub(super) fn known_mean_and_max(&self) -> Option<(f64, f64)> {
        let mut count = 0.0;
        let (mut sum, mut max) = (0.0, 0.0_f64);
        for cell in self.cells.iter().filter(|cell| cell.known) {
            count += 1.0;
            sum += cell.value;
            max = max.max(cell.value);
        }
        (count > 0.0).then(|| (sum / count, max))
    }

    /// What to take for the step after the newest one.
    fn fill(&self) -> Option<f64> {
        let season_before = self.value(self.newest_step + 1 - self.season as i64);
        season_before.or_else(|| self.cells.back().map(|cell| cell.value))
    }

    fn cell(&self, step: i64) -> Option<&Cell> {
        let age = usize::try_from(self.newest_step.checked_sub(step)?).ok()?;
        let index = self.cells.len().checked_sub(age + 1)?;
        self.cells.get(index)
    }
}

/// A history as it is saved.
#[derive(Deserialize)]
struct Saved {
    newest_step: i64,
    capacity: usize,
    season: usize,
    cells: VecDeque<Cell>,
}

impl From<Saved> for History {
    fn from(saved: Saved) -> Self {
        let Saved { newest_step, capacity, season, cells } = saved;
        let age = cells.iter().rev().position(|cell| cell.known);
        let newest_known_step = age.and_then(|age| newest_step.checked_sub(age as i64));
        Self { newest_step, capacity, season, cells, newest_known_step }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_known_value_lasts_until_it_leaves() {
        let mut history = History::new(0, 4, 2);
        for (value, last_known) in [
            (None, None),
            (Some(1.0), Some(1.0)),
            (Some(2.0), Some(2.0)),
            (None, Some(2.0)),
            (None, Some(2.0)),
            (None, Some(2.0)),
            (None, None),
            (Some(3.0), Some(3.0)),
            (None, Some(3.0)),
        ] {
            history.push(value);
            assert_eq!(history.last_known(), last_known, "step {}", history.newest_step());
            let saved = serde_json::to_string(&history).unwrap();
            let resumed: History = serde_json::from_str(&saved).unwrap();
            assert_eq!(resumed, history);
        }
        history.restart(50);
        assert_eq!(history.last_known(), None);
    }

    #[test]
    fn fills_with_the_season_before_else_with_the_step_before() {
        let mut history = History::new(99, 8, 3);
        for value in [None, Some(1.0), None, Some(3.0), None, None, Some(9.0)] {
            history.push(value);
        }
        assert_eq!(history.newest_step(), 106);
        assert_eq!(history.oldest_step(), 101);
        let values: Vec<_> = (100..=107).map(|step| history.value(step)).collect();
        let expected = [None, Some(1.0), Some(1.0), Some(3.0), Some(1.0), Some(1.0), Some(9.0), None];
        assert_eq!(values, expected);
        assert_eq!(history.known(104), None);
        assert_eq!(history.last_known(), Some(9.0));
        assert_eq!(history.mean(106, 3), Some(11.0 / 3.0));
        assert_eq!(history.known_mean_and_max(), Some((13.0 / 3.0, 9.0)));
    }

    #[test]
    fn keeps_the_newest_and_takes_means_as_far_as_it_reaches() {
        let mut history = History::new(0, 4, 2);
        for value in 1..=10 {
            history.push(Some(f64::from(value)));
        }
        assert_eq!(history.len(), 4);
        assert_eq!(history.value(6), None);
        assert_eq!(history.value(7), Some(7.0));
        assert_eq!(history.mean(10, 100), Some(8.5));
        assert_eq!(history.mean(11, 2), None);
    }
}
