use super::WaitState;

/// Features of a state; see [`features`].
pub(super) const FEATURES: usize = 11;

/// Waits and TTFTs lie between these when a logarithm is taken, in seconds.
pub(super) const SECONDS_MIN: f64 = 1e-4;
pub(super) const SECONDS_MAX: f64 = 600.0;

/// The KV cache is short from this share on: the engine begins to hold requests back.
const KV_SHORT: f64 = 0.8;

/// The logarithm of a duration, held in the range that is plausible for a wait.
pub(super) fn log_seconds(seconds: f64) -> f64 {
    seconds.clamp(SECONDS_MIN, SECONDS_MAX).ln()
}

/// Zero for what is negative or not finite.
pub(super) fn at_least_zero(value: f64) -> f64 {
    if value.is_finite() { value.max(0.0) } else { 0.0 }
}

/// Returns the time in which the queue is served, in seconds (Little's law), at `served_rps`, the rate that was seen
/// under load, or at the present rate if that is higher; `None` when there is a queue and no such rate is known.
///
/// The present rate alone is no rate of service: on a quiet backend it is that of arrivals, and falls to zero.
pub(super) fn little_seconds(state: &WaitState, served_rps: Option<f64>) -> Option<f64> {
    let queue = at_least_zero(state.queue_depth);
    if queue == 0.0 {
        return Some(0.0);
    }
    let rate = at_least_zero(served_rps?).max(at_least_zero(state.completed_rps));
    (rate > 0.0).then(|| (queue / rate).min(SECONDS_MAX))
}

/// Returns what the regression sees of a state, given the rate of service as [`little_seconds`] takes it; NaN is
/// unknown.
///
/// Logarithms, since the target is one: a wait is a queue times an inter-token time, or a queue over a rate.
pub(super) fn features(state: &WaitState, served_rps: Option<f64>) -> [f64; FEATURES] {
    let queue = at_least_zero(state.queue_depth);
    let running = at_least_zero(state.running);
    let kv_used = at_least_zero(state.kv_used).min(1.0);
    let inter_token = positive(state.inter_token_seconds);
    let ttft = positive(state.ttft_seconds);
    let little = little_seconds(state, served_rps).unwrap_or(f64::NAN);
    [
        queue.ln_1p(),
        f64::from(queue > 0.0),
        running.ln_1p(),
        kv_used,
        (kv_used - KV_SHORT).max(0.0),
        inter_token.map_or(f64::NAN, log_seconds),
        inter_token
            .map_or(f64::NAN, |seconds| ((queue + 1.0) * seconds).clamp(SECONDS_MIN, SECONDS_MAX).ln()),
        (little + 0.05).ln(),
        ttft.map_or(f64::NAN, log_seconds),
        ttft.map_or(f64::NAN, |seconds| log_seconds(seconds + little)),
        state
            .gpu_utilisation
            .filter(|share| share.is_finite())
            .map_or(f64::NAN, |share| share.clamp(0.0, 1.0)),
    ]
}

fn positive(seconds: Option<f64>) -> Option<f64> {
    seconds.filter(|seconds| seconds.is_finite() && *seconds > 0.0)
}
