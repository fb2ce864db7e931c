use std::collections::BTreeMap;
use std::net::SocketAddr;

use chrono::{DateTime, Utc};
use envoy_types::pb::envoy::config::endpoint::v3::UpstreamEndpointStats;

use clairvoy_xds::LoadReport;

use crate::config::Config;

use super::load::{model_name, reporter, socket};

/// Envoys whose requests in progress are remembered; of more, what runs is not counted.
const MOST_NODES: usize = 20_000;
/// Backends of which something waits to be taken.
const MOST_BACKENDS: usize = 100_000;
/// Numbers of requests in progress that are remembered, of all Envoys at their backends.
const MOST_RUNNING: usize = 2_000_000;
/// More requests do not end or run at one backend through one Envoy in an interval, nor is the mean of a metric larger: such
/// numbers are none.
const MOST: f64 = 1e8;
/// What an Envoy said of requests in progress is forgotten after this time, seconds.
const PROGRESS_SECONDS: f64 = 30.0;
/// Requests that ended at a backend of which nothing is reported any more are forgotten after this time, seconds.
const SILENT_SECONDS: f64 = 300.0;

/// What the answers of one backend said of it since it was looked at last.
#[derive(Clone, Debug, PartialEq)]
pub struct OrcaReading {
    /// The backend.
    pub address: SocketAddr,
    /// By the names of the metrics, their means over the requests that ended with them.
    pub means: BTreeMap<String, f64>,
    /// Requests that ended, through all Envoys.
    pub ended: f64,
    /// Requests that run, through all Envoys, as last reported.
    pub in_progress: f64,
}

/// Sums up ORCA metrics of load reports by backend. Envoys report sums and counts of the requests that ended, so those of
/// several Envoys make one mean.
#[derive(Debug, Default)]
pub struct OrcaTally {
    backends: BTreeMap<SocketAddr, Sums>,
    /// Requests in progress, by Envoy and its gateway.
    nodes: BTreeMap<String, Progress>,
    /// Entries in those.
    running: usize,
}

/// What runs at backends through one Envoy, and when it said so.
#[derive(Debug)]
struct Progress {
    at: DateTime<Utc>,
    running: Vec<(SocketAddr, f64)>,
}

#[derive(Debug, Default)]
struct Sums {
    /// When it was reported last.
    at: DateTime<Utc>,
    /// Sum and count by name.
    metrics: BTreeMap<String, (f64, f64)>,
    ended: f64,
}

impl OrcaTally {
    /// Takes in a report of an Envoy of a gateway: of its models' backends that are read, the metrics that are named in their
    /// pools. Returns how many endpoints were left out because there are too many.
    pub fn add(
        &mut self,
        report: &LoadReport,
        gateway: &str,
        config: &Config,
        is_read: impl Fn(SocketAddr) -> bool,
    ) -> u64 {
        let at = report.at.into();
        let mut running = BTreeMap::<SocketAddr, f64>::new();
        let mut left_out = 0;
        for stats in &report.cluster_stats {
            let Some(model) = config.models.iter().find(|model| model.name == model_name(stats)) else {
                continue;
            };
            let wanted = config.load_metrics(model);
            if wanted.is_empty() {
                continue;
            }
            let endpoints =
                stats.upstream_locality_stats.iter().flat_map(|locality| &locality.upstream_endpoint_stats);
            for stats in endpoints {
                // What an Envoy makes up is no backend.
                let address = stats.address.as_ref().and_then(socket).filter(|address| is_read(*address));
                let Some(address) = address else { continue };
                let in_progress = stats.total_requests_in_progress as f64;
                if in_progress <= MOST {
                    *running.entry(address).or_default() += in_progress;
                }
                left_out += u64::from(!self.add_endpoint(address, at, stats, &wanted));
            }
        }
        left_out + self.note_running(reporter(gateway, &report.node.id), at, running)
    }

    /// Notes what runs through an Envoy; returns how many entries found no room.
    fn note_running(&mut self, name: String, at: DateTime<Utc>, running: BTreeMap<SocketAddr, f64>) -> u64 {
        self.running -= self.nodes.remove(&name).map_or(0, |told| told.running.len());
        if running.is_empty() {
            return 0;
        }
        if self.nodes.len() >= MOST_NODES || self.running + running.len() > MOST_RUNNING {
            return running.len() as u64;
        }
        self.running += running.len();
        self.nodes.insert(name, Progress { at, running: running.into_iter().collect() });
        0
    }

    /// Returns false when there is no room.
    fn add_endpoint(
        &mut self,
        address: SocketAddr,
        at: DateTime<Utc>,
        stats: &UpstreamEndpointStats,
        wanted: &[String],
    ) -> bool {
        if !self.backends.contains_key(&address) && self.backends.len() >= MOST_BACKENDS {
            return false;
        }
        let sums = self.backends.entry(address).or_default();
        sums.at = at;
        let ended = stats.total_successful_requests.saturating_add(stats.total_error_requests) as f64;
        sums.ended += if ended <= MOST { ended } else { 0.0 };
        for metric in stats.load_metric_stats.iter().filter(|metric| wanted.contains(&metric.metric_name)) {
            let requests = metric.num_requests_finished_with_metric as f64;
            // What is not a number is not within bounds either.
            let is_believed = metric.total_metric_value.abs() <= MOST * requests;
            if requests == 0.0 || requests > MOST || !is_believed {
                continue;
            }
            let (sum, count) = sums.metrics.entry(metric.metric_name.clone()).or_default();
            *sum += metric.total_metric_value;
            *count += requests;
        }
        true
    }

    /// Takes out what came of backends with any metric. Requests that ended without stay, for the next time.
    pub fn take(&mut self, now: DateTime<Utc>) -> Vec<OrcaReading> {
        let is_within = |at: DateTime<Utc>, seconds: f64| (now - at).as_seconds_f64() < seconds;
        self.nodes.retain(|_, told| is_within(told.at, PROGRESS_SECONDS));
        self.running = self.nodes.values().map(|told| told.running.len()).sum();
        let mut readings = Vec::new();
        self.backends.retain(|address, sums| {
            if sums.metrics.is_empty() {
                return is_within(sums.at, SILENT_SECONDS);
            }
            let means = std::mem::take(&mut sums.metrics);
            let means = means.into_iter().map(|(name, (sum, count))| (name, sum / count)).collect();
            readings.push(OrcaReading { address: *address, means, ended: sums.ended, in_progress: 0.0 });
            false
        });
        if !readings.is_empty() {
            let mut running = BTreeMap::<SocketAddr, f64>::new();
            for (address, count) in self.nodes.values().flat_map(|told| &told.running) {
                *running.entry(*address).or_default() += count;
            }
            for reading in &mut readings {
                reading.in_progress = running.get(&reading.address).copied().unwrap_or(0.0);
            }
        }
        readings
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, SystemTime};

    use envoy_types::pb::envoy::config::endpoint::v3::{
        ClusterStats, EndpointLoadMetricStats, UpstreamLocalityStats,
    };

    use clairvoy_xds::ReportingNode;

    use super::super::load::tests::envoy_address;
    use super::*;

    fn report(node: &str, model: &str, ended: u64, running: u64, metrics: &[(&str, u64, f64)]) -> LoadReport {
        let metric = |(name, count, sum): &(&str, u64, f64)| EndpointLoadMetricStats {
            metric_name: (*name).to_owned(),
            num_requests_finished_with_metric: *count,
            total_metric_value: *sum,
        };
        let endpoint = UpstreamEndpointStats {
            address: Some(envoy_address("10.0.0.1", 8000)),
            total_successful_requests: ended,
            total_requests_in_progress: running,
            load_metric_stats: metrics.iter().map(metric).collect(),
            ..UpstreamEndpointStats::default()
        };
        let locality = UpstreamLocalityStats {
            upstream_endpoint_stats: vec![endpoint],
            ..UpstreamLocalityStats::default()
        };
        LoadReport {
            node: Arc::new(ReportingNode { id: node.to_owned(), ..ReportingNode::default() }),
            at: SystemTime::UNIX_EPOCH + Duration::from_secs(100),
            cluster_stats: vec![ClusterStats {
                cluster_name: model.to_owned(),
                upstream_locality_stats: vec![locality],
                ..ClusterStats::default()
            }],
        }
    }

    fn any(_: SocketAddr) -> bool {
        true
    }

    #[test]
    fn addresses_that_are_no_backends_and_silent_ones_are_not_remembered() {
        let config = crate::config::parse(
            "models: [{ name: m, pools: [p] }]\n\
             pools: [{ name: p, telemetry: push, orca: { queue_depth: named_metrics.waiting } }]\n",
        )
        .unwrap();
        let mut tally = OrcaTally::default();
        // Ten times the same endpoint.
        let mut many = report("a", "m", 1, 1, &[]);
        let endpoints = &mut many.cluster_stats[0].upstream_locality_stats[0].upstream_endpoint_stats;
        *endpoints = vec![endpoints[0].clone(); 10];
        assert_eq!(tally.add(&many, "edge", &config, |_| false), 0);
        assert!(tally.backends.is_empty() && tally.nodes.is_empty());
        tally.add(&many, "edge", &config, any);
        assert_eq!((tally.backends.len(), tally.running), (1, 1));
        let at = |seconds| DateTime::from_timestamp(seconds, 0).unwrap();
        assert_eq!(tally.take(at(129)), []);
        assert_eq!((tally.backends.len(), tally.running), (1, 1));
        assert_eq!(tally.take(at(131)), []);
        assert_eq!((tally.backends.len(), tally.running), (1, 0));
        assert_eq!(tally.take(at(401)), []);
        assert!(tally.backends.is_empty(), "requests that ended long ago count no more");
    }

    #[test]
    fn what_finds_no_room_is_counted() {
        let mut tally = OrcaTally { running: MOST_RUNNING - 1, ..OrcaTally::default() };
        let running = |hosts: u8| (0..hosts).map(|host| (([10, 0, 0, host], 80).into(), 1.0)).collect();
        assert_eq!(tally.note_running("a".to_owned(), DateTime::UNIX_EPOCH, running(1)), 0);
        assert_eq!(tally.note_running("b".to_owned(), DateTime::UNIX_EPOCH, running(2)), 2);
        // What an Envoy said before goes when it says something else.
        assert_eq!(tally.note_running("a".to_owned(), DateTime::UNIX_EPOCH, running(0)), 0);
        assert_eq!(tally.note_running("b".to_owned(), DateTime::UNIX_EPOCH, running(1)), 0);
    }

    #[test]
    fn reports_of_several_envoys_make_one_mean_and_other_metrics_are_passed_over() {
        let config = crate::config::parse(
            "models: [{ name: m, pools: [p] }, { name: other, pools: [q] }]\n\
             pools: [{ name: p, telemetry: push, orca: { queue_depth: named_metrics.waiting } }, { name: q }]\n",
        )
        .unwrap();
        let now = DateTime::from_timestamp(101, 0).unwrap();
        let mut tally = OrcaTally::default();
        let waiting = "named_metrics.waiting";
        tally.add(
            &report("a", "m", 5, 2, &[(waiting, 4, 8.0), ("named_metrics.other", 4, 1.0)]),
            "edge",
            &config,
            any,
        );
        tally.add(
            &report("b", "m", 1, 1, &[(waiting, 1, 7.0), ("cpu_utilization", 0, 1.0)]),
            "edge",
            &config,
            any,
        );
        tally.add(&report("c", "other", 9, 9, &[(waiting, 1, 100.0)]), "edge", &config, any);
        let [reading] = &tally.take(now)[..] else { panic!("one backend") };
        assert_eq!(reading.means, BTreeMap::from([(waiting.to_owned(), 3.0)]));
        assert_eq!((reading.ended, reading.in_progress), (6.0, 3.0));

        // What ended without a report counts with the next one.
        tally.add(&report("a", "m", 3, 0, &[]), "edge", &config, any);
        assert_eq!(tally.take(now), []);
        tally.add(
            &report("a", "m", 1, 0, &[(waiting, 1, f64::NAN), (waiting, 1, 2.0)]),
            "edge",
            &config,
            any,
        );
        let later = DateTime::from_timestamp(140, 0).unwrap();
        let [reading] = &tally.take(later)[..] else { panic!("one backend") };
        assert_eq!((reading.ended, reading.in_progress), (4.0, 0.0), "old news of what runs is none");
    }

    #[test]
    fn envoys_of_two_gateways_may_have_one_id() {
        let config = crate::config::parse(
            "models: [{ name: m, pools: [p] }]\n\
             pools: [{ name: p, telemetry: push, orca: { queue_depth: named_metrics.waiting } }]\n",
        )
        .unwrap();
        let mut tally = OrcaTally::default();
        for (gateway, running) in [("east", 2), ("west", 5), ("east", 3)] {
            tally.add(
                &report("a", "m", 1, running, &[("named_metrics.waiting", 1, 1.0)]),
                gateway,
                &config,
                any,
            );
        }
        let [reading] = &tally.take(DateTime::from_timestamp(101, 0).unwrap())[..] else {
            panic!("one backend")
        };
        assert_eq!(reading.in_progress, 8.0);
    }

    #[test]
    fn numbers_beyond_belief_do_not_stay() {
        let config = crate::config::parse(
            "models: [{ name: m, pools: [p] }]\n\
             pools: [{ name: p, telemetry: push, orca: { queue_depth: named_metrics.waiting } }]\n",
        )
        .unwrap();
        let mut tally = OrcaTally::default();
        let waiting = "named_metrics.waiting";
        for (count, sum) in [(1, 1e300), (1, f64::INFINITY), (u64::MAX, 1.0), (0, 1.0)] {
            tally.add(&report("a", "m", u64::MAX, u64::MAX, &[(waiting, count, sum)]), "edge", &config, any);
        }
        tally.add(&report("b", "m", 2, 1, &[(waiting, 2, 6.0)]), "edge", &config, any);
        let [reading] = &tally.take(DateTime::from_timestamp(101, 0).unwrap())[..] else {
            panic!("one backend")
        };
        assert_eq!(reading.means, BTreeMap::from([(waiting.to_owned(), 3.0)]));
        assert_eq!((reading.ended, reading.in_progress), (2.0, 1.0));
    }
}
