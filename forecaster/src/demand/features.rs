use std::f64::consts::TAU;

use serde::{Deserialize, Serialize};

use super::config::Grid;
use super::history::History;

/// Steps before the origin whose rate is a feature.
const LAGS: [i64; 6] = [1, 2, 3, 5, 8, 11];

/// Harmonics of the season, and of the hour where its steps are too many for a feature each.
const HARMONICS: u32 = 3;

/// Phases of an hour that get a feature each, at most.
const HOUR_PHASES_MAX: i64 = 12;

/// Steps on both sides of the target's phase that are averaged for a smooth season.
const SMOOTH_STEPS: i64 = 3;

/// `log1p(bend x / mean)`, between rates and the scale of a regression.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Scale {
    factor: f64,
}

impl Scale {
    /// Rates under the mean divided by `bend` are nearly linear. `None` when the mean rate is zero, where there is
    /// nothing to scale by.
    pub(super) fn new(mean: f64, bend: f64) -> Option<Self> {
        let scale = Self { factor: bend / mean };
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

/// What is seen of a series from one origin: independent of any scale, so that it is looked up once for all.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Sight {
    /// The rate at the origin.
    level: f64,
    rates: Vec<f64>,
    /// Features without a unit: volatilities and the calendar.
    plain: Vec<f64>,
}

impl Sight {
    /// Writes one row of features on a scale: every rate against that of the origin. Returns the origin's.
    pub(super) fn row(&self, scale: Scale, row: &mut Vec<f64>) -> f64 {
        let level = scale.to_log(self.level);
        row.clear();
        row.extend(self.rates.iter().map(|rate| scale.to_log(*rate) - level));
        row.extend_from_slice(&self.plain);
        level
    }
}

/// What the regressions of one horizon look at.
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
        Self { season, horizon: i64::from(horizon_steps), hour: hour_steps(grid) }
    }

    pub(super) fn horizon(&self) -> i64 {
        self.horizon
    }

    /// Looks from `origin`, reading no step after it; `None` when the history does not reach a season back.
    pub(super) fn look(&self, history: &History, origin: i64) -> Option<Sight> {
        history.value(origin - self.season)?;
        let level = history.value(origin)?;
        let at = |step: i64| history.value(step).unwrap_or(level);
        let season = self.season as usize;

        let mut rates = Vec::with_capacity(26);
        rates.extend(LAGS.iter().map(|lag| at(origin - lag)));
        for steps in [3, 6, 12, season.div_ceil(4), season.div_ceil(2), season, 3 * season, 7 * season] {
            rates.push(history.mean(origin, steps)?);
        }
        self.seasons(&at, history, origin, &mut rates);
        if let Some(hour) = self.hour {
            let newest = origin + self.horizon - hour * back_to_known(self.horizon, hour);
            rates.extend([at(newest), at(newest - hour)]);
        }
        let mut plain = vec![volatility(history, origin, 12), volatility(history, origin, season)];
        self.calendar(origin + self.horizon, &mut plain);
        Some(Sight { level, rates, plain })
    }

    /// The target's phase in the newest three seasons and a week of seasons ago; its neighbours in the newest; the
    /// origin's own phase a season ago.
    fn seasons(&self, at: &impl Fn(i64) -> f64, history: &History, origin: i64, rates: &mut Vec<f64>) {
        let newest = origin + self.horizon - self.season * back_to_known(self.horizon, self.season);
        let mut nearest = at(newest);
        rates.extend([at(newest - 1), nearest, at((newest + 1).min(origin))]);
        for seasons in [1, 2, 6] {
            nearest = history.value(newest - seasons * self.season).unwrap_or(nearest);
            rates.push(nearest);
        }
        let around = (-SMOOTH_STEPS..=SMOOTH_STEPS).map(|offset| at((newest + offset).min(origin)));
        rates.push(around.sum::<f64>() / (2 * SMOOTH_STEPS + 1) as f64);
        let before = origin - self.season;
        rates.extend([at(before), history.mean(before, 3).unwrap_or(nearest)]);
    }

    fn calendar(&self, target: i64, plain: &mut Vec<f64>) {
        harmonics(target, self.season, plain);
        match self.hour {
            Some(hour) if hour <= HOUR_PHASES_MAX => {
                let phase = target.rem_euclid(hour);
                plain.extend((1..hour).map(|known| if known == phase { 1.0 } else { 0.0 }));
            }
            Some(hour) => harmonics(target, hour, plain),
            None => {}
        }
    }
}

/// Returns the steps of an hour, where an hour is several whole steps and shorter than the season.
pub(super) fn hour_steps(grid: Grid) -> Option<i64> {
    let steps = i64::from((3600 % grid.step_seconds == 0).then(|| 3600 / grid.step_seconds)?);
    (steps > 1 && 2 * steps <= i64::from(grid.season_steps)).then_some(steps)
}

/// Returns how many whole periods before a target `horizon` steps ahead lies the newest step that is known.
pub(super) fn back_to_known(horizon: i64, period: i64) -> i64 {
    (horizon + period - 1) / period
}

/// Mean absolute change from step to step, in parts of the mean.
fn volatility(history: &History, origin: i64, steps: usize) -> f64 {
    let (mut change, mut total) = (0.0, 0.0);
    let mut before: Option<f64> = None;
    for value in history.window(origin, steps + 1).map(f64::from) {
        change += before.map_or(0.0, |before| (value - before).abs());
        total += value;
        before = Some(value);
    }
    if total > 0.0 { change / total } else { 0.0 }
}

fn harmonics(step: i64, period: i64, into: &mut Vec<f64>) {
    let phase = step.rem_euclid(period) as f64 / period as f64;
    for harmonic in 1..=HARMONICS {
        let (sine, cosine) = (TAU * f64::from(harmonic) * phase).sin_cos();
        into.extend([sine, cosine]);
    }
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
        for horizon in [1, 5, 6, 7, 20] {
            let features = Features::new(grid, horizon);
            assert_eq!(features.look(&long, 30), features.look(&other, 30), "horizon {horizon}");
            assert!(features.look(&long, 30).is_some());
        }
    }

    #[test]
    fn back_to_known_is_the_fewest_periods_that_reach_the_origin() {
        assert_eq!([1, 6, 7, 12, 13].map(|horizon| back_to_known(horizon, 6)), [1, 1, 2, 2, 3]);
    }

    #[test]
    fn an_hour_needs_several_steps_and_a_longer_season() {
        let hour = |step_seconds, season_steps| hour_steps(Grid { step_seconds, season_steps });
        assert_eq!(hour(600, 144), Some(6));
        assert_eq!(hour(60, 1440), Some(60));
        assert_eq!([hour(3600, 24), hour(700, 144), hour(600, 6)], [None; 3]);
    }

    #[test]
    fn scale_returns_what_it_was_given() {
        let scale = Scale::new(7.0, 2.0).unwrap();
        for rate in [0.0, 1e-6, 3.0, 1e12] {
            assert!((scale.to_rate(scale.to_log(rate)) - rate).abs() <= 1e-9 * rate.max(1.0));
        }
        assert_eq!(Scale::new(0.0, 20.0), None);
    }
}
