//! How often the streams of a group are woken.

use std::time::{Duration, Instant};

/// The first change after a quiet time goes out at once. In a burst the time between two wake-ups doubles up
/// to a limit, so that what is overtaken at once is never sent.
#[derive(Debug)]
pub(super) struct Pacer {
    limits: PacerLimits,
    last: Option<Instant>,
    interval: Duration,
    armed: bool,
}

/// The shortest and the longest time between two wake-ups.
#[derive(Clone, Copy, Debug)]
pub(super) struct PacerLimits {
    pub(super) min: Duration,
    pub(super) max: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    Now,
    /// At this time; ask [`Pacer::fired`] then.
    At(Instant),
    /// A wake-up to come will do.
    Arranged,
}

impl Pacer {
    pub(super) fn new(limits: PacerLimits) -> Self {
        Self { limits, last: None, interval: limits.min, armed: false }
    }

    /// Something changed.
    pub(super) fn change(&mut self, now: Instant) -> Pace {
        if self.armed {
            return Pace::Arranged;
        }
        let Some(last) = self.last else {
            self.last = Some(now);
            return Pace::Now;
        };
        let quiet = now.saturating_duration_since(last);
        if quiet >= self.interval {
            if quiet >= self.limits.max {
                self.interval = self.limits.min;
            }
            self.last = Some(now);
            return Pace::Now;
        }
        self.armed = true;
        let at = last + self.interval;
        self.interval = (self.interval * 2).min(self.limits.max);
        Pace::At(at)
    }

    /// The time that was named has come, or a wake-up for another reason.
    pub(super) fn fired(&mut self, now: Instant) {
        self.armed = false;
        self.last = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    /// Wakes within two seconds when something changes each `step`.
    fn wakes(step: Duration) -> usize {
        let start = Instant::now();
        let mut pacer = Pacer::new(PacerLimits { min: ms(5), max: ms(100) });
        let (mut now, mut count, mut alarm) = (start, 0, None::<Instant>);
        while now < start + ms(2000) {
            if alarm.is_some_and(|at| at <= now) {
                pacer.fired(now);
                alarm = None;
                count += 1;
            }
            match pacer.change(now) {
                Pace::Now => count += 1,
                Pace::At(at) => alarm = Some(at),
                Pace::Arranged => {}
            }
            now += step;
        }
        count
    }

    #[test]
    fn f5_the_first_change_goes_at_once_and_a_burst_is_merged() {
        assert_eq!(wakes(ms(200)), 10, "nothing waits after a quiet time");
        assert!((20..=26).contains(&wakes(ms(1))), "{}", wakes(ms(1)));
    }

    #[test]
    fn f5_a_quiet_time_ends_a_burst() {
        let start = Instant::now();
        let mut pacer = Pacer::new(PacerLimits { min: ms(5), max: ms(100) });
        assert_eq!(pacer.change(start), Pace::Now);
        assert_eq!(pacer.change(start + ms(1)), Pace::At(start + ms(5)));
        assert_eq!(pacer.change(start + ms(2)), Pace::Arranged);
        pacer.fired(start + ms(5));
        assert_eq!(pacer.change(start + ms(6)), Pace::At(start + ms(15)));
        pacer.fired(start + ms(15));
        assert_eq!(pacer.change(start + ms(500)), Pace::Now);
        assert_eq!(pacer.change(start + ms(501)), Pace::At(start + ms(505)));
    }
}
