use crate::telemetry::alias::{Alias, AliasPack};
use crate::telemetry::field::{Field, Timing};

/// Text Generation Inference. It has no time to first token and no gauge of its cache: that is estimated as the part
/// of the largest batch, in tokens, that the present one may grow to.
pub const TGI: AliasPack = AliasPack {
    name: "tgi",
    aliases: &[
        Alias::value("tgi_queue_size", Field::QueueDepth),
        Alias::value("tgi_batch_current_size", Field::Running),
        Alias::value("tgi_batch_current_max_tokens", Field::KvTokensUsed),
        Alias::value("tgi_batch_max_total_tokens", Field::KvTokens),
        Alias::histogram("tgi_request_mean_time_per_token_duration", Timing::InterToken),
        Alias::histogram("tgi_request_queue_duration", Timing::QueueWait),
        Alias::counter("tgi_request_success", Field::Completed),
        Alias::value("tgi_request_duration_count", Field::Completed).or(1),
        Alias::value("tgi_request_input_length_sum", Field::PromptTokens),
        Alias::value("tgi_request_generated_tokens_sum", Field::OutputTokens),
        // A forward pass of prefill, or one of decoding.
        Alias::counter("tgi_batch_inference_count", Field::Iterations),
    ],
    // Each of its metrics comes with the first request that concerns it.
    promises: &[],
};
