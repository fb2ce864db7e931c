use serde::{Deserialize, Serialize};

use super::field::Field;
use super::reading::EngineReading;
use super::sample::Sample;

/// How far an engine goes, as far as it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// Most requests in a batch (vLLM's `max_num_seqs`).
    pub max_running: Option<Limit>,
    /// Most tokens in a step (vLLM's `max_num_batched_tokens`).
    pub token_budget: Option<Limit>,
    /// Tokens in a block of the KV cache.
    pub block_size: Option<Limit>,
    /// Blocks of the KV cache, over all data-parallel engines.
    pub blocks: Option<Limit>,
}

/// One limit, and who says so.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Limit {
    /// Its value.
    pub value: f64,
    /// Who says so.
    pub source: LimitSource,
}

/// Who says what a limit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitSource {
    /// The configuration.
    Configured,
    /// The engine.
    Exported,
    /// The most that was seen: the limit is no lower.
    Learned,
}

/// Limits as they are configured.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ConfiguredLimits {
    /// Most requests in a batch.
    pub max_running: Option<f64>,
    /// Most tokens in a step.
    pub token_budget: Option<f64>,
    /// Tokens in a block of the KV cache.
    pub block_size: Option<f64>,
    /// Blocks of the KV cache.
    pub blocks: Option<f64>,
}

/// The most that a backend has shown since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LearnedLimits {
    running: Option<f64>,
    step_tokens: Option<f64>,
}

impl LearnedLimits {
    /// Takes in what a sample shows: requests in the batch, and tokens per step as a mean over the interval.
    pub fn observe(&mut self, sample: &Sample) {
        let larger = |held: Option<f64>, seen: Option<f64>| match (held, seen.filter(|seen| *seen > 0.0)) {
            (Some(held), Some(seen)) => Some(held.max(seen)),
            (held, seen) => held.or(seen),
        };
        self.running = larger(self.running, sample.running);
        let per_step = (sample.iterations >= 1.0).then(|| sample.iteration_tokens / sample.iterations);
        self.step_tokens = larger(self.step_tokens, per_step);
    }
}

impl Limits {
    /// What is configured goes before what the engine exports, and that before what was learned.
    pub fn of(configured: &ConfiguredLimits, reading: &EngineReading, learned: &LearnedLimits) -> Self {
        let limit = |configured: Option<f64>, field, learned: Option<f64>| {
            let exported = reading.get(field).filter(|value| *value > 0.0);
            [
                (configured, LimitSource::Configured),
                (exported, LimitSource::Exported),
                (learned, LimitSource::Learned),
            ]
            .into_iter()
            .find_map(|(value, source)| Some(Limit { value: value?, source }))
        };
        Self {
            max_running: limit(configured.max_running, Field::MaxRunning, learned.running),
            token_budget: limit(configured.token_budget, Field::TokenBudget, learned.step_tokens),
            block_size: limit(configured.block_size, Field::BlockSize, None),
            blocks: limit(configured.blocks, Field::Blocks, None),
        }
    }
}

impl Limit {
    /// True unless it was only learned: then more is possible.
    pub fn is_firm(&self) -> bool {
        self.source != LimitSource::Learned
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configured_goes_before_exported_goes_before_learned() {
        let mut learned = LearnedLimits::default();
        for (running, iterations, iteration_tokens) in
            [(12.0, 10.0, 5_000.0), (30.0, 0.0, 0.0), (8.0, 5.0, 100.0)]
        {
            let sample = Sample { running: Some(running), iterations, iteration_tokens, ..Sample::default() };
            learned.observe(&sample);
        }
        let mut reading = EngineReading::default();
        let limits = Limits::of(&ConfiguredLimits::default(), &reading, &learned);
        assert_eq!(limits.max_running, Some(Limit { value: 30.0, source: LimitSource::Learned }));
        assert_eq!(limits.token_budget, Some(Limit { value: 500.0, source: LimitSource::Learned }));
        assert_eq!((limits.block_size, limits.blocks), (None, None));
        reading.set(Field::MaxRunning, 256.0);
        reading.set(Field::Blocks, 1000.0);
        let configured = ConfiguredLimits { max_running: Some(64.0), ..ConfiguredLimits::default() };
        let limits = Limits::of(&configured, &reading, &learned);
        assert_eq!(limits.max_running, Some(Limit { value: 64.0, source: LimitSource::Configured }));
        assert_eq!(limits.blocks, Some(Limit { value: 1000.0, source: LimitSource::Exported }));
    }
}
