//! Weighs experts by what they missed lately.

use serde::{Deserialize, Serialize};

use super::experts::{Expert, Points};

/// Outcomes an expert must have been scored on before it is heard beside others.
const SCORED_MIN: f32 = 6.0;

/// How much a long memory counts beside the short one.
const LASTING_SHARE: f64 = 0.5;

/// Seasons after which an outcome in the long memory weighs half.
const LASTING_SEASONS: f64 = 4.0;

/// How fast the weights of the gradient follow regret, in its standard deviations.
const LEARNING_RATE: f64 = 1.5;

/// The shares of weight, at either end of the ordered points, that are left out of the middle mean.
const TRIMMED: f64 = 0.25;

/// How the experts of a horizon are weighed by their errors.
///
/// A short horizon follows the last hours; the error of a long one is known late and says something about the
/// pattern rather than about the moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Temper {
    power: f64,
    keep_recent: f64,
    keep_lasting: f64,
}

impl Temper {
    /// `stride` is the number of steps between two outcomes that are scored.
    pub(super) fn new(season_steps: u32, horizon_steps: u32, stride: u32) -> Self {
        let season = f64::from(season_steps).max(24.0);
        let part = f64::from(horizon_steps) / f64::from(season_steps);
        let (power, half_life) = match part {
            part if part <= 1.0 / 24.0 => (7.0, season / 12.0),
            part if part <= 0.5 => (7.0, season / 6.0),
            _ => (5.0, season / 2.0),
        };
        let keep = |half_life: f64| 0.5_f64.powf(f64::from(stride) / half_life.max(12.0));
        Self { power, keep_recent: keep(half_life), keep_lasting: keep(LASTING_SEASONS * season) }
    }
}

/// What is remembered of every expert, in the order of [`Expert::ALL`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Experience {
    recent: Vec<Mean>,
    lasting: Vec<Mean>,
    regret: Vec<Regret>,
}

/// An absolute error, forgotten exponentially.
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

/// How much better the gradient's blend would have been with more of this expert: sum and squares, forgotten
/// exponentially.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
struct Regret {
    sum: f32,
    squares: f32,
}

/// Two blends, and the weight of every expert that speaks in their mean.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Blend {
    /// The median of the forecast, as a rate.
    pub(super) point: f64,
    /// What the gradient's weights say; it is scored against itself.
    pub(super) gradient: f64,
    /// Weights that sum to one.
    pub(super) weights: Vec<(Expert, f64)>,
}

impl Experience {
    pub(super) fn new() -> Self {
        let none = vec![Mean::default(); Expert::COUNT];
        Self { recent: none.clone(), lasting: none, regret: vec![Regret::default(); Expert::COUNT] }
    }

    pub(super) fn is_sound(&self) -> bool {
        [self.recent.len(), self.lasting.len(), self.regret.len()] == [Expert::COUNT; 3]
    }

    /// Scores what was forecast, by every expert and by the gradient, with what came.
    pub(super) fn score(&mut self, points: &Points, gradient: f64, actual: f64, temper: &Temper) {
        let slope = (gradient - actual).signum();
        for (expert, point) in points.iter() {
            let error = (actual - point).abs();
            self.recent[expert as usize].add(error, temper.keep_recent);
            self.lasting[expert as usize].add(error, temper.keep_lasting);
            let gain = slope * (gradient - point);
            let keep = temper.keep_lasting as f32;
            let regret = &mut self.regret[expert as usize];
            regret.sum = regret.sum * keep + gain as f32;
            regret.squares = regret.squares * keep + (gain * gain) as f32;
        }
    }

    /// Returns the recent absolute error of an expert; `None` before it was scored.
    pub(super) fn recent(&self, expert: Expert) -> Option<f64> {
        let recent = self.recent[expert as usize];
        (recent.weight > 0.0).then(|| recent.value())
    }

    /// Blends what the experts say; `None` before one of those that speak was scored often enough.
    ///
    /// It is the mean of two. One follows the gradient of the absolute error (exponentiated gradient, Kivinen and
    /// Warmuth 1997, with rates that fit themselves as in Wintenberger 2017): it finds experts that complete each
    /// other. The other weighs by `(error / least error)^-power` and takes the middle of the weight: it leaves the
    /// outlandish aside.
    pub(super) fn blend(&self, points: &Points, temper: &Temper) -> Option<Blend> {
        let by_gradient = self.by_gradient(points)?;
        let by_error = self.by_error(points, temper)?;
        let gradient = by_gradient.iter().map(|heard| heard.weight * heard.point).sum();
        let point = 0.5 * (gradient + middle_mean(by_error.clone()));
        let mut weights: Vec<(Expert, f64)> =
            by_error.iter().map(|heard| (heard.expert, 0.5 * heard.weight)).collect();
        for (expert, weight) in &mut weights {
            let other = by_gradient.iter().find(|heard| heard.expert == *expert);
            *weight += other.map_or(0.0, |heard| 0.5 * heard.weight);
        }
        Some(Blend { point, gradient, weights })
    }

    fn by_gradient(&self, points: &Points) -> Option<Vec<Heard>> {
        let heard = points.iter().filter(|(expert, _)| *expert != Expert::Median && self.is_known(*expert));
        let rated = heard.map(|(expert, point)| {
            let Regret { sum, squares } = self.regret[expert as usize];
            let rate =
                if squares > 0.0 { LEARNING_RATE * f64::from(sum) / f64::from(squares).sqrt() } else { 0.0 };
            Heard { expert, point, weight: rate }
        });
        let mut rated: Vec<Heard> = rated.collect();
        let most = rated.iter().map(|heard| heard.weight).fold(f64::NEG_INFINITY, f64::max);
        rated.iter_mut().for_each(|heard| heard.weight = (heard.weight - most).exp());
        normalised(rated)
    }

    fn by_error(&self, points: &Points, temper: &Temper) -> Option<Vec<Heard>> {
        let heard = points.iter().filter(|(expert, _)| self.is_known(*expert)).map(|(expert, point)| {
            let (recent, lasting) = (self.recent[expert as usize], self.lasting[expert as usize]);
            Heard { expert, point, weight: recent.value() + LASTING_SHARE * lasting.value() }
        });
        let mut heard: Vec<Heard> = heard.collect();
        let least = heard.iter().map(|heard| heard.weight).fold(f64::INFINITY, f64::min);
        // Nobody is infinitely better than another for having been exact.
        let least = least.max(1e-9 * heard.iter().map(|heard| heard.point).fold(f64::MIN_POSITIVE, f64::max));
        heard
            .iter_mut()
            .for_each(|heard| heard.weight = (heard.weight.max(least) / least).powf(-temper.power));
        normalised(heard)
    }

    fn is_known(&self, expert: Expert) -> bool {
        self.lasting[expert as usize].weight >= SCORED_MIN
    }
}

#[derive(Debug, Clone, Copy)]
struct Heard {
    expert: Expert,
    point: f64,
    weight: f64,
}

fn normalised(mut heard: Vec<Heard>) -> Option<Vec<Heard>> {
    let total: f64 = heard.iter().map(|heard| heard.weight).sum();
    heard.iter_mut().for_each(|heard| heard.weight /= total);
    (total > 0.0).then_some(heard)
}

/// The mean of the central half of the weight, the points being in order.
fn middle_mean(mut heard: Vec<Heard>) -> f64 {
    heard.sort_by(|a, b| a.point.total_cmp(&b.point));
    let (low, high) = (TRIMMED, 1.0 - TRIMMED);
    let (mut below, mut sum, mut inside) = (0.0, 0.0, 0.0);
    for Heard { point, weight, .. } in heard {
        let part = ((below + weight).min(high) - f64::max(below, low)).max(0.0);
        sum += part * point;
        inside += part;
        below += weight;
    }
    sum / inside
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_mean_leaves_the_ends_aside() {
        let heard = |points: &[(f64, f64)]| {
            let heard = points.iter().map(|&(point, weight)| Heard { expert: Expert::Median, point, weight });
            middle_mean(heard.collect())
        };
        assert!((heard(&[(9.0, 0.25), (2.0, 0.25), (1.0, 0.25), (100.0, 0.25)]) - 5.5).abs() < 1e-12);
        assert!((heard(&[(7.0, 1.0)]) - 7.0).abs() < 1e-12);
        assert!((heard(&[(1.0, 0.1), (4.0, 0.8), (900.0, 0.1)]) - 4.0).abs() < 1e-12);
    }
}
