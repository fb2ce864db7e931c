use serde::{Deserialize, Serialize};

use super::Interval;

/// Steps by which the mean time of one is told: of fewer, the first may mostly have been before, and the last mostly come after.
const ENOUGH_STEPS: f64 = 3.0;
/// Nothing is held back for longer, seconds.
const LONGEST_SECONDS: f64 = 8.0;

/// Intervals that are looked at together, since a busy engine ended too few steps in each. A prompt that takes a second to compute ends
/// in one interval, and most of its time was in the one before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Stretch {
    tells_steps: bool,
    held: Option<Interval>,
}

impl Stretch {
    /// Takes an interval. What comes out is to be learned from, with all that was held back.
    pub fn take(&mut self, interval: Interval) -> Option<Interval> {
        // Counters that went back, or nothing before.
        if interval.seconds.is_nan() || interval.seconds <= 0.0 {
            *self = Self::default();
            return None;
        }
        self.tells_steps |= interval.iterations >= 1.0;
        let whole = self.held.take().map_or(interval, |held| held.followed_by(&interval));
        let is_busy = whole.running_before >= 1.0 && whole.running >= 1.0;
        let is_enough = whole.iterations >= ENOUGH_STEPS && whole.output_tokens > 0.0;
        if self.tells_steps && is_busy && !is_enough && whole.seconds < LONGEST_SECONDS {
            self.held = Some(whole);
            return None;
        }
        if whole.iterations < 1.0 && whole.output_tokens > 0.0 {
            // Another engine at this address.
            self.tells_steps = false;
        }
        Some(whole)
    }

    /// Lets go of what was held back.
    pub fn forget(&mut self) {
        self.held = None;
    }
}

impl Interval {
    /// Both as one.
    fn followed_by(&self, next: &Self) -> Self {
        let mean = |of: fn(&Self) -> (Option<f64>, f64)| {
            let parts =
                [of(self), of(next)].map(|(mean, count)| (mean.unwrap_or(0.0), mean.map_or(0.0, |_| count)));
            let count = parts[0].1 + parts[1].1;
            (count > 0.0).then(|| (parts[0].0 * parts[0].1 + parts[1].0 * parts[1].1) / count)
        };
        let in_time = |of: fn(&Self) -> Option<f64>| {
            let (before, after) = of(self).zip(of(next))?;
            Some((before * self.seconds + after * next.seconds) / (self.seconds + next.seconds))
        };
        Self {
            seconds: self.seconds + next.seconds,
            running_before: self.running_before,
            running: next.running,
            completed: self.completed + next.completed,
            ttft_seconds: mean(|interval| (interval.ttft_seconds, interval.ttft_count)),
            ttft_count: self.ttft_count + next.ttft_count,
            inter_token_seconds: mean(|interval| (interval.inter_token_seconds, interval.output_tokens)),
            iterations: self.iterations + next.iterations,
            iteration_tokens: self.iteration_tokens + next.iteration_tokens,
            prompt_tokens: self.prompt_tokens + next.prompt_tokens,
            output_tokens: self.output_tokens + next.output_tokens,
            resident_tokens: in_time(|interval| interval.resident_tokens),
            resident_per_sequence: next.resident_per_sequence,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A second of an engine that computes prompts in steps of 0.8 s.
    fn second(iterations: f64) -> Interval {
        Interval {
            seconds: 1.0,
            running_before: 2.0,
            running: 3.0,
            iterations,
            iteration_tokens: 2000.0 * iterations,
            output_tokens: 3.0 * iterations,
            resident_per_sequence: 1000.0,
            ..Interval::default()
        }
    }

    #[test]
    fn long_steps_are_looked_at_together() {
        let mut stretch = Stretch::default();
        assert_eq!(stretch.take(second(1.0)), None);
        assert_eq!(stretch.take(second(0.0)), None, "its time belongs to what ends later");
        assert_eq!(stretch.take(second(1.0)), None);
        let whole = stretch.take(second(2.0)).unwrap();
        assert_eq!((whole.seconds, whole.iterations, whole.output_tokens), (4.0, 4.0, 12.0));
        assert_eq!(stretch.take(second(5.0)), Some(second(5.0)));
    }

    #[test]
    fn what_ends_idle_restarts_or_tells_no_steps_is_not_held_back() {
        let mut stretch = Stretch::default();
        assert_eq!(stretch.take(second(0.0)), Some(second(0.0)), "it may never tell any");
        assert_eq!(stretch.take(second(1.0)), None);
        let last = stretch.take(Interval { running: 0.0, ..second(1.0) }).unwrap();
        assert_eq!((last.seconds, last.iterations), (2.0, 2.0));
        assert_eq!(stretch.take(second(1.0)), None);
        assert_eq!(stretch.take(Interval { seconds: 0.0, ..second(1.0) }), None);
        assert_eq!(stretch.take(second(3.0)), Some(second(3.0)), "a restart begins anew");
        let resident = |tokens| Interval { resident_tokens: Some(tokens), ..second(1.0) };
        assert_eq!((stretch.take(resident(1000.0)), stretch.take(resident(2000.0))), (None, None));
        assert_eq!(stretch.take(resident(6000.0)).unwrap().resident_tokens, Some(3000.0));
        let held: Vec<bool> = (0..8).map(|_| stretch.take(second(0.0)).is_none()).collect();
        assert_eq!(held, [true, true, true, true, true, true, true, false]);
        let of_another = Interval { output_tokens: 9.0, ..second(0.0) };
        let held = (0..10).filter(|_| stretch.take(of_another).is_none()).count();
        assert_eq!(held, 7, "an engine that has come instead of another may tell no steps");
    }
}
