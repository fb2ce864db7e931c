//! What the control plane learns of an engine of which it sees no more than counters, once a second.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, LogNormal};

use clairvoy::decide::{EngineSize, Interval, Learner, Stretch};

use super::{Effects, Engine, EngineConfig, NewRequest, SpeedClass, TokenGap};

/// Requests of one kind: rate, medians of prompts and outputs.
#[derive(Clone, Copy)]
struct Phase {
    rps: f64,
    prompt: f64,
    output: f64,
}

/// An engine under traffic, and who learns of it.
struct Bench {
    engine: Engine,
    random: StdRng,
    learner: Learner,
    stretch: Stretch,
    now: f64,
    next_arrival: f64,
    running: f64,
    /// Whether the learner is told of steps.
    tells_steps: bool,
}

impl Bench {
    fn new(class: SpeedClass, seed: u64, tells_steps: bool) -> Self {
        let profile = class.profile();
        Self {
            engine: Engine::new(EngineConfig { profile, effects: Effects::all(), seed }),
            random: StdRng::seed_from_u64(seed),
            learner: Learner::default(),
            stretch: Stretch::default(),
            now: 0.0,
            next_arrival: 0.0,
            running: 0.0,
            tells_steps,
        }
    }

    /// A second of traffic, learned from; returns the slowdown.
    fn second(&mut self, phase: Phase) -> f64 {
        let end = self.now + 1.0;
        let mut done = Vec::new();
        let draw = |median: f64| LogNormal::new(median.ln(), 0.7).unwrap();
        let (prompt, output) = (draw(phase.prompt), draw(phase.output));
        self.next_arrival = self.next_arrival.max(self.now);
        while self.next_arrival < end {
            done.extend(self.engine.advance(self.next_arrival));
            let request = NewRequest {
                prompt_tokens: prompt.sample(&mut self.random).clamp(3.0, 8000.0) as u32,
                output_tokens: output.sample(&mut self.random).clamp(1.0, 2000.0) as u32,
            };
            self.engine.submit(self.next_arrival, request).unwrap();
            self.next_arrival -= (1.0 - self.random.random::<f64>()).ln() / phase.rps;
        }
        done.extend(self.engine.advance(end));
        let outputs: Vec<_> = done.iter().flat_map(|iteration| &iteration.outputs).collect();
        let gap = |gap: TokenGap| match gap {
            TokenGap::Next { seconds } => Some(seconds),
            TokenGap::First { .. } => None,
        };
        let gaps: Vec<f64> = outputs.iter().filter_map(|output| gap(output.gap)).collect();
        let first = |gap: TokenGap| match gap {
            TokenGap::First { ttft_seconds, prompt_tokens, .. } => {
                Some((ttft_seconds, f64::from(prompt_tokens)))
            }
            TokenGap::Next { .. } => None,
        };
        let firsts: Vec<(f64, f64)> = outputs.iter().filter_map(|output| first(output.gap)).collect();
        let mean =
            |values: &[f64]| (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64);
        let prefilled: f64 = done.iter().map(|iteration| f64::from(iteration.prefill_tokens)).sum();
        let (state, size) = (self.engine.state(), self.size());
        let running = state.running as f64;
        let interval = Interval {
            seconds: 1.0,
            running_before: self.running,
            running,
            completed: outputs.iter().filter(|output| output.completion.is_some()).count() as f64,
            ttft_seconds: mean(&firsts.iter().map(|(ttft, _)| *ttft).collect::<Vec<_>>()),
            ttft_count: firsts.len() as f64,
            inter_token_seconds: mean(&gaps),
            iterations: if self.tells_steps { done.len() as f64 } else { 0.0 },
            iteration_tokens: prefilled + outputs.len() as f64,
            prompt_tokens: firsts.iter().map(|(_, tokens)| tokens).sum(),
            output_tokens: outputs.len() as f64,
            resident_tokens: size.kv_tokens.map(|tokens| tokens * state.kv_used),
            resident_per_sequence: 1000.0,
        };
        if let Some(iteration) = self.stretch.take(interval).and_then(|whole| whole.iteration()) {
            self.learner.observe(&iteration);
        }
        (self.now, self.running) = (end, running);
        self.learner.slowdown()
    }

    fn minute(&mut self, phase: Phase) {
        for _ in 0..60 {
            self.second(phase);
        }
    }

    fn size(&self) -> EngineSize {
        let profile = self.engine.profile();
        EngineSize {
            max_sequences: Some(profile.max_num_seqs as f64),
            kv_tokens: Some(f64::from(profile.num_blocks) * f64::from(profile.block_tokens)),
            token_budget: Some(f64::from(profile.token_budget)),
        }
    }
}

/// Light and heavy load, short and long prompts, few and many outputs.
fn phases(class: SpeedClass) -> [Phase; 5] {
    let rps = class.sustainable_rps();
    [
        Phase { rps: 0.1 * rps, prompt: 500.0, output: 100.0 },
        Phase { rps: 0.6 * rps, prompt: 1500.0, output: 20.0 },
        Phase { rps: 0.4 * rps, prompt: 300.0, output: 250.0 },
        Phase { rps: 0.9 * rps, prompt: 150.0, output: 60.0 },
        Phase { rps: 0.2 * rps, prompt: 4000.0, output: 100.0 },
    ]
}

#[test]
fn changes_of_load_and_mix_are_no_slowdown_and_throttling_is_one() {
    for tells_steps in [true, false] {
        for (seed, class) in SpeedClass::ALL.into_iter().enumerate() {
            let mut bench = Bench::new(class, seed as u64 + 1, tells_steps);
            let mut off = Vec::new();
            for round in 0..3 {
                for (number, phase) in phases(class).into_iter().enumerate() {
                    for second in 0..120 {
                        let slowdown = bench.second(phase);
                        if !(0.6..1.4).contains(&slowdown) {
                            off.push((round, number, second, slowdown));
                        }
                    }
                }
            }
            assert!(off.len() < 10, "{class}, steps {tells_steps}: {} {off:?}", off.len());
            let phase = phases(class)[2];
            bench.minute(phase);
            bench.engine.set_slow_factor(4.0);
            let slow: Vec<f64> = (0..20).map(|_| bench.second(phase)).collect();
            assert!((2.8..5.2).contains(&slow[8]), "{class}, steps {tells_steps}: {slow:?}");
        }
    }
}

#[test]
fn the_profile_tells_how_long_iterations_take() {
    for (seed, class) in SpeedClass::ALL.into_iter().enumerate() {
        let mut bench = Bench::new(class, seed as u64 + 10, true);
        for phase in phases(class).into_iter().cycle().take(10) {
            bench.minute(phase);
        }
        let found = bench.learner.profile(&bench.size()).unwrap();
        let truth = class.profile();
        for (sequences, prompt, resident) in [(4.0, 0.0, 3e3), (10.0, 200.0, 1e4), (20.0, 400.0, 3e4)] {
            let expected = truth.base_seconds
                + truth.sequence_seconds * sequences
                + truth.prefill_token_seconds * prompt
                + truth.kv_token_seconds * resident;
            let ratio = found.iteration_seconds(sequences, prompt, resident) / expected;
            assert!((0.75..1.3).contains(&ratio), "{class} at {sequences}: {ratio} {found:?}");
        }
    }
}
