use super::field::Field;

/// One spelling of one field on a metrics page.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Alias {
    /// Name of the series as it stands on the page, suffixes included.
    pub series: &'static str,
    /// What it means.
    pub field: Field,
    /// Of several spellings on one page the one with the lowest preference is read.
    pub preference: u8,
    /// What a value is multiplied with to reach the field's unit.
    pub scale: f64,
}

/// The spellings of one engine or exporter. A further engine is a further pack, not further code.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AliasPack {
    /// Name of the engine or exporter.
    pub name: &'static str,
    /// Its spellings; a field may have several.
    pub aliases: &'static [Alias],
}

const fn alias(series: &'static str, field: Field, preference: u8) -> Alias {
    Alias { series, field, preference, scale: 1.0 }
}

/// vLLM, from the releases that spoke of a GPU cache to the current ones; counters with and without `_total`.
pub const VLLM: AliasPack = AliasPack {
    name: "vllm",
    aliases: &[
        alias("vllm:num_requests_waiting", Field::QueueDepth, 0),
        alias("vllm:num_requests_waiting_by_reason", Field::QueueDepth, 1),
        alias("vllm:num_requests_running", Field::Running, 0),
        alias("vllm:kv_cache_usage_perc", Field::KvUsed, 0),
        alias("vllm:gpu_cache_usage_perc", Field::KvUsed, 1),
        alias("vllm:time_to_first_token_seconds_sum", Field::TtftSum, 0),
        alias("vllm:time_to_first_token_seconds_count", Field::TtftCount, 0),
        alias("vllm:inter_token_latency_seconds_sum", Field::InterTokenSum, 0),
        alias("vllm:inter_token_latency_seconds_count", Field::InterTokenCount, 0),
        alias("vllm:time_per_output_token_seconds_sum", Field::InterTokenSum, 1),
        alias("vllm:time_per_output_token_seconds_count", Field::InterTokenCount, 1),
        alias("vllm:request_success_total", Field::Completed, 0),
        alias("vllm:request_success", Field::Completed, 1),
        alias("vllm:prompt_tokens_total", Field::PromptTokens, 0),
        alias("vllm:prompt_tokens", Field::PromptTokens, 1),
        alias("vllm:generation_tokens_total", Field::OutputTokens, 0),
        alias("vllm:generation_tokens", Field::OutputTokens, 1),
    ],
};

/// NVIDIA's DCGM exporter. MIG slices have no utilisation gauge, but the profiling one.
pub const DCGM: AliasPack = AliasPack {
    name: "dcgm",
    aliases: &[
        Alias { series: "DCGM_FI_DEV_GPU_UTIL", field: Field::GpuUtilisation, preference: 0, scale: 0.01 },
        alias("DCGM_FI_PROF_GR_ENGINE_ACTIVE", Field::GpuUtilisation, 1),
    ],
};
