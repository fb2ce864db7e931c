//! The quantiles around a median: candidates weighed by what they cost lately, stretched until they hold what they
//! promise.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::brief::Brief;
use crate::quantiles::{QUANTILES, Quantiles};

use super::jury::Jury;
use super::settings::Settings;
use super::track::Now;

/// Levels other than the median, as places in [`QUANTILES`].
pub(super) const OUTER: [usize; 4] = [0, 2, 3, 4];

/// Candidates for each level: residuals of a short and of a long window, residuals in parts of the median, residuals
/// in parts of how much the experts disagree, what the series itself did, and a regression.
pub(super) const CANDIDATES: usize = 6;

/// Places among the candidates; those before them are windows of residuals.
const BY_LEVEL: usize = 2;
const BY_DISAGREEMENT: usize = 3;
const RATES: usize = 4;
const REGRESSION: usize = 5;

/// Windows of residuals and of the rates themselves, in steps.
const WINDOW_SHORT: usize = 288;
const WINDOW_LONG: usize = 1_008;
const WINDOW_BY_LEVEL: usize = 216;
const WINDOW_BY_DISAGREEMENT: usize = 720;
const WINDOW_RATES: usize = 432;

/// Residuals from which the spread is the series' own alone.
const RESIDUALS_ENOUGH: f64 = 30.0;

/// Outcomes of a grown series after which those of its first season are forgotten.
const GROWN_ENOUGH: u32 = 8;

/// No bound is higher than so many times the highest rate that is remembered.
const HEADROOM: f64 = 2.0;

/// Spread assumed while nothing is known, at each of [`OUTER`], as a share of the level.
const SPREAD_ASSUMED: [f64; 4] = [-0.3, 0.4, 0.6, 1.2];

/// The stretch that is learned stays within these, as a logarithm.
const STRETCH_LIMIT: f64 = 1.5;

/// How far from the median the candidates are at each of [`OUTER`], NaN for silence, and where the juries' gradients are:
/// what the bounds were blended from, in short, to be scored.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Candidates {
    rows: [[Brief; CANDIDATES]; OUTER.len()],
    gradients: [Brief; OUTER.len()],
}

/// What bounds are made around.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Centre {
    pub(super) median: f32,
    /// The usual rate: errors grow with it and with the median.
    pub(super) usual: f32,
    /// Standard deviation of the experts' points.
    pub(super) disagreement: f32,
    /// Whether the series had been known for a season.
    pub(super) grown: bool,
}

/// What is remembered of past bounds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Bounds {
    errors: Window,
    /// Errors in parts of the level.
    by_level: Window,
    /// Errors in parts of how much the experts disagreed.
    by_disagreement: Window,
    /// Outcomes of the grown series, up to [`GROWN_ENOUGH`].
    grown: u32,
    juries: [Jury; OUTER.len()],
    /// Logarithm of the stretch, by level (adaptive conformal inference, Gibbs and Candès 2021).
    stretch: [f64; OUTER.len()],
}

/// The newest of many numbers. Short ones, as a thousand of them are most of a series' memory.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
struct Window(VecDeque<Brief>);

impl Window {
    fn push(&mut self, value: f64, most: usize) {
        if self.0.len() >= most {
            self.0.pop_front();
        }
        if self.0.len() == self.0.capacity() {
            let more = (1 + self.0.len() / 4).min(most.saturating_sub(self.0.len()));
            self.0.reserve_exact(more.max(1));
        }
        self.0.push_back((value as f32).into());
    }

    fn newest(&self, count: usize) -> impl Iterator<Item = f32> + '_ {
        self.0.iter().rev().take(count).map(|value| value.value())
    }

    fn keep_newest(&mut self, count: usize) {
        self.0.drain(..self.0.len().saturating_sub(count));
    }
}

impl Centre {
    fn median(&self) -> f64 {
        self.median.into()
    }

    /// The level that a residual is seen against.
    fn level(&self) -> f64 {
        f64::from(self.median).max(0.1 * f64::from(self.usual)).max(f32::MIN_POSITIVE.into())
    }

    fn disagreement(&self) -> f64 {
        (f64::from(self.disagreement) + 0.02 * f64::from(self.usual)).max(f32::MIN_POSITIVE.into())
    }
}

impl Bounds {
    pub(super) fn new() -> Self {
        Self {
            errors: Window::default(),
            by_level: Window::default(),
            by_disagreement: Window::default(),
            grown: 0,
            juries: std::array::from_fn(|_| Jury::new(CANDIDATES)),
            stretch: [0.0; OUTER.len()],
        }
    }

    pub(super) fn is_sound(&self) -> bool {
        self.juries.iter().all(|jury| jury.has(CANDIDATES))
    }

    /// Returns the candidates around a centre, and the bounds at [`OUTER`], on their side of the median.
    pub(super) fn bounds(
        &self,
        centre: &Centre,
        now: &Now<'_>,
        regression: Option<Quantiles>,
        settings: &Settings,
    ) -> (Candidates, [f64; OUTER.len()]) {
        let said = self.candidates(centre, now, regression, settings);
        let median = centre.median();
        let offset = |value: f64| Brief::from((value - median) as f32);
        let rows = said.map(|row| row.map(|value| offset(value.into())));
        let mut candidates = Candidates { rows, gradients: [Brief::from(f32::NAN); OUTER.len()] };
        let bounds = std::array::from_fn(|i| {
            let row = said[i];
            let verdict = self.juries[i].blend(&row, &settings.bounds[i]);
            let plain = || {
                let spoken = || row.iter().filter(|point| point.is_finite()).map(|point| f64::from(*point));
                spoken().sum::<f64>() / spoken().count().max(1) as f64
            };
            let (point, gradient) =
                verdict.map_or_else(|| (plain(), plain()), |verdict| (verdict.point, verdict.gradient));
            candidates.gradients[i] = offset(gradient);
            let spread = (point - median) * self.stretch[i].exp();
            median + if QUANTILES[OUTER[i]] < 0.5 { spread.min(0.0) } else { spread.max(0.0) }
        });
        (candidates, bounds)
    }

    fn candidates(
        &self,
        centre: &Centre,
        now: &Now<'_>,
        regression: Option<Quantiles>,
        settings: &Settings,
    ) -> [[f32; CANDIDATES]; OUTER.len()] {
        let mut candidates = [[f32::NAN; CANDIDATES]; OUTER.len()];
        let highest = HEADROOM * now.origin.highest.max(centre.median());
        let mut set = |candidate: usize, values: [f64; OUTER.len()]| {
            for (row, value) in candidates.iter_mut().zip(values).filter(|(_, value)| value.is_finite()) {
                row[candidate] = value.min(highest) as f32;
            }
        };
        let own = (self.errors.0.len() as f64 / RESIDUALS_ENOUGH).min(1.0);
        let mut scratch: Vec<f32> = Vec::with_capacity(WINDOW_LONG);
        let disagreement = centre.disagreement();
        let windows = [
            (&self.errors, WINDOW_SHORT, 1.0),
            (&self.errors, WINDOW_LONG, 1.0),
            (&self.by_level, WINDOW_BY_LEVEL, centre.level()),
            (&self.by_disagreement, WINDOW_BY_DISAGREEMENT, disagreement),
        ];
        for (place, (window, steps, scale)) in windows.into_iter().enumerate() {
            if settings.candidates[place] {
                scratch.clear();
                scratch.extend(window.newest(settings.outcomes(steps)));
                let errors = outer_quantiles(&mut scratch, settings.dependent).unwrap_or_default();
                let around = |i: usize| {
                    let assumed = SPREAD_ASSUMED[i] * centre.level();
                    centre.median() + own * errors[i] * scale + (1.0 - own) * assumed
                };
                set(place, std::array::from_fn(around));
            }
        }
        if settings.candidates[RATES] {
            scratch.clear();
            scratch.extend(now.history.window(now.history.newest_step(), WINDOW_RATES));
            if let Some(rates) = outer_quantiles(&mut scratch, settings.dependent) {
                set(RATES, rates);
            }
        }
        if let Some(quantiles) = regression.filter(|_| settings.candidates[REGRESSION]) {
            set(REGRESSION, OUTER.map(|place| quantiles.values()[place]));
        }
        candidates
    }

    /// Learns from an outcome: what was missed, what each candidate cost, and whether the bounds held.
    pub(super) fn score(
        &mut self,
        actual: f64,
        unit: f64,
        centre: &Centre,
        candidates: &Candidates,
        issued: &Quantiles,
        settings: &Settings,
    ) {
        if centre.grown && self.grown < GROWN_ENOUGH {
            self.grown += 1;
            if self.grown == GROWN_ENOUGH {
                for window in [&mut self.errors, &mut self.by_level, &mut self.by_disagreement] {
                    window.keep_newest(GROWN_ENOUGH as usize - 1);
                }
                self.juries = std::array::from_fn(|_| Jury::new(CANDIDATES));
            }
        }
        for (i, place) in OUTER.into_iter().enumerate() {
            let at = |offset: Brief| centre.median() + f64::from(offset.value());
            let gradient = at(candidates.gradients[i]);
            let row = candidates.rows[i].map(|offset| at(offset) as f32);
            self.juries[i].score(&row, gradient, actual, unit, &settings.bounds[i]);
            let (level, bound) = (QUANTILES[place], issued.values()[place]);
            let beyond = if level < 0.5 { actual < bound } else { actual > bound };
            let step = settings.stretch_gain * (f64::from(beyond) - level.min(1.0 - level));
            self.stretch[i] = (self.stretch[i] + step).clamp(-STRETCH_LIMIT, STRETCH_LIMIT);
        }
        let error = actual - centre.median();
        self.errors.push(error, settings.outcomes(WINDOW_LONG));
        if settings.candidates[BY_LEVEL] {
            self.by_level.push(error / centre.level(), settings.outcomes(WINDOW_BY_LEVEL));
        }
        if settings.candidates[BY_DISAGREEMENT] {
            let most = settings.outcomes(WINDOW_BY_DISAGREEMENT);
            self.by_disagreement.push(error / centre.disagreement(), most);
        }
    }
}

/// Returns the quantiles of unordered values at [`OUTER`], by the conformal position `(n + 1) level`, further out by
/// as many as `dependent` neighbours tell the same.
fn outer_quantiles(values: &mut [f32], dependent: f64) -> Option<[f64; OUTER.len()]> {
    let count = values.len();
    let last = count.checked_sub(1)?;
    let mut rest = &mut values[..];
    let mut before = 0;
    let mut found = [0.0; OUTER.len()];
    for (found, place) in found.iter_mut().zip(OUTER) {
        let level = QUANTILES[place];
        let far = 1.0 + dependent / count as f64;
        let level = if level < 0.5 { level / far } else { (level * far).min(1.0) };
        let position = ((count + 1) as f64 * level - 1.0).clamp(0.0, last as f64);
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
        assert_eq!(outer_quantiles(&mut values, 0.0), Some([10.0, 90.0, 95.0, 99.0]));
        assert_eq!(outer_quantiles(&mut [3.0], 0.0), Some([3.0; 4]));
        assert_eq!(outer_quantiles(&mut [], 0.0), None);
    }
}
