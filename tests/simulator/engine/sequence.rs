//! A request inside the engine.

use std::fmt;

/// Names a request of one engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub(super) u64);

/// What a client asks for, in tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewRequest {
    /// Length of the prompt.
    pub prompt_tokens: u32,
    /// Length of the answer; the engine always generates exactly this many.
    pub output_tokens: u32,
}

#[derive(Debug, Clone)]
pub(super) struct Sequence {
    pub(super) id: RequestId,
    pub(super) prompt_tokens: u32,
    pub(super) output_tokens: u32,
    pub(super) generated: u32,
    /// Tokens whose keys and values are in the cache.
    pub(super) computed: u32,
    pub(super) cached: u32,
    pub(super) blocks: u32,
    pub(super) arrived_at: f64,
    pub(super) scheduled_at: Option<f64>,
    pub(super) last_token_at: Option<f64>,
    pub(super) preemptions: u32,
}

impl Sequence {
    pub(super) fn new(id: RequestId, request: NewRequest, now: f64) -> Self {
        Self {
            id,
            prompt_tokens: request.prompt_tokens,
            output_tokens: request.output_tokens,
            generated: 0,
            computed: 0,
            cached: 0,
            blocks: 0,
            arrived_at: now,
            scheduled_at: None,
            last_token_at: None,
            preemptions: 0,
        }
    }

    /// Tokens that exist: the prompt and what was generated.
    pub(super) fn known(&self) -> u32 {
        self.prompt_tokens + self.generated
    }

    /// Tokens still to be computed before the next one can be generated: 1 while decoding.
    pub(super) fn pending(&self) -> u32 {
        self.known() - self.computed
    }

    pub(super) fn is_decoding(&self) -> bool {
        self.generated > 0 && self.pending() == 1
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
