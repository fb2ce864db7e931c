use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use crate::config::Refresh;

/// Part by which a wait is stretched at most, so that pools and processes do not ask in step.
const JITTER: f64 = 0.1;

/// The wait until the next lookup: the TTL within the bounds; after failures in a row the shortest time, doubled by each.
/// It is stretched by up to a tenth, never shortened: what is cached up to its TTL is not asked for again before.
pub(super) fn pause(
    refresh: Refresh,
    ttl: Option<Duration>,
    failures: u32,
    seed: u64,
    round: u64,
) -> Duration {
    let (min, max) = (refresh.min.0, refresh.max.0.max(refresh.min.0));
    let wait = match ttl {
        Some(ttl) => ttl.clamp(min, max),
        None => min.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(max),
    };
    let mut hasher = DefaultHasher::new();
    (seed, round).hash(&mut hasher);
    // The upper 32 bits as a number from 0 to 1.
    let upper = u32::try_from(hasher.finish() >> 32).unwrap_or(u32::MAX);
    wait.mul_f64(1.0 + JITTER * f64::from(upper) / f64::from(u32::MAX))
}
