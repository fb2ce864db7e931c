use crate::telemetry::alias::{Alias, AliasPack};
use crate::telemetry::field::{Field, Timing};

/// vLLM, from the releases that spoke of a GPU cache to the current ones.
pub const VLLM: AliasPack = AliasPack {
    name: "vllm",
    aliases: &[
        Alias::value("vllm:num_requests_waiting", Field::QueueDepth),
        Alias::value("vllm:num_requests_waiting_by_reason", Field::QueueDepth).or(1),
        Alias::value("vllm:num_requests_running", Field::Running),
        Alias::value("vllm:kv_cache_usage_perc", Field::KvUsed),
        Alias::value("vllm:gpu_cache_usage_perc", Field::KvUsed).or(1),
        Alias::histogram("vllm:time_to_first_token_seconds", Timing::Ttft),
        Alias::histogram("vllm:inter_token_latency_seconds", Timing::InterToken),
        Alias::histogram("vllm:time_per_output_token_seconds", Timing::InterToken).or(1),
        // One mean per request: better than nothing, as a mean over requests.
        Alias::histogram("vllm:request_time_per_output_token_seconds", Timing::InterToken).or(2),
        Alias::histogram("vllm:request_queue_time_seconds", Timing::QueueWait),
        Alias::histogram("vllm:time_in_queue_requests", Timing::QueueWait).or(1),
        Alias::counter("vllm:request_success", Field::Completed),
        Alias::value("vllm:e2e_request_latency_seconds_count", Field::Completed).or(1),
        Alias::counter("vllm:prompt_tokens", Field::PromptTokens),
        Alias::counter("vllm:generation_tokens", Field::OutputTokens),
        Alias::counter("vllm:num_preemptions", Field::Preempted),
        // A histogram in spite of its name.
        Alias::value("vllm:iteration_tokens_total_count", Field::Iterations),
        Alias::value("vllm:iteration_tokens_total_sum", Field::IterationTokens),
        Alias::label("vllm:cache_config_info", "block_size", Field::BlockSize),
        Alias::label("vllm:cache_config_info", "num_gpu_blocks", Field::Blocks),
    ],
    promises: &[Field::QueueDepth, Field::Running, Field::KvUsed],
};
