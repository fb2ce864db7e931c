use crate::telemetry::alias::{Alias, AliasPack};
use crate::telemetry::field::{Field, Timing};

/// Triton, with the TensorRT-LLM backend or any other.
///
/// `nv_inference_exec_count` counts executed batches since the start; it is no number of running requests, and the
/// classic backends have none. Each model of an ensemble counts the requests that run through it, so one of them stands for
/// all; their waits in the queue add up.
pub const TRITON: AliasPack = AliasPack {
    name: "triton",
    aliases: &[
        Alias::value("nv_trt_llm_request_metrics", Field::QueueDepth).only("request_type", "waiting"),
        Alias::value("nv_inference_pending_request_count", Field::QueueDepth).or(1),
        Alias::value("nv_trt_llm_request_metrics", Field::Running).only("request_type", "scheduled"),
        Alias::value("nv_trt_llm_request_metrics", Field::MaxRunning).only("request_type", "max"),
        Alias::value("nv_trt_llm_kv_cache_block_metrics", Field::KvUsed)
            .only("kv_cache_block_type", "fraction"),
        Alias::value("nv_trt_llm_kv_cache_block_metrics", Field::BlockSize)
            .only("kv_cache_block_type", "tokens_per"),
        Alias::value("nv_trt_llm_kv_cache_block_metrics", Field::Blocks).only("kv_cache_block_type", "max"),
        Alias::histogram("nv_inference_first_response_histogram_ms", Timing::Ttft).scaled(1e-3),
        Alias::counter("nv_inference_queue_duration_us", Field::QueueWaitSum).scaled(1e-6),
        Alias::counter("nv_inference_request_success", Field::QueueWaitCount).steps("model"),
        Alias::counter("nv_inference_request_success", Field::Completed).steps("model"),
        Alias::value("nv_gpu_utilization", Field::GpuUtilisation).or(2),
    ],
    promises: &[Field::QueueDepth],
};
