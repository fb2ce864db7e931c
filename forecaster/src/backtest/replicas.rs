//! Replicas that a policy would have had ready, minute by minute, beside those that were needed.

use std::collections::VecDeque;

/// How many minutes a step lasts, how long a replica takes to start, and what one replica serves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Plant {
    pub(super) step_minutes: usize,
    pub(super) cold_minutes: usize,
    /// Rate that one replica serves.
    pub(super) replica_rate: f64,
}

/// Sums over the minutes whose demand is known.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Tally {
    pub(super) needed: f64,
    pub(super) under: f64,
    pub(super) over: f64,
    pub(super) minutes: f64,
    pub(super) short_minutes: f64,
}

/// Utilisation that a reactive autoscaler aims at, the deviation that it tolerates, and the minutes whose highest
/// wish holds down-scaling back: the usual settings of Kubernetes' HPA.
const TARGET_UTILISATION: f64 = 0.8;
const TOLERANCE: f64 = 0.1;
const STABILISATION_MINUTES: usize = 6;

/// A rate that is a whole number of replicas but for rounding needs no further one.
const ROUNDING: f64 = 1e-9;

impl Plant {
    /// Replicas that serve a rate, at least one.
    fn replicas(&self, rate: f64) -> usize {
        (rate / self.replica_rate - ROUNDING).ceil().max(1.0) as usize
    }

    /// What a policy by forecast wants at each minute: enough for `forecasts[step]`, and with `reactive` for the rate
    /// of the minute before too. `rates` are by step, with the step before the first one ahead of them.
    pub(super) fn by_forecast(&self, forecasts: &[f64], rates: &[f64], reactive: bool) -> Vec<usize> {
        let minutes = forecasts.len() * self.step_minutes;
        let want = (0..minutes).map(|minute| {
            let planned = self.replicas(forecasts[minute / self.step_minutes]);
            if reactive { planned.max(self.replicas(self.seen(rates, minute))) } else { planned }
        });
        want.collect()
    }

    /// What a reactive autoscaler wants at each minute.
    pub(super) fn by_reaction(&self, rates: &[f64]) -> Vec<usize> {
        let minutes = (rates.len() - 1) * self.step_minutes;
        let target = TARGET_UTILISATION * self.replica_rate;
        let wish = |rate: f64| ((rate / target - ROUNDING).ceil().max(1.0)) as usize;
        let mut current = wish(self.seen(rates, 0));
        let mut wishes: VecDeque<usize> = VecDeque::new();
        let want = (0..minutes).map(|minute| {
            let rate = self.seen(rates, minute);
            let ratio = rate / (current as f64 * target);
            let wished = if (ratio - 1.0).abs() <= TOLERANCE { current } else { wish(rate) };
            if wishes.len() == STABILISATION_MINUTES {
                wishes.pop_front();
            }
            wishes.push_back(wished);
            let highest = wishes.iter().copied().max().unwrap_or(wished);
            current = if wished < current { wished.max(highest) } else { wished };
            current
        });
        want.collect()
    }

    /// The rate of the minute before.
    fn seen(&self, rates: &[f64], minute: usize) -> f64 {
        if minute == 0 { rates[0] } else { rates[1 + (minute - 1) / self.step_minutes] }
    }

    /// Runs what was wanted against what came: a start takes `cold_minutes`, a stop is at once and cancels starts
    /// first. `known` tells, by step, whether the demand was observed.
    pub(super) fn run(&self, want: &[usize], rates: &[f64], known: &[bool]) -> Tally {
        let mut tally = Tally::default();
        let Some(&first) = want.first() else { return tally };
        let mut ready = first;
        let mut starting: VecDeque<(usize, usize)> = VecDeque::new();
        for (minute, &want) in want.iter().enumerate() {
            while let Some((_, count)) = starting.pop_front_if(|(at, _)| *at <= minute) {
                ready += count;
            }
            let total = ready + starting.iter().map(|(_, count)| count).sum::<usize>();
            if want > total {
                starting.push_back((minute + self.cold_minutes, want - total));
            }
            let mut surplus = total.saturating_sub(want);
            while let Some((_, count)) = starting.back_mut().filter(|_| surplus > 0) {
                let cancelled = surplus.min(*count);
                surplus -= cancelled;
                *count -= cancelled;
                if *count == 0 {
                    starting.pop_back();
                }
            }
            ready -= surplus;
            let step = minute / self.step_minutes;
            if known[step] {
                let needed = self.replicas(rates[step + 1]);
                tally.add(ready as f64, needed as f64);
            }
        }
        tally
    }
}

impl Tally {
    fn add(&mut self, ready: f64, needed: f64) {
        self.needed += needed;
        self.under += (needed - ready).max(0.0);
        self.over += (ready - needed).max(0.0);
        self.minutes += 1.0;
        self.short_minutes += f64::from(ready < needed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLANT: Plant = Plant { step_minutes: 2, cold_minutes: 2, replica_rate: 10.0 };

    #[test]
    fn a_start_takes_its_time_and_a_stop_cancels_it_first() {
        // Minutes 0..8: one, then three wanted, then two, then one.
        let want = [1, 3, 2, 2, 1, 1, 1, 1];
        let rates = [10.0, 10.0, 30.0, 10.0, 10.0];
        let tally = PLANT.run(&want, &rates, &[true; 4]);
        // Ready: 1 1 1 2 1 1 1 1; needed: 1 1 3 3 1 1 1 1.
        assert_eq!((tally.under, tally.over, tally.needed, tally.short_minutes), (3.0, 0.0, 12.0, 2.0));
    }

    #[test]
    fn unknown_demand_is_not_counted() {
        let tally = PLANT.run(&[1; 4], &[10.0, 50.0, 50.0], &[true, false]);
        assert_eq!((tally.under, tally.minutes), (8.0, 2.0));
    }

    #[test]
    fn a_reactive_autoscaler_sees_the_minute_before() {
        let want = PLANT.by_reaction(&[8.0, 8.0, 80.0, 8.0, 8.0, 8.0, 8.0, 8.0]);
        assert_eq!(&want[..6], [1, 1, 1, 10, 10, 10]);
        assert_eq!(want[want.len() - 1], 1, "{want:?}");
    }

    #[test]
    fn a_hybrid_has_the_larger_of_both() {
        let rates = [10.0, 40.0, 40.0];
        assert_eq!(PLANT.by_forecast(&[20.0, 20.0], &rates, false), [2, 2, 2, 2]);
        assert_eq!(PLANT.by_forecast(&[20.0, 20.0], &rates, true), [2, 4, 4, 4]);
    }
}
