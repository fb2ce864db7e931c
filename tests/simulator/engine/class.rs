//! How fast an engine is and what fits into it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Speed and limits of an engine.
///
/// An iteration takes `a + b n + c prefill_tokens + d kv_tokens` seconds, with `n` the sequences of the batch
/// and `kv_tokens` the context that they have in the cache.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    /// a: reading the weights, launching kernels; seconds an iteration.
    pub base_seconds: f64,
    /// b: seconds a sequence.
    pub sequence_seconds: f64,
    /// c: seconds a prompt token computed.
    pub prefill_token_seconds: f64,
    /// d: seconds a token of context.
    pub kv_token_seconds: f64,
    /// Batch size beyond which an iteration grows by the square.
    pub knee_sequences: u32,
    /// Seconds for each squared sequence beyond the knee.
    pub beyond_knee_seconds: f64,
    /// Largest batch, sequences.
    pub max_num_seqs: usize,
    /// Most tokens computed in an iteration; longer prompts are computed in chunks.
    pub token_budget: u32,
    /// Tokens in a KV block.
    pub block_tokens: u32,
    /// KV blocks.
    pub num_blocks: u32,
    /// Most requests that may wait; more are refused.
    pub max_waiting: usize,
}

impl Profile {
    /// Longest prompt and output together, tokens: 128 Ki, or the whole KV cache where that is less.
    pub fn context_tokens(&self) -> u32 {
        self.num_blocks.saturating_mul(self.block_tokens).min(131_072)
    }

    /// The same machine with every time `factor` times as long.
    #[must_use]
    pub fn slowed(self, factor: f64) -> Self {
        Self {
            base_seconds: self.base_seconds * factor,
            sequence_seconds: self.sequence_seconds * factor,
            prefill_token_seconds: self.prefill_token_seconds * factor,
            kv_token_seconds: self.kv_token_seconds * factor,
            beyond_knee_seconds: self.beyond_knee_seconds * factor,
            ..self
        }
    }

    pub(super) fn blocks_for(&self, tokens: u32) -> u32 {
        tokens.div_ceil(self.block_tokens)
    }
}

/// Four kinds of simulated server.
///
/// The sustainable rates were measured in virtual time by the test `capacity_tests`: the highest Poisson rate
/// at which the TTFT of 95 % of the requests stays below 2 s, all effects on, with prompts and outputs as
/// heavy-tailed as those of a code-completion service (log-normal: prompt median 1470, mean about 2050, at most
/// 7437 tokens; output median 13, mean about 27, at most 1900 tokens).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SpeedClass {
    /// Sustains 8.1 requests/s.
    Fast,
    /// Sustains 4.0 requests/s.
    Mid,
    /// Sustains 2.8 requests/s.
    Modest,
    /// Sustains 2.0 requests/s.
    Slow,
}

impl SpeedClass {
    /// Every class, fastest first.
    pub const ALL: [Self; 4] = [Self::Fast, Self::Mid, Self::Modest, Self::Slow];

    /// Speed and limits of the class. The classes are not multiples of each other: memory, compute and cache
    /// shrink by different factors, as they do between generations of GPUs.
    pub const fn profile(self) -> Profile {
        match self {
            Self::Fast => Profile {
                base_seconds: 0.008,
                sequence_seconds: 0.000_12,
                prefill_token_seconds: 0.000_048,
                kv_token_seconds: 0.000_000_08,
                knee_sequences: 32,
                beyond_knee_seconds: 0.000_03,
                max_num_seqs: 64,
                token_budget: 2048,
                block_tokens: 16,
                num_blocks: 11_250,
                max_waiting: 4096,
            },
            Self::Mid => Profile {
                base_seconds: 0.012,
                sequence_seconds: 0.000_2,
                prefill_token_seconds: 0.000_085,
                kv_token_seconds: 0.000_000_13,
                knee_sequences: 28,
                beyond_knee_seconds: 0.000_06,
                max_num_seqs: 64,
                token_budget: 2048,
                block_tokens: 16,
                num_blocks: 8_000,
                max_waiting: 4096,
            },
            Self::Modest => Profile {
                base_seconds: 0.016,
                sequence_seconds: 0.000_25,
                prefill_token_seconds: 0.000_11,
                kv_token_seconds: 0.000_000_18,
                knee_sequences: 26,
                beyond_knee_seconds: 0.000_09,
                max_num_seqs: 48,
                token_budget: 2048,
                block_tokens: 16,
                num_blocks: 6_500,
                max_waiting: 4096,
            },
            Self::Slow => Profile {
                base_seconds: 0.018,
                sequence_seconds: 0.000_3,
                prefill_token_seconds: 0.000_136,
                kv_token_seconds: 0.000_000_22,
                knee_sequences: 24,
                beyond_knee_seconds: 0.000_12,
                max_num_seqs: 48,
                token_budget: 2048,
                block_tokens: 16,
                num_blocks: 5_500,
                max_waiting: 4096,
            },
        }
    }

    /// The measured sustainable rate of the class, rounded down, requests/s.
    pub const fn sustainable_rps(self) -> f64 {
        match self {
            Self::Fast => 8.0,
            Self::Mid => 4.0,
            Self::Modest => 2.7,
            Self::Slow => 2.0,
        }
    }

    /// The name as written on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fast => "fast",
            Self::Mid => "mid",
            Self::Modest => "modest",
            Self::Slow => "slow",
        }
    }
}

impl fmt::Display for SpeedClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is no speed class.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown speed class {0:?}: give fast, mid, modest or slow")]
pub struct UnknownClass(String);

impl FromStr for SpeedClass {
    type Err = UnknownClass;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|class| class.name() == name).ok_or_else(|| UnknownClass(name.to_owned()))
    }
}
