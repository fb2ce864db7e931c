//! Weighs those who forecast the same quantile by what it cost lately to follow them.

use serde::{Deserialize, Serialize};

/// Outcomes a member must have been scored on before it is heard beside others.
const SCORED_MIN: f32 = 6.0;

/// No outcome counts for more than so many times the usual loss of the member in the middle: a single burst, which
/// nobody foresaw, must not hide for days who is good.
const SURPRISE_MAX: f64 = 20.0;

/// The shares of weight, at either end of the ordered points, that a middle mean leaves out.
const TRIMMED: f64 = 0.25;

/// How a jury weighs its members.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Rules {
    /// The quantile that the members forecast.
    pub(super) level: f64,
    /// Weights are `(loss / least loss)^-power`.
    pub(super) power: f64,
    /// What is left of a recent loss, and of a lasting one, when the next one comes.
    pub(super) keep_recent: f64,
    pub(super) keep_lasting: f64,
    /// How much a lasting loss counts beside a recent one.
    pub(super) lasting_share: f64,
    /// How fast the weights of the gradient follow regret, in its standard deviations; at 0 there is no gradient.
    pub(super) rate: f64,
    /// The gradient does not hear members whose loss is so many times the least: regret is remembered for days, and one
    /// that has just broken must not profit by what it once was.
    pub(super) broken_from: f64,
    /// Whether the weights by loss leave out the outermost quarters, or take all.
    pub(super) trimmed: bool,
}

/// What is remembered of every member: losses that are forgotten exponentially, soon and late, and regret.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Jury {
    recent: Vec<Mean>,
    lasting: Vec<Mean>,
    regret: Vec<Regret>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
struct Mean {
    sum: f32,
    weight: f32,
}

/// How much less the gradient's verdict would have cost with more of this member: sum and squares.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
struct Regret {
    sum: f32,
    squares: f32,
}

/// What a jury says.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Verdict {
    /// The blend of all.
    pub(super) point: f64,
    /// What the gradient alone says: it is scored against itself.
    pub(super) gradient: f64,
    /// The weight of each member that is heard, by its place; they sum to one.
    pub(super) weights: Vec<(usize, f64)>,
}

#[derive(Debug, Clone, Copy)]
struct Heard {
    place: usize,
    point: f64,
    weight: f64,
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

impl Jury {
    pub(super) fn new(members: usize) -> Self {
        let none = vec![Mean::default(); members];
        Self { recent: none.clone(), lasting: none, regret: vec![Regret::default(); members] }
    }

    pub(super) fn has(&self, members: usize) -> bool {
        [self.recent.len(), self.lasting.len(), self.regret.len()] == [members; 3]
    }

    /// Forgets a member: it will not speak again, and what it missed is no measure for the others.
    pub(super) fn forget(&mut self, place: usize) {
        self.recent[place] = Mean::default();
        self.lasting[place] = Mean::default();
        self.regret[place] = Regret::default();
    }

    /// Scores what the members said (NaN: nothing), and the gradient's verdict, with what came. Losses count by
    /// `unit`, so that those of a busy hour do not drown those of a quiet one.
    pub(super) fn score(&mut self, points: &[f32], gradient: f64, actual: f64, unit: f64, rules: &Rules) {
        let most = SURPRISE_MAX * self.usual_loss();
        let slope = if actual > gradient { -rules.level } else { 1.0 - rules.level };
        let heard = points.iter().enumerate().filter(|(_, point)| point.is_finite());
        for (place, point) in heard.map(|(place, point)| (place, f64::from(*point))) {
            let error = (actual - point) * unit;
            let loss = (rules.level * error).max((rules.level - 1.0) * error).min(most);
            self.recent[place].add(loss, rules.keep_recent);
            self.lasting[place].add(loss, rules.keep_lasting);
            if gradient.is_finite() {
                let gain = (slope * (gradient - point) * unit).clamp(-most, most);
                let (regret, keep) = (&mut self.regret[place], rules.keep_lasting as f32);
                regret.sum = regret.sum * keep + gain as f32;
                regret.squares = regret.squares * keep + (gain * gain) as f32;
            }
        }
    }

    /// The lasting loss of the member in the middle; infinite before one was scored often enough.
    fn usual_loss(&self) -> f64 {
        let known = self.lasting.iter().filter(|lasting| lasting.weight >= SCORED_MIN);
        let mut losses: Vec<f64> = known.map(|lasting| lasting.value()).filter(|loss| *loss > 0.0).collect();
        losses.sort_by(f64::total_cmp);
        losses.get(losses.len() / 2).copied().unwrap_or(f64::INFINITY)
    }

    /// Blends what the members say; `None` before one of those that speak was scored often enough.
    ///
    /// It is the mean of two. One follows the gradient of the loss (exponentiated gradient, Kivinen and Warmuth 1997,
    /// with rates that fit themselves as in Wintenberger 2017): it finds members that complete each other. The other
    /// weighs each by its own loss.
    pub(super) fn blend(&self, points: &[f32], rules: &Rules) -> Option<Verdict> {
        let speaking = || {
            let finite = points.iter().enumerate().filter(|(_, point)| point.is_finite());
            let known = finite.filter(|(place, _)| self.lasting[*place].weight >= SCORED_MIN);
            known.map(|(place, point)| Heard { place, point: f64::from(*point), weight: 0.0 })
        };
        let by_loss = self.by_loss(speaking().collect(), rules)?;
        let loss_point = if rules.trimmed { middle_mean(&by_loss) } else { mean(&by_loss) };
        if rules.rate <= 0.0 {
            let weights = by_loss.iter().map(|heard| (heard.place, heard.weight)).collect();
            return Some(Verdict { point: loss_point, gradient: loss_point, weights });
        }
        let by_gradient = self.by_gradient(speaking().collect(), &by_loss, rules)?;
        let gradient = mean(&by_gradient);
        // The same members, in the same order.
        let weights = by_loss.iter().zip(&by_gradient);
        let weights = weights.map(|(a, b)| (a.place, 0.5 * (a.weight + b.weight))).collect();
        Some(Verdict { point: 0.5 * (gradient + loss_point), gradient, weights })
    }

    fn by_gradient(&self, mut heard: Vec<Heard>, by_loss: &[Heard], rules: &Rules) -> Option<Vec<Heard>> {
        let heaviest = by_loss.iter().map(|heard| heard.weight).fold(0.0, f64::max);
        let broken = heaviest * rules.broken_from.powf(-rules.power);
        for (heard, by_loss) in heard.iter_mut().zip(by_loss) {
            if by_loss.weight < broken {
                heard.weight = f64::NEG_INFINITY;
                continue;
            }
            let Regret { sum, squares } = self.regret[heard.place];
            heard.weight =
                if squares > 0.0 { rules.rate * f64::from(sum) / f64::from(squares).sqrt() } else { 0.0 };
        }
        let most = heard.iter().map(|heard| heard.weight).fold(f64::NEG_INFINITY, f64::max);
        heard.iter_mut().for_each(|heard| heard.weight = (heard.weight - most).exp());
        normalised(heard)
    }

    fn by_loss(&self, mut heard: Vec<Heard>, rules: &Rules) -> Option<Vec<Heard>> {
        for heard in &mut heard {
            heard.weight =
                self.recent[heard.place].value() + rules.lasting_share * self.lasting[heard.place].value();
        }
        let losses = || heard.iter().map(|heard| heard.weight);
        // Nobody is infinitely better than another for having been exact.
        let floor = 1e-9 * losses().fold(f64::MIN_POSITIVE, f64::max);
        let least = losses().fold(f64::INFINITY, f64::min).max(floor);
        heard
            .iter_mut()
            .for_each(|heard| heard.weight = (heard.weight.max(least) / least).powf(-rules.power));
        normalised(heard)
    }

    /// Returns the lasting loss of a member per unit of demand; `None` before it was scored.
    pub(super) fn lasting(&self, place: usize) -> Option<f64> {
        let lasting = self.lasting[place];
        (lasting.weight > 0.0).then(|| lasting.value())
    }
}

fn normalised(mut heard: Vec<Heard>) -> Option<Vec<Heard>> {
    let total: f64 = heard.iter().map(|heard| heard.weight).sum();
    heard.iter_mut().for_each(|heard| heard.weight /= total);
    (total > 0.0).then_some(heard)
}

fn mean(heard: &[Heard]) -> f64 {
    heard.iter().map(|heard| heard.weight * heard.point).sum()
}

/// The mean of the central half of the weight, the points being in order.
fn middle_mean(heard: &[Heard]) -> f64 {
    let mut ordered = heard.to_vec();
    ordered.sort_by(|a, b| a.point.total_cmp(&b.point));
    let (low, high) = (TRIMMED, 1.0 - TRIMMED);
    let (mut below, mut sum, mut inside) = (0.0, 0.0, 0.0);
    for Heard { point, weight, .. } in ordered {
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

    const RULES: Rules = Rules {
        level: 0.5,
        power: 7.0,
        keep_recent: 0.9,
        keep_lasting: 0.99,
        lasting_share: 0.2,
        rate: 1.5,
        broken_from: 4.0,
        trimmed: true,
    };

    #[test]
    fn the_middle_mean_leaves_the_ends_aside() {
        let heard = |points: &[(f64, f64)]| {
            let heard = points.iter().map(|&(point, weight)| Heard { place: 0, point, weight });
            middle_mean(&heard.collect::<Vec<_>>())
        };
        assert!((heard(&[(9.0, 0.25), (2.0, 0.25), (1.0, 0.25), (100.0, 0.25)]) - 5.5).abs() < 1e-12);
        assert!((heard(&[(7.0, 1.0)]) - 7.0).abs() < 1e-12);
        assert!((heard(&[(1.0, 0.1), (4.0, 0.8), (900.0, 0.1)]) - 4.0).abs() < 1e-12);
    }

    #[test]
    fn the_better_member_is_followed_and_a_newcomer_waits() {
        let mut jury = Jury::new(3);
        let mut gradient = f64::NAN;
        assert_eq!(jury.blend(&[1.0, 2.0, f32::NAN], &RULES), None);
        for i in 0..40_u8 {
            let actual = 10.0 + f64::from(i % 3);
            let points = [actual as f32 + 0.1, 2.0, f32::NAN];
            jury.score(&points, gradient, actual, 1.0, &RULES);
            gradient = jury.blend(&points, &RULES).map_or(f64::NAN, |verdict| verdict.gradient);
        }
        let verdict = jury.blend(&[11.0, 2.0, 500.0], &RULES).unwrap();
        assert!((verdict.point - 11.0).abs() < 1.0, "{verdict:?}");
        assert_eq!(verdict.weights.len(), 2);
        assert!(verdict.weights[0].1 > 0.9);
    }
}
