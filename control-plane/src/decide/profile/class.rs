use serde::{Deserialize, Serialize};

use super::fit::{Fit, Matrix, Prior, TERMS, Vector, add, solve};
use super::learner::{EngineSize, Learner};

/// Observations before a backend has a say in its class.
const LEAST_OBSERVATIONS: f64 = 30.0;
/// Members whose iterations take this many times as long as the median's, or as much less, are left out: they are another
/// class, or throttled.
const APART: f64 = 1.3;
/// Members beyond this many count for less each: what all know together is bounded.
const MOST_SAY: f64 = 10.0;
/// Observations for which the class counts with a member: beyond them the member's own say more.
const WEIGHT_WITH_MEMBERS: f64 = 20.0;
/// Observations for which the class as it was remembered from the last run counts.
const WEIGHT_OF_MEMORY: f64 = 100.0;

/// What the backends of a pool have in common: their observations together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassProfile {
    parameters: Vector,
    /// Of one observation in the mean.
    information: Matrix,
    /// Logarithm of how many times slower than a plausible engine.
    level: f64,
    observations: f64,
    largest_batch: f64,
    max_sequences: Option<f64>,
    kv_tokens: Option<f64>,
    token_budget: Option<f64>,
}

impl ClassProfile {
    /// The class of these members, in whatever order, with what was remembered of it; none before any of them has shown
    /// enough.
    pub fn of<'a>(
        members: impl IntoIterator<Item = (&'a Learner, EngineSize)>,
        remembered: Option<&Self>,
    ) -> Option<Self> {
        let mut known: Vec<(&Learner, &Vector, EngineSize)> = members
            .into_iter()
            .filter(|(member, _)| member.fit().observations >= LEAST_OBSERVATIONS)
            .filter_map(|(member, size)| Some((member, member.parameters()?, member.size(&size))))
            .collect();
        if known.is_empty() {
            return None;
        }
        known.sort_by(|left, right| {
            let pairs = left.0.fit().cells().zip(right.0.fit().cells());
            let mut orders = pairs.map(|(left, right)| left.total_cmp(&right));
            orders.find(|order| order.is_ne()).unwrap_or(std::cmp::Ordering::Equal)
        });
        let mut all = Matrix::default();
        known.iter().for_each(|member| add(&mut all, member.0.fit().information(), 1.0));
        let usual = lower_median(known.iter().map(|member| mean_seconds(&all, member.1)))?;
        known.retain(|member| is_like(mean_seconds(&all, member.1) / usual));
        let mut together = Fit::default();
        let weight = (MOST_SAY / known.len() as f64).min(1.0);
        known.iter().for_each(|member| together.add(member.0.fit(), weight));
        together.set_level(lower_median(known.iter().map(|member| member.0.fit().level()))?);
        let prior =
            remembered.map_or_else(|| together.prior(), |class| class.weighing(WEIGHT_OF_MEMORY, 1.0));
        let (information, moment) = together.with(&prior);
        let parameters = solve(&information, &moment)?;
        let limit = |of: fn(&EngineSize) -> Option<f64>, kept: Option<f64>| {
            lower_median(known.iter().filter_map(|member| of(&member.2))).or(kept)
        };
        let mut mean_information = Matrix::default();
        add(&mut mean_information, together.information(), 1.0 / together.weight(&parameters).max(1.0));
        Some(Self {
            parameters,
            information: mean_information,
            level: together.level(),
            observations: together.observations / weight,
            largest_batch: together.largest_batch,
            max_sequences: limit(|size| size.max_sequences, remembered.and_then(|class| class.max_sequences)),
            kv_tokens: limit(|size| size.kv_tokens, remembered.and_then(|class| class.kv_tokens)),
            token_budget: limit(|size| size.token_budget, remembered.and_then(|class| class.token_budget)),
        })
    }

    /// Whether iterations of its members take about as long by these parameters.
    pub(super) fn is_like(&self, parameters: &Vector) -> bool {
        let seconds = |parameters| mean_seconds(&self.information, parameters);
        is_like(seconds(parameters) / seconds(&self.parameters))
    }

    pub(super) fn parameters(&self) -> Vector {
        self.parameters
    }

    pub(super) fn largest_batch(&self) -> f64 {
        self.largest_batch
    }

    pub(super) fn size(&self) -> EngineSize {
        EngineSize {
            max_sequences: self.max_sequences,
            kv_tokens: self.kv_tokens,
            token_budget: self.token_budget,
        }
    }

    /// What a member is believed to be that takes `departure` times as long as the class.
    pub(super) fn prior(&self, departure: f64) -> Prior {
        self.weighing(WEIGHT_WITH_MEMBERS, departure)
    }

    fn weighing(&self, observations: f64, departure: f64) -> Prior {
        let mut prior = Prior::start(self.level + departure.ln());
        add(&mut prior.information, &self.information, observations / (departure * departure));
        prior.mean = self.parameters.map(|parameter| departure * parameter);
        prior
    }

    /// Whether it can be used: one that was saved may come from anywhere.
    pub fn is_usable(&self) -> bool {
        let cells = self.information.iter().flatten().chain(&self.parameters);
        let are_finite = cells
            .chain([&self.level, &self.observations, &self.largest_batch])
            .all(|cell| cell.is_finite() && cell.abs() < 1e9);
        let positive = self.parameters.iter().all(|value| *value >= 0.0);
        let diagonal = (0..TERMS).all(|term| self.information[term][term] >= 0.0);
        are_finite && positive && diagonal && self.observations >= 0.0 && self.largest_batch >= 0.0
    }
}

/// Time of an iteration that has in it what iterations have in the mean, weighted for relative errors; in some unit.
fn mean_seconds(information: &Matrix, parameters: &Vector) -> f64 {
    parameters.iter().zip(information[0]).map(|(parameter, part)| parameter * part).sum()
}

fn is_like(ratio: f64) -> bool {
    (1.0 / APART..=APART).contains(&ratio)
}

/// The median, or the lower of the two in the middle: of two backends the faster one is as they should be.
fn lower_median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.filter(|value| value.is_finite()).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied()
}
