use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::quantiles::{QUANTILES, Quantiles, empirical};

use super::blend::{BAND_COUNT, Forgotten};
use super::features::{SECONDS_MAX, SECONDS_MIN, log_seconds};

/// Standardised residuals behind the quantiles.
const RESIDUALS: usize = 500;

/// Residuals from which the quantiles are their own alone.
const RESIDUALS_ENOUGH: f64 = 40.0;

/// Quantiles of the residual in units of its mean size that are assumed while nothing is known; wider than a normal
/// distribution's (1.6, 2.1 and 2.9), as waits are.
const ASSUMED: [f64; 5] = [-1.6, 0.0, 2.0, 2.7, 4.5];

/// Mean size of the logarithmic residual that is assumed while nothing is known, and how many outcomes that weighs.
const SIZE_ASSUMED: f64 = 0.35;
const SIZE_OUTCOMES: f64 = 10.0;

/// The least size of a logarithmic residual: no bound is closer than about 2 %.
const SIZE_MIN: f64 = 0.01;

/// Outcomes after which the size of a residual weighs half, in its band or class of age.
const HALF_LIFE: f64 = 400.0;

/// Ages from which the spread is learned by itself, in seconds.
const AGES: [f64; 6] = [0.5, 1.5, 3.0, 6.0, 12.0, 30.0];

/// How much wider the spread of the next class of age is taken to be while it was not met.
const WIDENING: f64 = 1.25;

/// Steps of the shifts that are learned online (adaptive conformal inference, Gibbs and Candès 2021), in units of the mean
/// residual: one over all waits, one for each band of them, as the residuals of long waits are spread in another way.
/// Small, as the feedback comes only when the first token did; and the limit of each.
const SHIFT_STEP: f64 = 0.01;
const BAND_SHIFT_STEP: f64 = 0.05;
const SHIFT_LIMIT: f64 = 6.0;

/// The least distance of the upper bounds from the median, in units of the mean residual.
const UPPER_MIN: f64 = 0.1;

/// The size of the logarithmic residual that a question expects: of waits about as long, and for the age of its state.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Scale {
    in_band: f64,
    by_age: f64,
}

impl Scale {
    fn size(&self) -> f64 {
        (self.in_band * self.by_age).max(SIZE_MIN)
    }

    /// How far an outcome is off, in units of this size.
    pub(super) fn residual(&self, median: f64, ttft_seconds: f64) -> f64 {
        (log_seconds(ttft_seconds) - log_seconds(median)) / self.size()
    }

    pub(super) fn is_sound(&self) -> bool {
        self.size().is_finite() && self.in_band.is_finite()
    }
}

/// Quantiles around a median: those of recent residuals in units of their expected size, shifted by adaptive conformal
/// inference until each is passed as often as it should be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(from = "Kept", into = "Kept")]
pub(super) struct Spread {
    kept: Kept,
    ascending: Vec<f64>,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
struct Kept {
    residuals: VecDeque<f64>,
    shifts: [f64; 5],
    band_shifts: [[f64; 5]; BAND_COUNT],
    all: Forgotten,
    in_band: [Forgotten; BAND_COUNT],
    by_age: [Forgotten; AGES.len() + 1],
}

impl Default for Spread {
    fn default() -> Self {
        Self::from(Kept::default())
    }
}

impl From<Kept> for Spread {
    fn from(mut kept: Kept) -> Self {
        kept.residuals.truncate(RESIDUALS);
        let mut ascending: Vec<f64> = kept.residuals.iter().copied().collect();
        ascending.sort_by(f64::total_cmp);
        Self { kept, ascending }
    }
}

impl From<Spread> for Kept {
    fn from(spread: Spread) -> Self {
        spread.kept
    }
}

fn age_class(age_seconds: f64) -> usize {
    AGES.iter().filter(|from| age_seconds >= **from).count()
}

impl Spread {
    /// Returns the size of the residual to expect.
    pub(super) fn scale(&self, band: usize, age_seconds: f64) -> Scale {
        let shrunk =
            |seen: &Forgotten, to: f64| (seen.sum + SIZE_OUTCOMES * to) / (seen.weight + SIZE_OUTCOMES);
        let common = shrunk(&self.kept.all, SIZE_ASSUMED);
        let in_band = shrunk(&self.kept.in_band[band], common);
        let mut by_age = 0.0_f64;
        let mut met = false;
        for seen in &self.kept.by_age[..=age_class(age_seconds)] {
            let expected = match (met, by_age > 0.0) {
                (true, _) => by_age * WIDENING,
                (false, true) => by_age,
                (false, false) => 1.0,
            };
            by_age = shrunk(seen, expected).max(by_age);
            met |= seen.weight > 0.0;
        }
        Scale { in_band, by_age }
    }

    /// Returns the quantiles around a median, in seconds.
    pub(super) fn quantiles(&self, band: usize, median: f64, scale: &Scale) -> Quantiles {
        let own = (self.ascending.len() as f64 / RESIDUALS_ENOUGH).min(1.0);
        let mut values = [median; 5];
        for (index, level) in QUANTILES.into_iter().enumerate().filter(|(_, level)| *level != 0.5) {
            let seen = empirical(&self.ascending, level).unwrap_or(0.0);
            let units = own * seen
                + (1.0 - own) * ASSUMED[index]
                + self.kept.shifts[index]
                + self.kept.band_shifts[band][index];
            let units = if level > 0.5 { units.max(UPPER_MIN) } else { units.min(-UPPER_MIN) };
            values[index] = (median * (units * scale.size()).exp()).clamp(SECONDS_MIN, SECONDS_MAX);
        }
        Quantiles::new(values)
    }

    /// Takes in the outcome of a question.
    pub(super) fn score(
        &mut self,
        band: usize,
        age_seconds: f64,
        said: (&Quantiles, &Scale),
        ttft_seconds: f64,
    ) {
        let (quantiles, scale) = said;
        let kept = &mut self.kept;
        for (index, (level, value)) in QUANTILES.into_iter().zip(quantiles.values()).enumerate() {
            let missed = f64::from(ttft_seconds > value);
            let by = missed - (1.0 - level);
            for (shift, step) in
                [(&mut kept.shifts[index], SHIFT_STEP), (&mut kept.band_shifts[band][index], BAND_SHIFT_STEP)]
            {
                *shift = (*shift + step * by).clamp(-SHIFT_LIMIT, SHIFT_LIMIT);
            }
        }
        let residual = log_seconds(ttft_seconds) - log_seconds(quantiles.median());
        let keep = 0.5_f64.powf(1.0 / HALF_LIFE);
        kept.all.add(residual.abs(), keep);
        kept.in_band[band].add(residual.abs(), keep);
        kept.by_age[age_class(age_seconds)].add(residual.abs() / scale.in_band.max(SIZE_MIN), keep);
        self.keep_residual(scale.residual(quantiles.median(), ttft_seconds));
    }

    fn keep_residual(&mut self, residual: f64) {
        if self.kept.residuals.len() >= RESIDUALS
            && let Some(oldest) = self.kept.residuals.pop_front()
        {
            let at = self.ascending.partition_point(|value| value.total_cmp(&oldest).is_lt());
            self.ascending.remove(at.min(self.ascending.len() - 1));
        }
        let at = self.ascending.partition_point(|value| value.total_cmp(&residual).is_lt());
        self.ascending.insert(at, residual);
        self.kept.residuals.push_back(residual);
    }
}
