//! One iteration: who takes part, how long it takes, what comes out.

use rand::RngExt;
use rand_distr::{Distribution, StandardNormal};

use super::{Completion, Engine, Iteration, Output, RequestId, TokenGap};

/// Chance that a prompt shares its beginning with an earlier one.
const PREFIX_HIT_PROBABILITY: f64 = 0.25;
/// The shared part of such a prompt is uniform over this range.
const PREFIX_HIT_PART: std::ops::Range<f64> = 0.1..0.8;
/// Standard deviation of the logarithm of the noise: 8 %, what batch shape and clock changes do on real GPUs.
const NOISE_SIGMA: f64 = 0.08;

/// An iteration that has begun.
#[derive(Debug)]
pub(super) struct InFlight {
    pub(super) started_at: f64,
    pub(super) ends_at: f64,
    batch: Batch,
}

#[derive(Debug, Default)]
struct Batch {
    /// Tokens computed for each sequence.
    chunks: Vec<(RequestId, u32)>,
    prefill_tokens: u32,
    kv_tokens: u64,
}

impl Engine {
    /// Starts the next iteration at `now`, if there is anything to do.
    pub(super) fn begin(&mut self, now: f64) {
        let batch = self.schedule(now);
        if batch.chunks.is_empty() {
            return;
        }
        let seconds = self.seconds(&batch);
        self.in_flight = Some(InFlight { started_at: now, ends_at: now + seconds, batch });
    }

    fn schedule(&mut self, now: f64) -> Batch {
        let mut batch = Batch::default();
        let mut budget = self.config.profile.token_budget;
        let preemptions = self.totals.preemptions;
        let mut index = 0;
        while index < self.running.len() && budget > 0 {
            let chunk = self.running[index].pending().min(budget);
            let tokens = self.running[index].computed + chunk;
            if !self.grow(index, tokens) {
                break;
            }
            self.add(&mut batch, index, chunk);
            budget -= chunk;
            index += 1;
        }
        // A request admitted right after a preemption would take the blocks that were just freed.
        if self.totals.preemptions == preemptions {
            while budget > 0 && self.running.len() < self.config.profile.max_num_seqs && self.admit(now) {
                let newest = self.running.len() - 1;
                let chunk = self.running[newest].pending().min(budget);
                self.add(&mut batch, newest, chunk);
                budget -= chunk;
            }
        }
        batch
    }

    fn add(&self, batch: &mut Batch, index: usize, chunk: u32) {
        let sequence = &self.running[index];
        batch.chunks.push((sequence.id, chunk));
        batch.kv_tokens += u64::from(sequence.computed);
        if !sequence.is_decoding() {
            batch.prefill_tokens += chunk;
        }
    }

    /// Gives a running sequence blocks for `tokens`, preempting the newest ones while there are too few. False
    /// when the sequence itself had to go.
    fn grow(&mut self, index: usize, tokens: u32) -> bool {
        loop {
            let missing = self.config.profile.blocks_for(tokens).saturating_sub(self.running[index].blocks);
            if missing <= self.free_blocks {
                self.free_blocks -= missing;
                self.running[index].blocks += missing;
                return true;
            }
            self.preempt_newest();
            if self.running.len() == index {
                return false;
            }
        }
    }

    fn preempt_newest(&mut self) {
        let Some(mut sequence) = self.running.pop() else { return };
        self.free_blocks += sequence.blocks;
        sequence.blocks = 0;
        sequence.computed = 0;
        sequence.preemptions += 1;
        self.totals.preemptions += 1;
        self.waiting.push_front(sequence);
    }

    /// Moves the head of the queue into the batch if its blocks are free: those of the tokens that it has, or
    /// of its whole length when there is no preemption.
    fn admit(&mut self, now: f64) -> bool {
        let Some(head) = self.waiting.front() else { return false };
        let tokens = if self.config.effects.preemption {
            head.known()
        } else {
            head.prompt_tokens + head.output_tokens
        };
        let blocks = self.config.profile.blocks_for(tokens);
        if blocks > self.free_blocks {
            return false;
        }
        let Some(mut sequence) = self.waiting.pop_front() else { return false };
        self.free_blocks -= blocks;
        sequence.blocks = blocks;
        if sequence.scheduled_at.is_none() {
            sequence.scheduled_at = Some(now);
            if self.config.effects.prefix_cache {
                sequence.cached = self.draw_cached(sequence.prompt_tokens);
                sequence.computed = sequence.cached;
                self.totals.prefix_queries += u64::from(sequence.prompt_tokens);
                self.totals.prefix_hits += u64::from(sequence.cached);
            }
        }
        self.running.push(sequence);
        true
    }

    /// Whole blocks only, and never the last token: something must be computed to generate from.
    fn draw_cached(&mut self, prompt_tokens: u32) -> u32 {
        let hit = self.prefix.random_bool(PREFIX_HIT_PROBABILITY);
        let part: f64 = self.prefix.random_range(PREFIX_HIT_PART);
        if !hit {
            return 0;
        }
        let block = self.config.profile.block_tokens;
        let tokens = (f64::from(prompt_tokens) * part) as u32;
        (tokens / block * block).min(prompt_tokens - 1)
    }

    fn seconds(&mut self, batch: &Batch) -> f64 {
        let profile = &self.config.profile;
        let sequences = batch.chunks.len() as f64;
        let mut seconds = profile.base_seconds
            + profile.sequence_seconds * sequences
            + profile.prefill_token_seconds * f64::from(batch.prefill_tokens)
            + profile.kv_token_seconds * batch.kv_tokens as f64;
        if self.config.effects.nonlinear {
            let beyond = (sequences - f64::from(profile.knee_sequences)).max(0.0);
            seconds += profile.beyond_knee_seconds * beyond * beyond;
        }
        if self.config.effects.noise {
            let normal: f64 = StandardNormal.sample(&mut self.noise);
            seconds *= (NOISE_SIGMA * normal - NOISE_SIGMA * NOISE_SIGMA / 2.0).exp();
        }
        seconds * self.slow_factor
    }

    /// Hands out the tokens of an iteration that has ended.
    pub(super) fn finish(&mut self, in_flight: InFlight) -> Iteration {
        let InFlight { started_at, ends_at, batch } = in_flight;
        let sequences = batch.chunks.len();
        let mut outputs = Vec::with_capacity(sequences);
        for (id, chunk) in batch.chunks {
            // Absent when it was cancelled in the meantime.
            let Some(index) = self.running.iter().position(|sequence| sequence.id == id) else { continue };
            let sequence = &mut self.running[index];
            sequence.computed += chunk;
            if sequence.pending() > 0 {
                continue;
            }
            sequence.generated += 1;
            let gap = match sequence.last_token_at {
                None => TokenGap::First {
                    ttft_seconds: ends_at - sequence.arrived_at,
                    prompt_tokens: sequence.prompt_tokens,
                    cached_tokens: sequence.cached,
                },
                Some(at) => TokenGap::Next { seconds: ends_at - at },
            };
            sequence.last_token_at = Some(ends_at);
            let mut completion = None;
            if sequence.generated == sequence.output_tokens {
                completion = Some(Completion {
                    e2e_seconds: ends_at - sequence.arrived_at,
                    queue_seconds: sequence.scheduled_at.unwrap_or(ends_at) - sequence.arrived_at,
                    prompt_tokens: sequence.prompt_tokens,
                    output_tokens: sequence.generated,
                    preemptions: sequence.preemptions,
                });
                self.free_blocks += sequence.blocks;
                self.running.remove(index);
                self.totals.completed += 1;
            }
            outputs.push(Output { id, gap, completion });
        }
        self.totals.iterations += 1;
        Iteration {
            started_at,
            ended_at: ends_at,
            sequences,
            prefill_tokens: batch.prefill_tokens,
            kv_tokens: batch.kv_tokens,
            outputs,
        }
    }
}
