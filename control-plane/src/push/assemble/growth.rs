use crate::telemetry::{DropReason, Drops, Field, Sample};

/// More requests do not end at one backend within a second,
const MOST_REQUESTS: f64 = 1e5;
/// and no more tokens are read or made by it.
const MOST_TOKENS: f64 = 1e7;
/// Shorter intervals count as this long, seconds: what comes late counts with the next reading.
const SHORTEST_SECONDS: f64 = 1.0;

/// Drops growth that cannot be, such as that of a counter whose past came with the wrong reading; `grown` tells that of a
/// counter. Means and quantiles over as much go with it.
pub(super) fn check_growth(sample: &mut Sample, grown: impl Fn(Field) -> Option<f64>, drops: &mut Drops) {
    let seconds = sample.interval_seconds.max(SHORTEST_SECONDS);
    let mut check = |field: Field, growth: &mut f64, most: f64| {
        let is_believed = *growth <= most * seconds;
        if !is_believed {
            *growth = 0.0;
            drops.add(field, DropReason::TooLarge);
        }
        is_believed
    };
    if !check(Field::Completed, &mut sample.completed, MOST_REQUESTS) {
        sample.arrived = 0.0;
    }
    check(Field::Preempted, &mut sample.preempted, MOST_REQUESTS);
    check(Field::Iterations, &mut sample.iterations, MOST_REQUESTS);
    check(Field::PromptTokens, &mut sample.prompt_tokens, MOST_TOKENS);
    check(Field::OutputTokens, &mut sample.output_tokens, MOST_TOKENS);
    check(Field::IterationTokens, &mut sample.iteration_tokens, MOST_TOKENS);
    if !check(Field::TtftCount, &mut sample.ttft_count, MOST_REQUESTS) {
        (sample.ttft_seconds, sample.ttft_p50_seconds, sample.ttft_p95_seconds) = (None, None, None);
    }
    let mut is_believed = |field, most| grown(field).is_none_or(|mut growth| check(field, &mut growth, most));
    if !is_believed(Field::InterTokenCount, MOST_TOKENS) {
        (sample.inter_token_seconds, sample.inter_token_p95_seconds) = (None, None);
    }
    if !is_believed(Field::QueueWaitCount, MOST_REQUESTS) {
        sample.queue_wait_seconds = None;
    }
}
