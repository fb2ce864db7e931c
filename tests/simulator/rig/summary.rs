//! The figures of a cell under a policy.

use serde::Serialize;

use super::outcome::{CellResult, Served, Told};
use super::statistics::{Interval, quantile, quantile_interval};

/// When a throttled backend's share is read, real seconds after it became slow.
const ADAPTED_AFTER: f64 = 8.0;
/// Its final share is that of the last so many parts of the cell.
const FINAL_PART: f64 = 0.4;

/// Figures of a cell under a policy; times in simulated seconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// Median time to the first token.
    pub ttft_p50: f64,
    /// Its 95th percentile.
    pub ttft_p95: f64,
    /// Its 99th percentile, with its interval.
    pub ttft_p99: Interval,
    /// The 99th percentile above that of idle machines.
    pub above_floor: f64,
    /// 95th percentile of the mean time between two tokens.
    pub tpot_p95: f64,
    /// Its 99th percentile.
    pub tpot_p99: f64,
    /// Mean time to the last token.
    pub latency_mean: f64,
    /// Part of the requests that kept the objective, 0 to 1.
    pub within_slo: f64,
    /// Requests.
    pub requests: usize,
    /// Those without a whole answer.
    pub failures: usize,
    /// Where one became slow: what Envoys were told of it.
    pub slow_share: Option<SlowShare>,
}

/// The share of traffic of a backend that became slow.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct SlowShare {
    /// In the mean before it became slow.
    pub before: f64,
    /// 8 real seconds after.
    pub after: f64,
    /// In the mean at the end.
    pub settled: f64,
}

impl Summary {
    /// The figures of a result, with an interval from `rounds` draws.
    pub fn new(result: &CellResult, rounds: usize) -> Self {
        let served = &result.served;
        let in_order = result.ttfts();
        let sorted = |mut values: Vec<f64>| {
            values.sort_by(f64::total_cmp);
            values
        };
        let ttfts = sorted(in_order.clone());
        let tpots = sorted(served.iter().filter_map(|one| one.tpot).collect());
        let ttft_p99 = quantile_interval(&in_order, 0.99, rounds, result.seed);
        let count = served.len().max(1) as f64;
        Self {
            ttft_p50: quantile(&ttfts, 0.5),
            ttft_p95: quantile(&ttfts, 0.95),
            above_floor: ttft_p99.estimate - result.floor_seconds(),
            ttft_p99,
            tpot_p95: quantile(&tpots, 0.95),
            tpot_p99: quantile(&tpots, 0.99),
            latency_mean: served.iter().map(Served::latency_seconds).sum::<f64>() / count,
            within_slo: served.iter().filter(|one| result.is_within_slo(one)).count() as f64 / count,
            requests: served.len(),
            failures: served.iter().filter(|one| one.failure.is_some()).count(),
            slow_share: slow_share(result),
        }
    }
}

fn slow_share(result: &CellResult) -> Option<SlowShare> {
    use super::plan::Action;
    let slowed = result.plan.events.iter().find(|event| matches!(event.action, Action::Slow(_)))?;
    let of = |told: &Told| told.shares.get(slowed.machine).copied();
    let mean = |from: f64, until: f64| {
        let within = result.told.iter().filter(|told| (from..until).contains(&told.at)).filter_map(of);
        let (sum, count) = within.fold((0.0, 0.0), |(sum, count), share| (sum + share, count + 1.0));
        (count > 0.0).then(|| sum / count)
    };
    let end = result.plan.measured_seconds;
    let adapted = slowed.at + ADAPTED_AFTER * result.speed;
    Some(SlowShare {
        before: mean(0.0, slowed.at)?,
        after: result.told.iter().rev().find(|told| told.at <= adapted).and_then(of)?,
        settled: mean(end * (1.0 - FINAL_PART), end)?,
    })
}

/// A second of a cell: where its requests went and how long they took.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SecondShare {
    /// The second, simulated.
    pub second: usize,
    /// Requests that came in it.
    pub requests: usize,
    /// Those of each machine.
    pub by_machine: Vec<usize>,
    /// Median time to the first token.
    pub ttft_p50: Option<f64>,
    /// The longest.
    pub ttft_max: Option<f64>,
}

/// The seconds of a cell, in order.
pub fn per_second(result: &CellResult) -> Vec<SecondShare> {
    let seconds = result.plan.measured_seconds.ceil() as usize;
    let mut ttfts = vec![Vec::new(); seconds];
    let mut counts = vec![vec![0; result.machines.len()]; seconds];
    for one in &result.served {
        let Some(second) = Some(one.at as usize).filter(|second| *second < seconds) else { continue };
        ttfts[second].push(one.ttft_seconds());
        if let Some(count) = one.machine.and_then(|machine| counts[second].get_mut(machine)) {
            *count += 1;
        }
    }
    let row = |(second, (mut ttfts, by_machine)): (usize, (Vec<f64>, Vec<usize>))| {
        ttfts.sort_by(f64::total_cmp);
        let known = !ttfts.is_empty();
        SecondShare {
            second,
            requests: ttfts.len(),
            by_machine,
            ttft_p50: known.then(|| quantile(&ttfts, 0.5)),
            ttft_max: ttfts.last().copied(),
        }
    };
    ttfts.into_iter().zip(counts).enumerate().map(row).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::capacity::{Basis, Slo};
    use super::super::cell::SizeSet;
    use super::super::fleet::machines;
    use super::super::outcome::{Health, RIG_VERSION};
    use super::super::plan::{Action, Event, Plan};
    use super::*;

    /// A result of 200 s with ten requests a second, each made by `served` of its time.
    pub(in crate::rig) fn result(
        cell: &str,
        policy: &str,
        events: Vec<Event>,
        served: impl Fn(f64) -> (usize, f64),
    ) -> CellResult {
        let one = |n: usize| {
            let at = n as f64 / 10.0;
            let (machine, ttft) = served(at);
            let sizes = SizeSet::Code;
            let (machine, tpot) = (Some(machine), Some(0.05));
            Served {
                at,
                sizes,
                machine,
                ttft: Some(ttft),
                tpot,
                latency: ttft + 1.0,
                failure: None,
                idle: [0.5; 4],
            }
        };
        let slo = Slo { ttft_seconds: 2.0, tpot_seconds: 0.1 };
        CellResult {
            version: RIG_VERSION,
            cell: cell.parse().unwrap(),
            policy: policy.to_owned(),
            seed: 1,
            speed: 1.0,
            plan: Plan { measured_seconds: 200.0, stretches: Vec::new(), events },
            machines: machines(),
            bases: vec![Basis { sizes: SizeSet::Code, rps: [4.0, 2.0, 1.0, 1.0], slo }],
            health: Health { generator_late_p99: 0.001, servers_late_p99: 0.002, cpu_busy: 0.4 },
            served: (0..2000).map(one).collect(),
            told: Vec::new(),
            clairvoy: None,
        }
    }

    #[test]
    fn failures_count_and_break_the_objective() {
        let mut result = result("steady-code-0.70", "rr", Vec::new(), |_| (0, 1.0));
        result.served[5].failure = Some("reset".to_owned());
        result.served[6].failure = Some("connect".to_owned());
        result.served[6].ttft = None;
        result.served[7].tpot = Some(0.2);
        result.served[8].ttft = Some(2.5);
        let summary = Summary::new(&result, 20);
        assert_eq!((summary.requests, summary.failures), (2000, 2));
        assert!((summary.within_slo - 1996.0 / 2000.0).abs() < 1e-9, "{summary:?}");
        assert!((summary.above_floor - 0.5).abs() < 1e-9, "{summary:?}");
        assert!((summary.latency_mean - (2000.0 * 2.0 + 2.0 * 10.0) / 2000.0).abs() < 1e-9, "{summary:?}");
    }

    #[test]
    fn the_share_of_a_slow_backend_is_followed() {
        let slow = vec![Event { at: 50.0, machine: 0, action: Action::Slow(4.0) }];
        let mut result = result("slow-code-0.70", "predictive", slow, |_| (0, 1.0));
        assert_eq!(Summary::new(&result, 20).slow_share, None);
        let share = |second: u32| match second {
            0..50 => 0.2,
            50..=57 => 0.15,
            58..=70 => 0.06,
            _ => 0.05,
        };
        let told =
            |second: u32| Told { at: f64::from(second), shares: vec![share(second), 1.0 - share(second)] };
        result.told = (0..200).map(told).collect();
        let share = Summary::new(&result, 20).slow_share.unwrap();
        assert!((share.before - 0.2).abs() < 1e-9 && (share.after - 0.06).abs() < 1e-9, "{share:?}");
        assert!((share.settled - 0.05).abs() < 1e-9, "{share:?}");
    }

    #[test]
    fn seconds_tell_where_requests_went() {
        let result = result("steady-code-0.70", "rr", Vec::new(), |at| (usize::from(at >= 100.0), at));
        let seconds = per_second(&result);
        assert_eq!(seconds.len(), 200);
        assert_eq!((seconds[3].requests, seconds[3].by_machine[0], seconds[150].by_machine[1]), (10, 10, 10));
        assert!((seconds[3].ttft_p50.unwrap() - 3.45).abs() < 1e-9);
    }
}
