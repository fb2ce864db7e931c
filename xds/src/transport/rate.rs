//! A limit of how often something may happen.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// At most `per_second` events on average, and `burst` at once after a quiet time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// Events per second in the long run.
    pub per_second: NonZeroU32,
    /// Events that may come at once.
    pub burst: NonZeroU32,
}

impl RateLimit {
    /// Nanoseconds in which one event becomes free.
    fn interval(self) -> u64 {
        1_000_000_000 / u64::from(self.per_second.get())
    }

    /// Given the time at which all tokens would be back, that time after one more event at `now`; `None` if
    /// there is no token left. Both in nanoseconds since any fixed moment.
    fn take(self, full_at: u64, now: u64) -> Option<u64> {
        let interval = self.interval();
        let next = full_at.max(now) + interval;
        (next - now <= interval * u64::from(self.burst.get())).then_some(next)
    }
}

/// Events counted against a [`RateLimit`], from any thread.
#[derive(Debug)]
pub(super) struct Limiter {
    limit: RateLimit,
    begin: Instant,
    full_at: AtomicU64,
}

impl Limiter {
    pub(super) fn new(limit: RateLimit, now: Instant) -> Self {
        Self { limit, begin: now, full_at: AtomicU64::new(0) }
    }

    /// False if the event is one too many.
    pub(super) fn admit(&self, now: Instant) -> bool {
        let since: Duration = now.saturating_duration_since(self.begin);
        let now = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX / 2);
        self.full_at
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full_at| self.limit.take(full_at, now))
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_one_for_each_interval() {
        let limit =
            RateLimit { per_second: NonZeroU32::new(10).unwrap(), burst: NonZeroU32::new(3).unwrap() };
        let begin = Instant::now();
        let limiter = Limiter::new(limit, begin);
        let admitted = |at_ms: u64, tries: usize| {
            let at = begin + Duration::from_millis(at_ms);
            (0..tries).filter(|_| limiter.admit(at)).count()
        };
        assert_eq!(admitted(0, 5), 3);
        assert_eq!(admitted(99, 5), 0);
        assert_eq!(admitted(100, 5), 1);
        assert_eq!(admitted(350, 5), 2);
        assert_eq!(admitted(60_000, 5), 3);
    }
}
