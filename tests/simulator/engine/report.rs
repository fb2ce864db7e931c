//! What the engine tells of its work.

use serde::{Deserialize, Serialize};

use super::RequestId;

/// One finished iteration. Times are the caller's seconds.
#[derive(Debug, Clone, PartialEq)]
pub struct Iteration {
    /// When it began.
    pub started_at: f64,
    /// When it ended; its tokens exist from here on.
    pub ended_at: f64,
    /// Sequences in the batch.
    pub sequences: usize,
    /// Prompt tokens computed (prefill, after a preemption also recomputed output).
    pub prefill_tokens: u32,
    /// Tokens of context that the batch had in the KV cache.
    pub kv_tokens: u64,
    /// One entry for each token generated.
    pub outputs: Vec<Output>,
}

impl Iteration {
    /// Length of the iteration.
    pub fn seconds(&self) -> f64 {
        self.ended_at - self.started_at
    }
}

/// One generated token.
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    /// Whose token.
    pub id: RequestId,
    /// How long it was waited for.
    pub gap: TokenGap,
    /// Set with the last token of a request.
    pub completion: Option<Completion>,
}

/// How long a token was waited for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum TokenGap {
    /// The first token of a request.
    First {
        /// From arrival.
        ttft_seconds: f64,
        /// Length of the prompt.
        prompt_tokens: u32,
        /// Of these, found in the prefix cache.
        cached_tokens: u32,
    },
    /// Any later token.
    Next {
        /// From the token before.
        seconds: f64,
    },
}

/// The account of a finished request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Completion {
    /// From arrival to the last token.
    pub e2e_seconds: f64,
    /// From arrival to the first admission; later preemptions do not count, as in vLLM.
    pub queue_seconds: f64,
    /// Length of the prompt.
    pub prompt_tokens: u32,
    /// Tokens generated.
    pub output_tokens: u32,
    /// How often it was preempted.
    pub preemptions: u32,
}

/// Counts since the engine began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Totals {
    /// Requests taken.
    pub submitted: u64,
    /// Requests refused because the queue was full.
    pub refused: u64,
    /// Requests answered in full.
    pub completed: u64,
    /// Requests taken out by the caller.
    pub cancelled: u64,
    /// Sequences put back to the queue for want of KV blocks.
    pub preemptions: u64,
    /// Iterations finished.
    pub iterations: u64,
    /// Tokens looked up in the prefix cache.
    pub prefix_queries: u64,
    /// Tokens found there.
    pub prefix_hits: u64,
}

/// The engine at one instant.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct EngineState {
    /// Sequences in the batch.
    pub running: usize,
    /// Requests in the queue.
    pub waiting: usize,
    /// Part of the KV blocks in use, 0 to 1.
    pub kv_used: f64,
    /// Factor on iteration times; 1 is healthy.
    pub slow_factor: f64,
    /// Counts since the engine began.
    pub totals: Totals,
}
