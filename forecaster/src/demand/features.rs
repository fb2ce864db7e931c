use std::f64::consts::TAU;

use serde::{Deserialize, Serialize};

use super::config::Grid;
use super::history::History;

/// Where the logarithm begins to bend: rates under a twentieth of the mean are nearly linear.
const BEND: f64 = 20.0;

/// Steps before the origin whose difference to it is a feature.
const LAGS: [i64; 8] = [1, 2, 3, 4, 5, 6, 8, 11];

/// Windows of the level ratio of today to yesterday, in steps; half a season comes on top.
const RATIO_WINDOWS: [usize; 2] = [3, 12];

/// Windows of the mean absolute change, in steps.
const VOLATILITY_WINDOWS: [i64; 2] = [6, 24];

/// Harmonics of the season.
const HARMONICS: u32 = 3;

/// Phases of an hour that get a feature each, at most.
const HOUR_PHASES_MAX: i64 = 12;

/// `log1p(20 x / mean)`, between rates and the scale of the regression.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Scale {
    factor: f64,
}

impl Scale {
    /// `None` when the mean rate is zero, where there is nothing to scale by.
    pub(super) fn new(mean: f64) -> Option<Self> {
        let scale = Self { factor: BEND / mean };
        scale.is_sound().then_some(scale)
    }

    pub(super) fn to_log(self, rate: f64) -> f64 {
        (self.factor * rate).ln_1p()
    }

    pub(super) fn to_rate(self, log: f64) -> f64 {
        log.exp_m1() / self.factor
    }

    pub(super) fn is_sound(self) -> bool {
        self.factor.is_finite() && self.factor > 0.0
    }
}

/// What the regression of one horizon looks at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Features {
    season: i64,
    horizon: i64,
    /// Steps of an hour, where an hour is several whole steps and shorter than the season.
    hour: Option<i64>,
}

impl Features {
    pub(super) fn new(grid: Grid, horizon_steps: u32) -> Self {
        let season = i64::from(grid.season_steps);
        let hour = (3600 % grid.step_seconds == 0)
            .then(|| i64::from(3600 / grid.step_seconds))
            .filter(|&steps| steps > 1 && 2 * steps <= season);
        Self { season, horizon: i64::from(horizon_steps), hour }
    }

    pub(super) fn horizon(&self) -> i64 {
        self.horizon
    }

    /// Writes the features seen from `origin` into `row` and returns the level at the origin, both on the
    /// logarithmic scale; `None` when the history does not reach a season back. Reads no step after `origin`.
    pub(super) fn fill(
        &self,
        history: &History,
        scale: Scale,
        origin: i64,
        row: &mut Vec<f64>,
    ) -> Option<f64> {
        row.clear();
        history.value(origin - self.season)?;
        let level = scale.to_log(history.value(origin)?);
        let at = |step: i64| history.value(step).map_or(level, |value| scale.to_log(value));
        let mean = |newest: i64, steps: usize| history.mean(newest, steps).map(|value| scale.to_log(value));

        row.extend(LAGS.iter().map(|lag| at(origin - lag) - level));
        let season = usize::try_from(self.season).ok()?;
        for steps in [3, 6, 12, season.div_ceil(8), season.div_ceil(2), season, 3 * season] {
            row.push(mean(origin, steps)? - level);
        }
        self.seasons(&at, history, origin, level, row);
        for steps in RATIO_WINDOWS.into_iter().chain([season.div_ceil(2)]) {
            row.push(mean(origin, steps)? - mean(origin - self.season, steps)?);
        }
        for steps in VOLATILITY_WINDOWS {
            let changes = (0..steps).map(|back| (at(origin - back) - at(origin - back - 1)).abs());
            row.push(changes.sum::<f64>() / steps as f64);
        }
        self.calendar(&at, origin, level, row);
        Some(level)
    }

    /// The target's phase in the newest three seasons and a week of seasons ago, its neighbours in the newest, and
    /// the origin's own phase in the two before.
    fn seasons(
        &self,
        at: &impl Fn(i64) -> f64,
        history: &History,
        origin: i64,
        level: f64,
        row: &mut Vec<f64>,
    ) {
        let target = origin + self.horizon;
        let newest = target - self.season * back_to_known(self.horizon, self.season);
        let mut nearest = at(newest) - level;
        row.push(nearest);
        for seasons in [1, 2, 6] {
            let step = newest - seasons * self.season;
            if history.value(step).is_some() {
                nearest = at(step) - level;
            }
            row.push(nearest);
        }
        row.push(at((newest + 1).min(origin)) - level);
        row.push(at(newest - 1) - level);
        row.push(at(origin - self.season) - level);
        row.push(at(origin - 2 * self.season) - level);
    }

    /// The season's harmonics at the target, the target's phase in the newest two hours, and one feature for each
    /// phase of the hour.
    fn calendar(&self, at: &impl Fn(i64) -> f64, origin: i64, level: f64, row: &mut Vec<f64>) {
        let target = origin + self.horizon;
        let phase = target.rem_euclid(self.season) as f64 / self.season as f64;
        for harmonic in 1..=HARMONICS {
            let (sine, cosine) = (TAU * f64::from(harmonic) * phase).sin_cos();
            row.extend([sine, cosine]);
        }
        let Some(hour) = self.hour else { return };
        let newest = target - hour * back_to_known(self.horizon, hour);
        row.push(at(newest) - level);
        row.push(at(newest - hour) - level);
        if hour <= HOUR_PHASES_MAX {
            let phase = target.rem_euclid(hour);
            row.extend((0..hour).map(|known| if known == phase { 1.0 } else { 0.0 }));
        }
    }
}

/// Returns how many whole periods before a target `horizon` steps ahead lies the newest step that is known.
pub(super) fn back_to_known(horizon: i64, period: i64) -> i64 {
    (horizon + period - 1) / period
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(values: impl IntoIterator<Item = f64>) -> History {
        let mut history = History::new(-1, 1000, 6);
        for value in values {
            history.push(Some(value));
        }
        history
    }

    #[test]
    fn reads_nothing_after_the_origin() {
        let grid = Grid { step_seconds: 600, season_steps: 6 };
        let long = history((0..40).map(|i| f64::from(i % 6) + 1.0));
        let other = history((0..40).map(|i| if i <= 30 { f64::from(i % 6) + 1.0 } else { 1e6 }));
        let scale = Scale::new(3.0).unwrap();
        for horizon in [1, 5, 6, 7, 20] {
            let features = Features::new(grid, horizon);
            let (mut here, mut there) = (Vec::new(), Vec::new());
            assert_eq!(
                features.fill(&long, scale, 30, &mut here),
                features.fill(&other, scale, 30, &mut there)
            );
            assert_eq!(here, there, "horizon {horizon}");
        }
    }

    #[test]
    fn back_to_known_is_the_fewest_periods_that_reach_the_origin() {
        assert_eq!([1, 6, 7, 12, 13].map(|horizon| back_to_known(horizon, 6)), [1, 1, 2, 2, 3]);
    }

    #[test]
    fn scale_returns_what_it_was_given() {
        let scale = Scale::new(7.0).unwrap();
        for rate in [0.0, 1e-6, 3.0, 1e12] {
            assert!((scale.to_rate(scale.to_log(rate)) - rate).abs() <= 1e-9 * rate.max(1.0));
        }
        assert_eq!(Scale::new(0.0), None);
    }
}
