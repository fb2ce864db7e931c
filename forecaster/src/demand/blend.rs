//! Weighs experts by what they missed lately.

use serde::{Deserialize, Serialize};

use super::experts::{Expert, Points};

/// Outcomes an expert must have been scored on before it is heard beside others.
const SCORED_MIN: f32 = 6.0;

/// How much a long memory counts beside the short one, at horizons that have both.
const LASTING_SHARE: f64 = 0.5;

/// Seasons after which an error in the long memory weighs half.
const LASTING_SEASONS: f64 = 4.0;

/// How the experts of a horizon are weighed: in proportion to `(error / least error)^-power`.
///
/// A short horizon follows the last hours; the error of a long one is known late and says something about the
/// pattern rather than about the moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Temper {
    power: f64,
    half_life: f64,
    lasting_half_life: f64,
    lasting_share: f64,
}

impl Temper {
    pub(super) fn new(season_steps: u32, horizon_steps: u32) -> Self {
        let season = f64::from(season_steps).max(24.0);
        let part = f64::from(horizon_steps) / f64::from(season_steps);
        let lasting_half_life = LASTING_SEASONS * season;
        let (power, half_life, lasting_share) = match part {
            part if part <= 1.0 / 72.0 => (10.0, season / 6.0, LASTING_SHARE),
            part if part <= 1.0 / 24.0 => (10.0, season / 3.0, LASTING_SHARE),
            part if part <= 0.5 => (8.0, lasting_half_life, 0.0),
            _ => (5.0, lasting_half_life, 0.0),
        };
        Self { power, half_life: half_life.max(12.0), lasting_half_life, lasting_share }
    }
}

/// The errors of every expert: two means that forget exponentially, with their weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Errors {
    recent: Vec<Mean>,
    lasting: Vec<Mean>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
struct Mean {
    sum: f32,
    weight: f32,
}

impl Mean {
    fn add(&mut self, value: f64, keep: f64) {
        self.sum = self.sum * keep as f32 + value as f32;
        self.weight = self.weight * keep as f32 + 1.0;
    }

    fn value(self) -> f64 {
        f64::from(self.sum) / f64::from(self.weight)
    }
}

impl Errors {
    pub(super) fn new() -> Self {
        let none = vec![Mean::default(); Expert::COUNT];
        Self { recent: none.clone(), lasting: none }
    }

    pub(super) fn is_sound(&self) -> bool {
        self.recent.len() == Expert::COUNT && self.lasting.len() == Expert::COUNT
    }

    /// Scores what was forecast with what came; `stride` is the number of steps between two scores.
    pub(super) fn score(&mut self, points: &Points, actual: f64, temper: &Temper, stride: u32) {
        let keep = |half_life: f64| 0.5_f64.powf(f64::from(stride) / half_life);
        let (recent, lasting) = (keep(temper.half_life), keep(temper.lasting_half_life));
        for (expert, point) in points.iter() {
            let error = (actual - point).abs();
            self.recent[expert as usize].add(error, recent);
            self.lasting[expert as usize].add(error, lasting);
        }
    }

    /// Returns the recent absolute error of an expert; `None` before it was scored often enough.
    pub(super) fn recent(&self, expert: Expert) -> Option<f64> {
        let recent = self.recent[expert as usize];
        (recent.weight > 0.0).then(|| recent.value())
    }

    fn loss(&self, expert: Expert, temper: &Temper) -> Option<f64> {
        let (recent, lasting) = (self.recent[expert as usize], self.lasting[expert as usize]);
        let scored = recent.weight >= SCORED_MIN;
        scored.then(|| recent.value() + temper.lasting_share * lasting.value())
    }

    /// Returns the weights of the experts that speak, which sum to one; empty when none was scored yet.
    pub(super) fn weights(&self, points: &Points, temper: &Temper) -> Vec<(Expert, f64)> {
        let losses = points.iter().filter_map(|(expert, _)| Some((expert, self.loss(expert, temper)?)));
        let mut weights: Vec<(Expert, f64)> = losses.collect();
        let scale = points.get(Expert::LastValue).unwrap_or(0.0).max(f64::MIN_POSITIVE);
        let least = weights.iter().map(|(_, loss)| *loss).fold(f64::INFINITY, f64::min).max(1e-9 * scale);
        let mut total = 0.0;
        for (_, weight) in &mut weights {
            *weight = (weight.max(least) / least).powf(-temper.power);
            total += *weight;
        }
        weights.iter_mut().for_each(|(_, weight)| *weight /= total);
        weights
    }
}
