//! What vLLM would have counted.

use crate::engine::{Iteration, TokenGap};

use super::histogram::{
    Histogram, INTER_TOKEN_EDGES, ITERATION_TOKEN_EDGES, REQUEST_EDGES, REQUEST_TOKEN_EDGES, TTFT_EDGES,
};

/// Why an answer ended, in vLLM's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FinishReason {
    /// The model had said all it wanted: the simulated length was reached before the client's limit.
    Stop,
    /// The client's limit was reached.
    Length,
    /// The client went away.
    Abort,
}

impl FinishReason {
    pub(super) const ALL: [Self; 3] = [Self::Stop, Self::Length, Self::Abort];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::Abort => "abort",
        }
    }
}

/// Counters and histograms; the gauges come from the engine when the page is read.
#[derive(Debug)]
pub(super) struct Metrics {
    pub(super) prompt_tokens: u64,
    pub(super) generation_tokens: u64,
    finished: [u64; 3],
    pub(super) injected_errors: u64,
    pub(super) ttft: Histogram,
    pub(super) inter_token: Histogram,
    pub(super) e2e: Histogram,
    pub(super) queue: Histogram,
    pub(super) iteration_tokens: Histogram,
    pub(super) request_prompt_tokens: Histogram,
    pub(super) request_generation_tokens: Histogram,
}

impl Metrics {
    pub(super) fn new() -> Self {
        Self {
            prompt_tokens: 0,
            generation_tokens: 0,
            finished: [0; 3],
            injected_errors: 0,
            ttft: Histogram::new(TTFT_EDGES),
            inter_token: Histogram::new(INTER_TOKEN_EDGES),
            e2e: Histogram::new(REQUEST_EDGES),
            queue: Histogram::new(REQUEST_EDGES),
            iteration_tokens: Histogram::new(ITERATION_TOKEN_EDGES),
            request_prompt_tokens: Histogram::new(REQUEST_TOKEN_EDGES),
            request_generation_tokens: Histogram::new(REQUEST_TOKEN_EDGES),
        }
    }

    pub(super) fn observe(&mut self, iteration: &Iteration) {
        let mut prompt_tokens = 0;
        for output in &iteration.outputs {
            match output.gap {
                TokenGap::First { ttft_seconds, prompt_tokens: tokens, .. } => {
                    self.ttft.observe(ttft_seconds);
                    prompt_tokens += u64::from(tokens);
                }
                TokenGap::Next { seconds } => self.inter_token.observe(seconds),
            }
            if let Some(completion) = output.completion {
                self.e2e.observe(completion.e2e_seconds);
                self.queue.observe(completion.queue_seconds);
                self.request_prompt_tokens.observe(f64::from(completion.prompt_tokens));
                self.request_generation_tokens.observe(f64::from(completion.output_tokens));
            }
        }
        let generated = iteration.outputs.len() as u64;
        self.prompt_tokens += prompt_tokens;
        self.generation_tokens += generated;
        // As in vLLM: a step that yields no token is not counted, and a chunked prompt counts as a whole in the
        // step that completes it.
        if generated > 0 {
            self.iteration_tokens.observe((prompt_tokens + generated) as f64);
        }
    }

    pub(super) fn finished(&mut self, reason: FinishReason) {
        self.finished[reason as usize] += 1;
    }

    pub(super) fn finished_total(&self, reason: FinishReason) -> u64 {
        self.finished[reason as usize]
    }
}
