use serde::{Deserialize, Serialize};

/// What one iteration of a backend's engine costs, and what fits into it: `seconds = fixed + per_sequence n + per_prompt_token prefilled + per_kv_token resident` at its usual speed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    /// An iteration of an empty batch, seconds.
    pub fixed_seconds: f64,
    /// A sequence in the batch, seconds.
    pub per_sequence_seconds: f64,
    /// A token of a prompt that is computed, seconds.
    pub per_prompt_token_seconds: f64,
    /// A token that lies in the KV cache, seconds.
    pub per_kv_token_seconds: f64,
    /// Most sequences in a batch; none: not limited by number.
    pub max_sequences: Option<f64>,
    /// Tokens that the KV cache holds; none: unknown.
    pub kv_tokens: Option<f64>,
    /// Tokens of one iteration; none: unknown.
    pub token_budget: Option<f64>,
}
