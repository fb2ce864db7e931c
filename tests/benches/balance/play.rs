//! The load generator: requests leave when the schedule says so, whatever became of earlier ones.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use clairvoy_tests::{Arrival, Gpu, Outcome, Plan, Sender, Served, idle_seconds, loopback_client, quantile};

/// Simulated time that measured requests get after the last one has left: the longest answer takes a minute and a half.
const GRACE_SECONDS: f64 = 150.0;

/// Where requests go and how fast time runs.
#[derive(Debug, Clone)]
pub(crate) struct Stage {
    pub(crate) model: String,
    pub(crate) gateways: Vec<SocketAddr>,
    pub(crate) machines: HashMap<SocketAddr, usize>,
    /// Simulated seconds per real one.
    pub(crate) speed: f64,
    /// The real moment of the first stretch's begin.
    pub(crate) begin: Instant,
}

impl Stage {
    /// The real moment of a simulated one.
    pub(crate) fn moment(&self, plan: &Plan, at: f64) -> Instant {
        self.begin + Duration::from_secs_f64(((at - plan.begin()) / self.speed).max(0.0))
    }
}

/// What came of the measured requests.
#[derive(Debug)]
pub(crate) struct Played {
    /// In the order of arrival.
    pub(crate) served: Vec<Served>,
    /// 99th percentile of how late they left, real seconds.
    pub(crate) late_p99: f64,
}

/// Sends all requests of a schedule and waits for their ends.
pub(crate) async fn play(stage: &Stage, plan: &Plan, arrivals: &[Arrival]) -> Result<Played> {
    let sender = Sender::new(loopback_client(Duration::from_secs(3600))?, stage.model.clone());
    let give_up = stage.moment(plan, plan.end() + GRACE_SECONDS);
    let mut left = arrivals.iter().filter(|arrival| arrival.is_measured(plan)).count();
    let mut requests = JoinSet::new();
    let mut ended = Vec::new();
    for (index, arrival) in arrivals.iter().copied().enumerate() {
        let moment = stage.moment(plan, arrival.at);
        sleep_until(moment).await;
        let (sender, target) = (sender.clone(), stage.gateways[arrival.gateway % stage.gateways.len()]);
        requests.spawn(async move {
            let now = Instant::now();
            let late = now.saturating_duration_since(moment);
            let time = give_up.saturating_duration_since(now);
            (index, late, sender.send_within(target, arrival.size, time).await)
        });
        while let Some(joined) = requests.try_join_next() {
            ended.push(joined?);
        }
    }
    // The others only keep the servers busy until the measured ones have ended.
    ended.retain(|(index, ..)| arrivals[*index].is_measured(plan));
    left -= ended.len();
    while left > 0
        && let Some(joined) = requests.join_next().await
    {
        let (index, late, outcome) = joined?;
        if arrivals[index].is_measured(plan) {
            ended.push((index, late, outcome));
            left -= 1;
        }
    }
    ended.sort_by_key(|(index, ..)| *index);
    let mut lateness: Vec<f64> = ended.iter().map(|(_, late, _)| late.as_secs_f64()).collect();
    lateness.sort_by(f64::total_cmp);
    let asked: Vec<Arrival> = ended.iter().map(|(index, ..)| arrivals[*index]).collect();
    let ended = ended.iter().zip(&asked).zip(idle_seconds(&asked));
    let served =
        ended.map(|(((_, late, outcome), arrival), idle)| served(stage, arrival, *late, outcome, idle));
    Ok(Played { served: served.collect(), late_p99: quantile(&lateness, 0.99) })
}

fn served(
    stage: &Stage,
    arrival: &Arrival,
    late: Duration,
    outcome: &Outcome,
    idle: [f64; Gpu::ALL.len()],
) -> Served {
    // Tenths of a millisecond are plenty, and keep the files small.
    let simulated = |time: Duration| (time.as_secs_f64() * stage.speed * 1e4).round() / 1e4;
    let gaps = outcome.output_tokens.saturating_sub(1);
    let tpot = match (outcome.ttft, outcome.last_token) {
        (Some(first), Some(last)) if gaps > 0 && outcome.failure.is_none() => {
            Some(simulated(last.saturating_sub(first)) / gaps as f64)
        }
        _ => None,
    };
    Served {
        at: arrival.at,
        sizes: arrival.sizes,
        machine: outcome.server.and_then(|server| stage.machines.get(&server).copied()),
        ttft: outcome.ttft.map(|ttft| simulated(late + ttft)),
        tpot,
        latency: simulated(late + outcome.duration),
        failure: outcome.failure.map(|cause| format!("{cause:?}")),
        idle,
    }
}
