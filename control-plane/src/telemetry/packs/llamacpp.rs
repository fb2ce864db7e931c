use crate::telemetry::alias::{Alias, AliasPack};
use crate::telemetry::field::Field;

/// The server of llama.cpp, started with `--metrics`. It counts no requests, and current builds tell nothing of their
/// cache.
pub const LLAMACPP: AliasPack = AliasPack {
    name: "llamacpp",
    aliases: &[
        Alias::value("llamacpp:requests_deferred", Field::QueueDepth),
        Alias::value("llamacpp:requests_processing", Field::Running),
        Alias::value("llamacpp:kv_cache_usage_ratio", Field::KvUsed),
        Alias::counter("llamacpp:prompt_tokens", Field::PromptTokens),
        Alias::counter("llamacpp:tokens_predicted", Field::OutputTokens),
        Alias::counter("llamacpp:tokens_predicted_seconds", Field::InterTokenSum),
        Alias::counter("llamacpp:tokens_predicted", Field::InterTokenCount),
        Alias::counter("llamacpp:n_decode", Field::Iterations),
    ],
    promises: &[Field::QueueDepth, Field::Running],
};
