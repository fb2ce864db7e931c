//! The kinds of machines, from what their makers write of them.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Profile;

/// The model: 8 billion parameters of a byte each, with what lies beside them; per token 16 GFLOP, and 128 KiB in the cache.
const WEIGHTS_BYTES: f64 = 8.5e9;
const FLOP_PER_TOKEN: f64 = 16e9;
const CACHE_BYTES_PER_TOKEN: f64 = 131_072.0;
/// Parts of the makers' figures that engines reach, and of the memory that they take.
const REACHED_FLOPS: f64 = 0.5;
const REACHED_BANDWIDTH: f64 = 0.7;
const USED_MEMORY: f64 = 0.9;
/// What lies in memory beside the weights and the cache.
const ACTIVATIONS_BYTES: f64 = 1.5e9;
const BLOCK_TOKENS: u32 = 16;

/// A kind of GPU. Compute, bandwidth and memory shrink by different factors, so that what is a fair share for prompts is none for
/// tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Gpu {
    /// H100 SXM, 80 GB.
    H100,
    /// L40S, 48 GB.
    L40s,
    /// A100, 40 GB, which has no 8-bit floats and computes in 16 bits.
    A100,
    /// L4, 24 GB.
    L4,
}

impl Gpu {
    /// Every kind, the one that computes fastest first.
    pub const ALL: [Self; 4] = [Self::H100, Self::L40s, Self::A100, Self::L4];

    /// FLOP/s without sparsity, bytes/s of the memory, bytes of it: data sheets of the maker.
    const fn sheet(self) -> (f64, f64, f64) {
        match self {
            Self::H100 => (1979e12, 3350e9, 80e9),
            Self::L40s => (733e12, 864e9, 48e9),
            Self::A100 => (312e12, 1555e9, 40e9),
            Self::L4 => (242e12, 300e9, 24e9),
        }
    }

    /// An engine on it: an iteration reads the weights once and the cache of each sequence, and computes the tokens of prompts.
    pub fn profile(self) -> Profile {
        let (flops, bandwidth, memory) = self.sheet();
        let (flops, bandwidth) = (REACHED_FLOPS * flops, REACHED_BANDWIDTH * bandwidth);
        let cache = USED_MEMORY * memory - WEIGHTS_BYTES - ACTIVATIONS_BYTES;
        let prefill_token_seconds = FLOP_PER_TOKEN / flops;
        Profile {
            base_seconds: WEIGHTS_BYTES / bandwidth,
            sequence_seconds: 0.000_05,
            prefill_token_seconds,
            kv_token_seconds: CACHE_BYTES_PER_TOKEN / bandwidth,
            knee_sequences: 32,
            beyond_knee_seconds: prefill_token_seconds / 40.0,
            max_num_seqs: 256,
            token_budget: 2048,
            block_tokens: BLOCK_TOKENS,
            num_blocks: (cache / CACHE_BYTES_PER_TOKEN / f64::from(BLOCK_TOKENS)) as u32,
            max_waiting: usize::MAX,
        }
    }

    /// The name as written in results.
    pub const fn name(self) -> &'static str {
        match self {
            Self::H100 => "h100",
            Self::L40s => "l40s",
            Self::A100 => "a100",
            Self::L4 => "l4",
        }
    }
}

impl fmt::Display for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
