//! The simulated engine: continuous batching in discrete steps, in virtual time.
//!
//! Requests wait first come first served. Each iteration gives every running sequence its next token or the
//! next chunk of its prompt, within a token budget, and then admits from the queue while there is room. How
//! long an iteration takes follows [`Profile`]. The engine has no clock: the caller says what time it is, in
//! seconds from any origin, so that a test can run an hour of traffic in a moment and a server can run the
//! same code in real time.
//!
//! Every submitted request ends once: it completes, or it is cancelled.

mod class;
mod report;
mod schedule;
mod sequence;

#[cfg(test)]
mod capacity_tests;
#[cfg(test)]
mod profile_tests;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use rand::SeedableRng;
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};

pub use self::class::{Profile, SpeedClass, UnknownClass};
pub use self::report::{Completion, EngineState, Iteration, Output, TokenGap, Totals};
pub use self::sequence::{NewRequest, RequestId};

use self::schedule::InFlight;
use self::sequence::Sequence;

/// What real engines do and a model linear in batch and tokens does not have. Each can be switched off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effects {
    /// Iterations grow faster than linearly beyond [`Profile::knee_sequences`].
    pub nonlinear: bool,
    /// Iteration times carry a multiplicative log-normal noise of mean 1.
    pub noise: bool,
    /// When the KV cache is full the newest sequence goes back to the queue and is computed again. Off: a
    /// request is admitted only when its whole length fits, so nothing is ever preempted.
    pub preemption: bool,
    /// A part of some prompts is found in the prefix cache and needs no prefill.
    pub prefix_cache: bool,
}

impl Effects {
    /// Every effect on.
    pub const fn all() -> Self {
        Self { nonlinear: true, noise: true, preemption: true, prefix_cache: true }
    }

    /// Every effect off: iteration time is exactly `a + b n + c prefill_tokens + d kv_tokens`.
    pub const fn none() -> Self {
        Self { nonlinear: false, noise: false, preemption: false, prefix_cache: false }
    }
}

/// What an engine is made of.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Speed and limits.
    pub profile: Profile,
    /// Which effects are on.
    pub effects: Effects,
    /// Seed of noise and prefix-cache draws; equal seeds and equal calls give equal results.
    pub seed: u64,
}

/// Why a request was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// Prompt and output together can never fit.
    #[error("{tokens} tokens of prompt and output exceed the context length of {limit} tokens")]
    TooLong {
        /// Prompt and output tokens asked for.
        tokens: u32,
        /// The longest that fits, tokens.
        limit: u32,
    },
    /// The waiting queue is at its limit.
    #[error("{limit} requests are waiting already")]
    QueueFull {
        /// The most requests that may wait.
        limit: usize,
    },
}

/// A continuous-batching engine in virtual time.
#[derive(Debug)]
pub struct Engine {
    config: EngineConfig,
    slow_factor: f64,
    waiting: VecDeque<Sequence>,
    /// In the order of admission: the last one is the first to be preempted.
    running: Vec<Sequence>,
    free_blocks: u32,
    in_flight: Option<InFlight>,
    next_id: u64,
    totals: Totals,
    noise: StdRng,
    prefix: StdRng,
}

impl Engine {
    /// An idle engine.
    pub fn new(config: EngineConfig) -> Self {
        Self {
            slow_factor: 1.0,
            waiting: VecDeque::new(),
            running: Vec::new(),
            free_blocks: config.profile.num_blocks,
            in_flight: None,
            next_id: 0,
            totals: Totals::default(),
            // Two generators, so that switching one effect off leaves the draws of the other as they were.
            noise: StdRng::seed_from_u64(config.seed),
            prefix: StdRng::seed_from_u64(config.seed.wrapping_add(0x9E37_79B9_7F4A_7C15)),
            config,
        }
    }

    /// Puts a request at the end of the queue. Call [`Self::advance`] to `now` before. Token counts of zero
    /// count as one.
    ///
    /// # Errors
    /// When the request can never fit, or the queue is full.
    pub fn submit(&mut self, now: f64, request: NewRequest) -> Result<RequestId, SubmitError> {
        let request = NewRequest {
            prompt_tokens: request.prompt_tokens.max(1),
            output_tokens: request.output_tokens.max(1),
        };
        let tokens = request.prompt_tokens.saturating_add(request.output_tokens);
        let limit = self.config.profile.context_tokens();
        if tokens > limit {
            return Err(SubmitError::TooLong { tokens, limit });
        }
        let limit = self.config.profile.max_waiting;
        if self.waiting.len() >= limit {
            self.totals.refused += 1;
            return Err(SubmitError::QueueFull { limit });
        }
        let id = RequestId(self.next_id);
        self.next_id += 1;
        self.totals.submitted += 1;
        self.waiting.push_back(Sequence::new(id, request, now));
        if self.in_flight.is_none() {
            self.begin(now);
        }
        Ok(id)
    }

    /// Takes a request out and frees its place at once; an iteration in flight still takes its time. Returns
    /// false when the request has ended already.
    pub fn cancel(&mut self, id: RequestId) -> bool {
        let found = if let Some(index) = self.running.iter().position(|sequence| sequence.id == id) {
            let sequence = self.running.remove(index);
            self.free_blocks += sequence.blocks;
            true
        } else if let Some(index) = self.waiting.iter().position(|sequence| sequence.id == id) {
            self.waiting.remove(index);
            true
        } else {
            false
        };
        self.totals.cancelled += u64::from(found);
        found
    }

    /// Runs every iteration that ends at or before `now`, oldest first.
    pub fn advance(&mut self, now: f64) -> Vec<Iteration> {
        let mut done = Vec::new();
        while let Some(in_flight) = self.in_flight.take_if(|in_flight| in_flight.ends_at <= now) {
            let ended_at = in_flight.ends_at;
            done.push(self.finish(in_flight));
            self.begin(ended_at);
        }
        done
    }

    /// When the iteration in flight ends; `None` when the engine is idle.
    pub fn next_end(&self) -> Option<f64> {
        self.in_flight.as_ref().map(|in_flight| in_flight.ends_at)
    }

    /// When the iteration in flight began; `None` when the engine is idle.
    pub fn busy_since(&self) -> Option<f64> {
        self.in_flight.as_ref().map(|in_flight| in_flight.started_at)
    }

    /// Keeps the iteration in flight from ending before `now`: what a stall does.
    pub fn stall_until(&mut self, now: f64) {
        if let Some(in_flight) = &mut self.in_flight {
            in_flight.ends_at = in_flight.ends_at.max(now);
        }
    }

    /// Multiplies the time of iterations that begin from now on. 1 is healthy.
    pub fn set_slow_factor(&mut self, factor: f64) {
        self.slow_factor = factor;
    }

    /// The speed and the limits.
    pub fn profile(&self) -> &Profile {
        &self.config.profile
    }

    /// Queue, batch, cache and totals as they are now.
    pub fn state(&self) -> EngineState {
        let used = self.config.profile.num_blocks - self.free_blocks;
        EngineState {
            running: self.running.len(),
            waiting: self.waiting.len(),
            kv_used: f64::from(used) / f64::from(self.config.profile.num_blocks),
            slow_factor: self.slow_factor,
            totals: self.totals,
        }
    }
}
