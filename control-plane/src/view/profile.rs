use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What an iteration of a backend's engine costs at its usual speed, and what fits into it, learned: of the backend itself, or
/// of its pool's backends in general until it has shown enough.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ProfileView {
    /// Seconds of every iteration.
    pub fixed_seconds: f64,
    /// Seconds of each sequence in the batch.
    pub per_sequence_seconds: f64,
    /// Seconds of each prompt token that is prefilled.
    pub per_prompt_token_seconds: f64,
    /// Seconds of each token in the KV cache.
    pub per_kv_token_seconds: f64,
    /// Most sequences in a batch; none while that is unknown.
    pub max_sequences: Option<f64>,
    /// Tokens that the KV cache holds; none while that is unknown.
    pub kv_tokens: Option<f64>,
    /// Most tokens of an iteration; none while that is unknown.
    pub token_budget: Option<f64>,
    /// Requests/s, of the kind that its model has at present, that it completes with a full batch at its usual speed.
    pub capacity_rps: f64,
    /// Iterations that were observed of the backend itself.
    pub observations: f64,
    /// Standard error of the modelled time of an iteration like the last one, in parts of it.
    pub relative_error: f64,
}
