//! What the configuration says of names and limits, as telemetry takes it.

use crate::config::{EngineLimits, HistogramName, MetricName, MetricNames};

use super::custom::CustomMetrics;
use super::field::{Field, Timing};
use super::limits::ConfiguredLimits;

pub(super) fn custom(names: &MetricNames) -> CustomMetrics {
    let mut custom = CustomMetrics::default();
    for (field, setting) in [
        (Field::QueueDepth, &names.queue_depth),
        (Field::Running, &names.running),
        (Field::KvUsed, &names.kv_used),
        (Field::GpuUtilisation, &names.gpu_utilisation),
        (Field::Completed, &names.completed),
        (Field::PromptTokens, &names.prompt_tokens),
        (Field::OutputTokens, &names.output_tokens),
        (Field::Iterations, &names.iterations),
        (Field::IterationTokens, &names.iteration_tokens),
        (Field::Preempted, &names.preempted),
    ] {
        if let Some((name, scale, only)) = setting.as_ref().map(MetricName::parts) {
            custom.value(name, field, scale, &only);
        }
    }
    for (timing, setting) in [
        (Timing::Ttft, &names.ttft),
        (Timing::InterToken, &names.inter_token),
        (Timing::QueueWait, &names.queue_wait),
    ] {
        if let Some((name, scale, only)) = setting.as_ref().map(HistogramName::parts) {
            custom.histogram(name, timing, scale, &only);
        }
    }
    custom
}

/// Zeros are no limits.
pub(super) fn limits(settings: &EngineLimits) -> ConfiguredLimits {
    let known = |limit: Option<u32>| limit.filter(|limit| *limit > 0).map(f64::from);
    ConfiguredLimits {
        max_running: known(settings.max_num_seqs),
        token_budget: known(settings.max_num_batched_tokens),
        block_size: known(settings.block_size),
        blocks: known(settings.num_blocks),
    }
}
