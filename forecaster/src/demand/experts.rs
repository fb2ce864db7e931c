use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::forgetting::ForgettingMean;
use crate::quantiles::{QUANTILES, Quantiles, empirical};

use super::features::{Features, back_to_known};
use super::history::History;
use super::regression::Regression;

/// Where the median of a forecast comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expert {
    /// The newest observed rate.
    LastValue,
    /// The rate at the same phase of the newest season in which it was observed.
    SeasonalNaive,
    /// The fitted regression.
    Regression,
}

impl Expert {
    /// Every expert.
    pub const ALL: [Self; 3] = [Self::LastValue, Self::SeasonalNaive, Self::Regression];

    /// Returns the name used in saved states: `last_value`, `seasonal_naive`, `regression`.
    pub fn name(self) -> &'static str {
        match self {
            Self::LastValue => "last_value",
            Self::SeasonalNaive => "seasonal_naive",
            Self::Regression => "regression",
        }
    }
}

/// One value for each of [`Expert::ALL`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct PerExpert<T> {
    pub(super) last_value: T,
    pub(super) seasonal_naive: T,
    pub(super) regression: T,
}

impl<T> PerExpert<T> {
    pub(super) fn get(&self, expert: Expert) -> &T {
        match expert {
            Expert::LastValue => &self.last_value,
            Expert::SeasonalNaive => &self.seasonal_naive,
            Expert::Regression => &self.regression,
        }
    }

    pub(super) fn get_mut(&mut self, expert: Expert) -> &mut T {
        match expert {
            Expert::LastValue => &mut self.last_value,
            Expert::SeasonalNaive => &mut self.seasonal_naive,
            Expert::Regression => &mut self.regression,
        }
    }
}

/// Returns what each expert says about the step one horizon after the newest one.
pub(super) fn points(
    history: &History,
    features: &Features,
    regression: Option<&Regression>,
) -> PerExpert<Option<f64>> {
    let season = history.season() as i64;
    let target = history.newest_step() + features.horizon();
    let mut step = target - season * back_to_known(features.horizon(), season);
    let mut seasonal_naive = None;
    while step >= history.oldest_step() && seasonal_naive.is_none() {
        seasonal_naive = history.known(step);
        step -= season;
    }
    PerExpert {
        last_value: history.last_known(),
        seasonal_naive,
        regression: regression.and_then(|fit| fit.predict(history, features)),
    }
}

/// How well one expert has done lately.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    recent: ForgettingMean,
    lasting: ForgettingMean,
    scored: u32,
    residuals: VecDeque<Residual>,
}

/// What an expert missed, and the level of demand at which it did.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Residual {
    error: f64,
    level: f64,
}

/// Share of the long memory in the score: keeps a lucky hour from unseating the better expert.
const LASTING_SHARE: f64 = 0.5;

/// Residuals from which the spread is the expert's own alone.
const RESIDUALS_ENOUGH: usize = 60;

/// Spread assumed while nothing is known, at each of `QUANTILES`, as a share of the level.
const SPREAD_ASSUMED: [f64; 5] = [-0.3, 0.0, 0.4, 0.6, 1.2];

/// How far a residual is rescaled at most when the level has changed since.
const RESCALE_MAX: f64 = 4.0;

impl Record {
    /// `half_life` and `lasting_half_life` in steps.
    pub(super) fn new(half_life: f64, lasting_half_life: f64) -> Self {
        Self {
            recent: ForgettingMean::new(half_life),
            lasting: ForgettingMean::new(lasting_half_life),
            scored: 0,
            residuals: VecDeque::new(),
        }
    }

    /// Takes in one outcome: what was forecast, what came, and the usual rate at the origin.
    pub(super) fn score(&mut self, point: f64, actual: f64, usual: f64, window: usize) {
        self.recent.add((actual - point).abs());
        self.lasting.add((actual - point).abs());
        self.scored = self.scored.saturating_add(1);
        if self.residuals.len() >= window {
            self.residuals.pop_front();
        }
        self.residuals.push_back(Residual { error: actual - point, level: level(point, usual) });
    }

    pub(super) fn scored(&self) -> u32 {
        self.scored
    }

    /// Returns the recent absolute error; smaller is better. `None` before the first outcome.
    pub(super) fn error(&self) -> Option<f64> {
        Some(self.recent.mean()? + LASTING_SHARE * self.lasting.mean()?)
    }

    /// Returns the quantiles around `point`: its own recent residuals, rescaled by the change of level; mixed with
    /// an assumed wide spread while they are few.
    pub(super) fn quantiles(&self, point: f64, usual: f64) -> Quantiles {
        let now = level(point, usual);
        let mut errors: Vec<f64> = self.residuals.iter().map(|residual| residual.at(now)).collect();
        errors.sort_by(f64::total_cmp);
        let own = (errors.len() as f64 / RESIDUALS_ENOUGH as f64).min(1.0);
        Quantiles::new(std::array::from_fn(|i| {
            let error = empirical(&errors, QUANTILES[i]).unwrap_or(0.0);
            // The point is the median; the spread may only lie around it.
            let error = match QUANTILES[i] {
                level if level < 0.5 => error.min(0.0),
                level if level > 0.5 => error.max(0.0),
                _ => 0.0,
            };
            point + own * error + (1.0 - own) * SPREAD_ASSUMED[i] * now
        }))
    }
}

impl Residual {
    fn at(&self, level: f64) -> f64 {
        if self.level <= 0.0 {
            return self.error;
        }
        self.error * (level / self.level).clamp(1.0 / RESCALE_MAX, RESCALE_MAX)
    }
}

/// The level that a residual is seen against: half the forecast, half the usual rate. Errors grow with both.
fn level(point: f64, usual: f64) -> f64 {
    0.5 * (point + usual)
}
