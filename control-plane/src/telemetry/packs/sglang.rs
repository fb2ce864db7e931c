use crate::telemetry::alias::{Alias, AliasPack};
use crate::telemetry::field::{Field, Timing};

/// SGLang, started with `--enable-metrics`.
pub const SGLANG: AliasPack = AliasPack {
    name: "sglang",
    aliases: &[
        Alias::value("sglang:num_queue_reqs", Field::QueueDepth),
        Alias::value("sglang:num_running_reqs", Field::Running),
        Alias::value("sglang:token_usage", Field::KvUsed),
        Alias::value("sglang:full_token_usage", Field::KvUsed).or(1),
        Alias::histogram("sglang:time_to_first_token_seconds", Timing::Ttft),
        Alias::histogram("sglang:inter_token_latency_seconds", Timing::InterToken),
        Alias::histogram("sglang:time_per_output_token_seconds", Timing::InterToken).or(1),
        Alias::histogram("sglang:queue_time_seconds", Timing::QueueWait),
        Alias::histogram("sglang:request_queue_time_seconds", Timing::QueueWait).or(1),
        Alias::counter("sglang:num_requests", Field::Completed),
        Alias::value("sglang:e2e_request_latency_seconds_count", Field::Completed).or(1),
        Alias::counter("sglang:prompt_tokens", Field::PromptTokens),
        Alias::counter("sglang:generation_tokens", Field::OutputTokens),
        Alias::counter("sglang:num_retracted_requests", Field::Preempted),
        Alias::value("sglang:page_size", Field::BlockSize),
        Alias::value("sglang:num_pages", Field::Blocks),
        Alias::label("sglang:cache_config_info", "page_size", Field::BlockSize).or(1),
        Alias::label("sglang:cache_config_info", "num_pages", Field::Blocks).or(1),
    ],
    promises: &[Field::QueueDepth, Field::Running, Field::KvUsed],
};
