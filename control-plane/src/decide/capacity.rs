use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// Length of the window over which a served rate is taken.
const WINDOW_SECONDS: f64 = 10.0;
/// Part of the window in which requests have to wait.
const LEAST_BUSY: f64 = 0.7;
/// Requests that have to end in a window in which nothing waits: with fewer the highest rate is chance.
const LEAST_AT_EASE: f64 = 20.0;
/// Half-life of what was once served, seconds: settings change, and a peak by chance should not last.
const HALF_LIFE_SECONDS: f64 = 1800.0;

/// Requests/s that one backend serves, learned: the highest rate of completions over 10 s in which requests waited most
/// of the time, slowly forgotten. What a backend served while nothing waited says only that it serves no less.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Capacity {
    window: VecDeque<Interval>,
    peak_rps: f64,
    /// The highest rate over a window in which nothing waited.
    #[serde(default)]
    at_ease_rps: f64,
    /// Nothing of it is forgotten now.
    #[serde(default)]
    is_kept: bool,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Interval {
    completed: f64,
    seconds: f64,
    busy: bool,
    /// Nothing waited; not the same as not busy where the engine does not tell what waits.
    #[serde(default)]
    at_ease: bool,
}

impl Capacity {
    /// Takes the requests that ended within an interval, and how many waited at its end, as far as the engine tells.
    pub fn observe(&mut self, completed: f64, interval_seconds: f64, waiting: Option<f64>) {
        if !(completed >= 0.0
            && completed.is_finite()
            && interval_seconds > 0.0
            && interval_seconds.is_finite())
        {
            return;
        }
        let busy = waiting.is_some_and(|waiting| waiting >= 1.0);
        let at_ease = waiting.is_some_and(|waiting| waiting < 1.0);
        self.window.push_back(Interval { completed, seconds: interval_seconds, busy, at_ease });
        let mut seconds: f64 = self.window.iter().map(|interval| interval.seconds).sum();
        while let Some(first) = self.window.front()
            && seconds - first.seconds >= WINDOW_SECONDS
        {
            seconds -= first.seconds;
            self.window.pop_front();
        }
        let kept = 0.5_f64.powf(interval_seconds / HALF_LIFE_SECONDS);
        self.at_ease_rps *= kept;
        if !self.is_kept {
            self.peak_rps *= kept;
        }
        let busy: f64 =
            self.window.iter().filter(|interval| interval.busy).map(|interval| interval.seconds).sum();
        if seconds < WINDOW_SECONDS {
            return;
        }
        let completed: f64 = self.window.iter().map(|interval| interval.completed).sum();
        if busy >= LEAST_BUSY * seconds {
            self.peak_rps = self.peak_rps.max(completed / seconds);
        } else if completed >= LEAST_AT_EASE && self.window.iter().all(|interval| interval.at_ease) {
            self.at_ease_rps = self.at_ease_rps.max(completed / seconds);
        }
    }

    /// Says whether it is kept as it is: while requests are refused to keep them from waiting nothing new is learned, and a
    /// capacity that is forgotten would have more of them refused.
    pub fn keep(&mut self, is_kept: bool) {
        self.is_kept = is_kept;
    }

    /// The learned capacity; none before the backend was busy for a whole window. A busy window that is long ago is no reason
    /// to take it for slower than it is seen to be.
    pub fn rps(&self) -> Option<f64> {
        (self.peak_rps > 0.0).then(|| self.peak_rps.max(self.at_ease_rps))
    }

    /// The most that it was seen to serve while nothing waited: it serves more than that.
    pub fn at_ease_rps(&self) -> Option<f64> {
        (self.at_ease_rps > 0.0).then_some(self.at_ease_rps)
    }
}

/// Capacities with the gaps filled: what is unknown gets the mean of what is known, and 1 when nothing is.
pub fn fill_unknown(capacities: &[Option<f64>]) -> Vec<f64> {
    let known: Vec<f64> = capacities.iter().flatten().copied().collect();
    let mean = if known.is_empty() { 1.0 } else { known.iter().sum::<f64>() / known.len() as f64 };
    capacities.iter().map(|capacity| capacity.unwrap_or(mean)).collect()
}

#[cfg(test)]
mod tests {
    use super::{Capacity, fill_unknown};

    #[test]
    fn the_peak_rate_is_kept_and_slowly_forgotten() {
        let mut capacity = Capacity::default();
        for _ in 0..9 {
            capacity.observe(6.0, 1.0, Some(3.0));
        }
        assert_eq!(capacity.rps(), None, "not before a whole window");
        for _ in 0..5 {
            capacity.observe(6.0, 1.0, Some(3.0));
        }
        assert!((capacity.rps().unwrap() - 6.0).abs() < 0.05);
        capacity.keep(true);
        for _ in 0..1800 {
            capacity.observe(5.0, 1.0, Some(0.0));
        }
        assert!((capacity.rps().unwrap() - 6.0).abs() < 0.05);
        capacity.keep(false);
        for _ in 0..1800 {
            capacity.observe(0.0, 1.0, Some(0.0));
        }
        assert!((2.8..3.2).contains(&capacity.rps().unwrap()));
    }

    #[test]
    fn an_idle_backend_teaches_what_it_serves_at_least() {
        let served = |completed, waiting| {
            let mut capacity = Capacity::default();
            (0..100).for_each(|_| capacity.observe(completed, 1.0, waiting));
            (capacity.rps(), capacity.at_ease_rps())
        };
        assert_eq!(served(2.0, Some(0.0)), (None, Some(2.0)));
        assert_eq!(served(1.0, Some(0.0)), (None, None), "ten requests are chance");
        assert_eq!(served(2.0, None), (None, None), "nobody told whether anything waited");
        assert_eq!(served(2.0, Some(2.0)).1, None);
    }

    #[test]
    fn a_peak_that_is_long_ago_does_not_fall_below_what_is_served_at_ease() {
        let mut capacity = Capacity::default();
        (0..20).for_each(|_| capacity.observe(6.0, 1.0, Some(3.0)));
        (0..5 * 3600).for_each(|_| capacity.observe(4.0, 1.0, Some(0.0)));
        assert_eq!(capacity.rps(), Some(4.0));
    }

    #[test]
    fn unknown_capacities_are_filled_from_the_known() {
        assert_eq!(fill_unknown(&[None, Some(2.0), Some(4.0)]), vec![3.0, 2.0, 4.0]);
        assert_eq!(fill_unknown(&[None, None]), vec![1.0, 1.0]);
    }
}
