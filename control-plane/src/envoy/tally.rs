use std::collections::BTreeMap;
use std::net::SocketAddr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::Exchange;

/// What the access logs told within a second.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LogSummary {
    /// By backend.
    pub backends: BTreeMap<SocketAddr, BackendLog>,
    /// Requests that no backend took, by cluster.
    pub unplaced: BTreeMap<String, f64>,
}

/// What they told of one backend. Counts are sums of weights.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BackendLog {
    /// Requests that ended.
    pub requests: f64,
    /// Requests among them that failed at the backend.
    pub errors: f64,
    /// First bytes, by the second in which their requests arrived; oldest first.
    pub first_bytes: Vec<FirstBytes>,
}

impl BackendLog {
    /// Whether the backend answered anything.
    pub fn has_answers(&self) -> bool {
        self.requests > self.errors || !self.first_bytes.is_empty()
    }
}

/// Times to the first byte of streamed answers whose requests arrived within one second.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct FirstBytes {
    /// When they arrived, in the mean.
    pub arrived_at: DateTime<Utc>,
    /// How many there were.
    pub requests: f64,
    /// Their mean, seconds.
    pub mean_seconds: f64,
    /// Their median, seconds.
    pub p50_seconds: f64,
    /// Their 95th percentile, seconds.
    pub p95_seconds: f64,
}

/// Gathers entries until they are taken.
#[derive(Debug, Default)]
pub struct Tally {
    summary: LogSummary,
    /// Seconds to the first byte with their weights, by backend and second of arrival.
    first_bytes: BTreeMap<(SocketAddr, i64), Vec<Seen>>,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    arrived_at: DateTime<Utc>,
    seconds: f64,
    weight: f64,
}

impl Tally {
    /// Adds an entry that stands for `weight` ones.
    pub fn add(&mut self, exchange: &Exchange, weight: f64) {
        if exchange.unplaced {
            *self.summary.unplaced.entry(exchange.cluster.clone()).or_default() += weight;
        }
        let Some(address) = exchange.backend else { return };
        let backend = self.summary.backends.entry(address).or_default();
        if exchange.is_over {
            backend.requests += weight;
            backend.errors += if exchange.failed { weight } else { 0.0 };
        }
        if let Some(seconds) = exchange.first_byte_seconds {
            let key = (address, exchange.arrived_at.timestamp());
            let seen = Seen { arrived_at: exchange.arrived_at, seconds, weight };
            self.first_bytes.entry(key).or_default().push(seen);
        }
    }

    /// Takes what was gathered since the last call; none when nothing was.
    pub fn take(&mut self) -> Option<LogSummary> {
        let mut summary = std::mem::take(&mut self.summary);
        for ((address, _), seen) in std::mem::take(&mut self.first_bytes) {
            let backend = summary.backends.entry(address).or_default();
            backend.first_bytes.extend(first_bytes(seen));
        }
        (summary != LogSummary::default()).then_some(summary)
    }
}

fn first_bytes(mut seen: Vec<Seen>) -> Option<FirstBytes> {
    seen.sort_by(|left, right| left.seconds.total_cmp(&right.seconds));
    let requests: f64 = seen.iter().map(|one| one.weight).sum();
    let first = seen.first()?;
    let mean =
        |of: &dyn Fn(&Seen) -> f64| seen.iter().map(|one| one.weight * of(one)).sum::<f64>() / requests;
    let after = mean(&|one| (one.arrived_at - first.arrived_at).as_seconds_f64());
    let quantile = |level: f64| {
        let mut below = 0.0;
        let reached = seen.iter().find(|one| {
            below += one.weight;
            below >= level * requests
        });
        reached.or(seen.last()).map_or(first.seconds, |one| one.seconds)
    };
    Some(FirstBytes {
        arrived_at: first.arrived_at + chrono::TimeDelta::microseconds((1e6 * after) as i64),
        requests,
        mean_seconds: mean(&|one| one.seconds),
        p50_seconds: quantile(0.5),
        p95_seconds: quantile(0.95),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::super::Sampler;
    use super::super::entry::tests::entry;
    use super::*;

    #[test]
    fn first_bytes_are_gathered_by_backend_and_second_of_arrival() {
        let mut tally = Tally::default();
        let exchange = |route_us, body_us| Exchange::read(&entry(200, route_us, body_us), 10.0).unwrap();
        tally.add(&exchange(0, 200_000), 1.0);
        tally.add(&exchange(100_000, 500_000), 3.0);
        tally.add(&exchange(600_000, 900_000), 1.0);
        tally.add(&Exchange::read(&entry(503, 0, 0), 10.0).unwrap(), 2.0);
        let summary = tally.take().unwrap();
        let backend = &summary.backends[&"10.0.0.1:8000".parse().unwrap()];
        assert_eq!((backend.requests, backend.errors), (7.0, 2.0));
        let [early, late] = backend.first_bytes.as_slice() else { panic!("{backend:?}") };
        assert_eq!(early.requests, 4.0);
        assert!((early.mean_seconds - 0.425).abs() < 1e-9, "{early:?}");
        assert_eq!((early.p50_seconds, early.p95_seconds), (0.5, 0.5));
        assert_eq!(early.arrived_at.timestamp_millis(), 1_000_575);
        assert_eq!((late.requests, late.mean_seconds), (1.0, 0.9));
        assert_eq!(tally.take(), None);
    }

    #[test]
    #[ignore = "a measurement: run with --nocapture"]
    fn measure_entries_per_second() {
        let entries: Vec<_> = (0..1000).map(|number| entry(200, number, 1000 * number)).collect();
        for (limit, what) in [(1e9, "all kept"), (20_000.0, "sampled")] {
            let (mut sampler, mut tally, rounds) = (Sampler::new(limit, 1), Tally::default(), 300);
            let start = Instant::now();
            for _ in 0..rounds {
                sampler.now(start.elapsed().as_secs_f64());
                for entry in &entries {
                    if let Some(weight) = sampler.take()
                        && let Some(exchange) = Exchange::read(entry, 10.0)
                    {
                        tally.add(&exchange, weight);
                    }
                }
            }
            assert!(tally.take().is_some());
            let rate = f64::from(rounds) * entries.len() as f64 / start.elapsed().as_secs_f64();
            println!("{what}: {rate:.0} entries/s");
        }
    }
}
