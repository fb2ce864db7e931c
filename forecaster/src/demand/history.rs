use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// A rate above this is cut to it, so that no sum of squares can overflow.
const RATE_MAX: f64 = 1e12;

/// The newest steps of a series, without holes: an unknown step is filled with the same phase of the season before,
/// else with the step before, which uses nothing from its future.
///
/// Starts with the first known value; the oldest steps leave when it is full. Four bytes a step: no rate is negative,
/// so the sign tells which were filled.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(from = "Saved", into = "Saved")]
pub(super) struct History {
    newest_step: i64,
    capacity: usize,
    season: usize,
    /// Rates; those that were filled with their sign turned.
    values: VecDeque<f32>,
    /// The newest of these steps that was observed; follows from the rest.
    newest_known_step: Option<i64>,
}

/// Returns a rate to compute with: not finite is unknown, negative is zero.
pub(super) fn clean(value: Option<f64>) -> Option<f64> {
    value.filter(|value| value.is_finite()).map(|value| value.clamp(0.0, RATE_MAX))
}

impl History {
    /// An empty history, `newest_step` being the last step that is over.
    pub(super) fn new(newest_step: i64, capacity: usize, season: usize) -> Self {
        Self { newest_step, capacity, season, values: VecDeque::new(), newest_known_step: None }
    }

    pub(super) fn newest_step(&self) -> i64 {
        self.newest_step
    }

    pub(super) fn len(&self) -> usize {
        self.values.len()
    }

    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    pub(super) fn season(&self) -> usize {
        self.season
    }

    pub(super) fn oldest_step(&self) -> i64 {
        self.newest_step - self.len() as i64 + 1
    }

    /// Appends the step after the newest one.
    pub(super) fn push(&mut self, value: Option<f64>) {
        let known = value.is_some();
        let value = value.map(|value| (value as f32).abs()).or_else(|| self.fill());
        self.newest_step += 1;
        let Some(value) = value else { return };
        if known {
            self.newest_known_step = Some(self.newest_step);
        }
        if self.len() == self.capacity {
            self.values.pop_front();
        }
        if self.len() == self.values.capacity() {
            // Doubling would leave up to half of it unused.
            let more = (1 + self.len() / 4).min(self.capacity - self.len());
            self.values.reserve_exact(more);
        }
        self.values.push_back(value);
        let oldest_step = self.oldest_step();
        self.newest_known_step = self.newest_known_step.filter(|step| *step >= oldest_step);
    }

    /// Forgets everything, and goes on at `newest_step`.
    pub(super) fn restart(&mut self, newest_step: i64) {
        *self = Self::new(newest_step, self.capacity, self.season);
    }

    /// Returns the value of a step, filled where it was unknown; `None` outside the history.
    pub(super) fn value(&self, step: i64) -> Option<f64> {
        self.values.get(self.index(step)?).map(|value| value.abs().into())
    }

    /// Returns the value of a step that was observed.
    pub(super) fn known(&self, step: i64) -> Option<f64> {
        self.values.get(self.index(step)?).filter(|value| is_known(**value)).map(|value| f64::from(*value))
    }

    /// Returns the newest observed value.
    pub(super) fn last_known(&self) -> Option<f64> {
        self.value(self.newest_known_step?)
    }

    /// Returns up to `steps` values, the last of them that of the step `newest`, as far as the history reaches;
    /// none when `newest` is outside of it.
    pub(super) fn window(&self, newest: i64, steps: usize) -> impl Iterator<Item = f32> + '_ {
        let end = self.index(newest).map_or(0, |index| (index + 1).min(self.len()));
        self.values.range(end.saturating_sub(steps)..end).map(|value| value.abs())
    }

    /// Returns the mean of such a window.
    pub(super) fn mean(&self, newest: i64, steps: usize) -> Option<f64> {
        let (mut count, mut sum) = (0_u32, 0.0);
        self.window(newest, steps).for_each(|value| {
            count += 1;
            sum += f64::from(value);
        });
        (count > 0).then(|| sum / f64::from(count))
    }

    /// Returns mean and maximum of the observed values.
    pub(super) fn known_mean_and_max(&self) -> Option<(f64, f64)> {
        let mut count = 0.0;
        let (mut sum, mut max) = (0.0, 0.0_f64);
        for value in self.values.iter().filter(|value| is_known(**value)).map(|value| f64::from(*value)) {
            count += 1.0;
            sum += value;
            max = max.max(value);
        }
        (count > 0.0).then(|| (sum / count, max))
    }

    /// What to take for the step after the newest one.
    fn fill(&self) -> Option<f32> {
        let season_before = self.index(self.newest_step + 1 - self.season as i64);
        season_before
            .and_then(|index| self.values.get(index))
            .or(self.values.back())
            .map(|value| -value.abs())
    }

    fn index(&self, step: i64) -> Option<usize> {
        let age = usize::try_from(self.newest_step.checked_sub(step)?).ok()?;
        self.len().checked_sub(age + 1)
    }
}

/// A history as it is saved.
#[derive(Serialize, Deserialize)]
struct Saved {
    newest_step: i64,
    capacity: usize,
    season: usize,
    values: VecDeque<f32>,
    /// Places of the values that were not observed, ascending.
    filled: Vec<usize>,
}

impl From<Saved> for History {
    fn from(saved: Saved) -> Self {
        let Saved { newest_step, capacity, season, mut values, filled } = saved;
        values.iter_mut().for_each(|value| *value = value.abs());
        for place in filled {
            if let Some(value) = values.get_mut(place) {
                *value = -value.abs();
            }
        }
        let age = values.iter().rev().position(|value| is_known(*value));
        let newest_known_step = age.and_then(|age| newest_step.checked_sub(age as i64));
        Self { newest_step, capacity, season, values, newest_known_step }
    }
}

impl From<History> for Saved {
    fn from(history: History) -> Self {
        let History { newest_step, capacity, season, mut values, .. } = history;
        let filled =
            values.iter().enumerate().filter(|(_, value)| !is_known(**value)).map(|(place, _)| place);
        let filled = filled.collect();
        values.iter_mut().for_each(|value| *value = value.abs());
        Self { newest_step, capacity, season, values, filled }
    }
}

fn is_known(value: f32) -> bool {
    value.is_sign_positive()
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
