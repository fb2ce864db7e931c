use serde::{Deserialize, Serialize};

/// What the requests of a model are like, in the mean.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mix {
    /// Prompt tokens of a request.
    pub prompt_tokens: f64,
    /// Output tokens of a request.
    pub output_tokens: f64,
    /// Tokens that a running request has in the KV cache.
    pub resident_tokens: f64,
}

impl Default for Mix {
    /// A short conversation, for as long as nothing is known.
    fn default() -> Self {
        Self::of(512.0, 128.0)
    }
}

impl Mix {
    /// A mix of which only prompts and outputs are known: a running request holds its prompt and half of its output.
    pub fn of(prompt_tokens: f64, output_tokens: f64) -> Self {
        Self { prompt_tokens, output_tokens, resident_tokens: prompt_tokens + output_tokens / 2.0 }
    }
}
