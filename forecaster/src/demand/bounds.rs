//! The quantiles around a median: candidates weighed by what they cost lately, stretched until they hold what they
//! promise.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::quantiles::{QUANTILES, Quantiles};

use super::history::History;

/// Levels other than the median, as places in [`QUANTILES`].
pub(super) const OUTER: [usize; 4] = [0, 2, 3, 4];

/// Candidates for each level: residuals of a short and of a long window, residuals in parts of the median, what the
/// series itself did, and the two regressions.
pub(super) const CANDIDATES: usize = 6;

/// Windows of residuals, in outcomes.
const WINDOW_SHORT: usize = 288;
const WINDOW_LONG: usize = 1_008;

/// Window of the rates themselves, in steps.
const WINDOW_RATES: usize = 288;

/// Residuals from which the spread is the series' own alone.
const RESIDUALS_ENOUGH: f64 = 60.0;

/// Spread assumed while nothing is known, at each of [`OUTER`], as a share of the level.
const SPREAD_ASSUMED: [f64; 4] = [-0.3, 0.4, 0.6, 1.2];

/// Outcomes after which a loss weighs half.
const HALF_LIFE: f64 = 288.0;

/// The stretch that is learned stays within these, as a logarithm.
const STRETCH_LIMIT: f64 = 1.5;

/// What the candidates say at one of [`OUTER`]; NaN for silence.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Row(#[serde(with = "crate::silent")] [f32; CANDIDATES]);

/// What the candidates say at each of [`OUTER`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Candidates([Row; OUTER.len()]);

impl PartialEq for Row {
    fn eq(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).all(|(a, b)| a == b || (a.is_nan() && b.is_nan()))
    }
}

/// How the bounds of a horizon are weighed and corrected.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Care {
    power: f64,
    gain: f64,
}

impl Care {
    pub(super) fn new(season_steps: u32, horizon_steps: u32) -> Self {
        let part = f64::from(horizon_steps) / f64::from(season_steps);
        match part {
            part if part <= 1.0 / 24.0 => Self { power: 6.0, gain: 0.005 },
            part if part <= 0.5 => Self { power: 3.0, gain: 0.003 },
            _ => Self { power: 2.0, gain: 0.002 },
        }
    }
}

/// What is remembered of past bounds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Bounds {
    residuals: VecDeque<Residual>,
    /// Pinball losses, forgotten exponentially.
    losses: Vec<[f32; CANDIDATES]>,
    weight: f32,
    /// Logarithm of the stretch, by level (Gibbs and Candès 2021).
    stretch: [f64; OUTER.len()],
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Residual {
    error: f32,
    level: f32,
}

impl Bounds {
    pub(super) fn new() -> Self {
        Self {
            residuals: VecDeque::new(),
            losses: vec![[0.0; CANDIDATES]; OUTER.len()],
            weight: 0.0,
            stretch: [0.0; OUTER.len()],
        }
    }

    pub(super) fn is_sound(&self) -> bool {
        self.losses.len() == OUTER.len()
    }

    /// Collects the candidates around a median.
    pub(super) fn candidates(
        &self,
        median: f64,
        usual: f64,
        history: &History,
        regressions: [Option<Quantiles>; 2],
    ) -> Candidates {
        let mut candidates = Candidates([Row([f32::NAN; CANDIDATES]); OUTER.len()]);
        let mut set = |candidate: usize, values: [f64; OUTER.len()]| {
            candidates.0.iter_mut().zip(values).for_each(|(row, value)| row.0[candidate] = value as f32);
        };
        let level = level(median, usual);
        let mut scratch: Vec<f32> = Vec::with_capacity(WINDOW_LONG);
        let own = (self.residuals.len() as f64 / RESIDUALS_ENOUGH).min(1.0);
        let around = |scratch: &mut Vec<f32>, scale: f64| {
            let errors = outer_quantiles(scratch).unwrap_or_default();
            std::array::from_fn(|i| {
                median + own * errors[i] * scale + (1.0 - own) * SPREAD_ASSUMED[i] * level
            })
        };
        scratch.extend(self.residuals.iter().rev().take(WINDOW_SHORT).map(|residual| residual.error));
        set(0, around(&mut scratch, 1.0));
        scratch.clear();
        scratch.extend(self.residuals.iter().map(|residual| residual.error));
        set(1, around(&mut scratch, 1.0));
        scratch.clear();
        scratch.extend(self.residuals.iter().filter(|r| r.level > 0.0).map(|r| r.error / r.level));
        set(2, around(&mut scratch, level));
        scratch.clear();
        scratch.extend(history.window(history.newest_step(), WINDOW_RATES));
        if let Some(rates) = outer_quantiles(&mut scratch) {
            set(3, rates);
        }
        for (i, quantiles) in regressions.into_iter().enumerate() {
            if let Some(quantiles) = quantiles {
                set(4 + i, OUTER.map(|place| quantiles.values()[place]));
            }
        }
        candidates
    }

    /// Returns the bounds at [`OUTER`], on their side of the median.
    pub(super) fn bounds(&self, median: f64, candidates: &Candidates, care: Care) -> [f64; OUTER.len()] {
        std::array::from_fn(|i| {
            let blended = self.blend(i, &candidates.0[i].0, care);
            let spread = (blended - median) * self.stretch[i].exp();
            median + if QUANTILES[OUTER[i]] < 0.5 { spread.min(0.0) } else { spread.max(0.0) }
        })
    }

    fn blend(&self, i: usize, candidates: &[f32; CANDIDATES], care: Care) -> f64 {
        let spoken = || candidates.iter().zip(&self.losses[i]).filter(|(value, _)| value.is_finite());
        let least = spoken().map(|(_, loss)| *loss).fold(f32::INFINITY, f32::min).max(f32::MIN_POSITIVE);
        let (mut total, mut sum) = (0.0, 0.0);
        for (value, loss) in spoken() {
            let weight = f64::from(loss.max(least) / least).powf(-care.power);
            total += weight;
            sum += weight * f64::from(*value);
        }
        sum / total
    }

    /// Learns from an outcome: what was missed, what each candidate cost, and whether the bounds held.
    pub(super) fn score(
        &mut self,
        actual: f64,
        median: f64,
        usual: f64,
        candidates: &Candidates,
        issued: &Quantiles,
        care: Care,
        stride: u32,
    ) {
        let keep = 0.5_f64.powf(f64::from(stride) / HALF_LIFE) as f32;
        self.weight = self.weight * keep + 1.0;
        for (i, place) in OUTER.into_iter().enumerate() {
            let tau = QUANTILES[place];
            let losses = &mut self.losses[i];
            let mut worst = 0.0_f32;
            for (loss, candidate) in losses.iter_mut().zip(&candidates.0[i].0) {
                let error = actual - f64::from(*candidate);
                let pinball = (tau * error).max((tau - 1.0) * error) as f32;
                if pinball.is_finite() {
                    worst = worst.max(pinball);
                    *loss = *loss * keep + pinball;
                } else {
                    // Silent: as bad as the worst, so that it has no head start when it speaks.
                    *loss = *loss * keep + worst;
                }
            }
            let beyond =
                if tau < 0.5 { actual < issued.values()[place] } else { actual > issued.values()[place] };
            let wanted = tau.min(1.0 - tau);
            let step = care.gain * f64::from(stride) * (f64::from(beyond) - wanted);
            self.stretch[i] = (self.stretch[i] + step).clamp(-STRETCH_LIMIT, STRETCH_LIMIT);
        }
        if self.residuals.len() >= WINDOW_LONG.div_ceil(stride as usize) {
            self.residuals.pop_front();
        }
        let level = level(median, usual) as f32;
        self.residuals.push_back(Residual { error: (actual - median) as f32, level });
    }
}

/// The level that a residual is seen against: half the forecast, half the usual rate. Errors grow with both.
fn level(median: f64, usual: f64) -> f64 {
    0.5 * (median + usual)
}

/// Returns the quantiles of unordered values at [`OUTER`], by the conformal position `(n + 1) level`.
fn outer_quantiles(values: &mut [f32]) -> Option<[f64; OUTER.len()]> {
    let count = values.len();
    let last = count.checked_sub(1)?;
    let mut rest = &mut values[..];
    let mut before = 0;
    let mut found = [0.0; OUTER.len()];
    for (found, place) in found.iter_mut().zip(OUTER) {
        let position = ((count + 1) as f64 * QUANTILES[place] - 1.0).clamp(0.0, last as f64);
        let below = position.floor() as usize;
        let (_, value, above) = rest.select_nth_unstable_by(below - before, f32::total_cmp);
        let next = above.iter().copied().min_by(f32::total_cmp).unwrap_or(*value);
        *found = f64::from(*value) + (position - below as f64) * f64::from(next - *value);
        rest = &mut rest[below - before..];
        before = below;
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_use_the_conformal_position() {
        let mut values: Vec<f32> = (1..=99).rev().map(|value| value as f32).collect();
        assert_eq!(outer_quantiles(&mut values), Some([10.0, 90.0, 95.0, 99.0]));
        assert_eq!(outer_quantiles(&mut [3.0]), Some([3.0; 4]));
        assert_eq!(outer_quantiles(&mut []), None);
    }
}
