use crate::telemetry::alias::{Alias, AliasPack};
use crate::telemetry::field::{Field, Timing};

/// TensorRT-LLM's `trtllm-serve`, its Prometheus page; the array of iterations is read by `iterations.rs`.
pub const TRTLLM: AliasPack = AliasPack {
    name: "trtllm",
    aliases: &[
        Alias::value("trtllm_num_requests_waiting", Field::QueueDepth),
        Alias::value("trtllm_num_requests_running", Field::Running),
        Alias::value("trtllm_kv_cache_utilization", Field::KvUsed),
        Alias::value("trtllm_kv_cache_used_blocks", Field::KvTokensUsed),
        Alias::value("trtllm_kv_cache_max_blocks", Field::KvTokens),
        Alias::histogram("trtllm_time_to_first_token_seconds", Timing::Ttft),
        Alias::histogram("trtllm_time_per_output_token_seconds", Timing::InterToken),
        Alias::histogram("trtllm_request_queue_time_seconds", Timing::QueueWait),
        Alias::counter("trtllm_num_requests_completed", Field::Completed),
        Alias::counter("trtllm_request_success", Field::Completed).or(1),
        Alias::value("trtllm_e2e_request_latency_seconds_count", Field::Completed).or(2),
        Alias::counter("trtllm_prompt_tokens", Field::PromptTokens),
        Alias::counter("trtllm_generation_tokens", Field::OutputTokens),
        Alias::value("trtllm_max_batch_size_runtime", Field::MaxRunning),
        Alias::value("trtllm_max_num_active_requests", Field::MaxRunning).or(1),
        Alias::value("trtllm_max_num_tokens_runtime", Field::TokenBudget),
        Alias::value("trtllm_kv_cache_tokens_per_block", Field::BlockSize),
        Alias::value("trtllm_kv_cache_max_blocks", Field::Blocks),
    ],
    // Its gauges come with the first iteration.
    promises: &[],
};
