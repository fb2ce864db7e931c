//! Load reports, and what clients are asked to report.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use envoy_types::pb::envoy::config::endpoint::v3::ClusterStats;
use envoy_types::pb::envoy::service::load_stats::v3::LoadStatsResponse;
use envoy_types::pb::google::protobuf;

use super::node::ReportingNode;
use super::options::InvalidIntake;

const MIN_INTERVAL: Duration = Duration::from_millis(1);
const MAX_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);

/// What clients are asked to report: the fields of `envoy.service.load_stats.v3.LoadStatsResponse`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadReporting {
    /// Between two reports, from 1 ms to a day. 10 s by default.
    pub load_reporting_interval: Duration,
    /// All clusters that the client knows are reported, the one through which it reaches this server
    /// included, provided that the client can: it announces `envoy.lrs.supports_send_all_clusters`.
    /// `true` by default.
    pub send_all_clusters: bool,
    /// The clusters reported when all are not wanted, and by clients that cannot report all.
    pub clusters: Vec<String>,
    /// Load is reported for each endpoint, beside that of each locality. `false` by default.
    pub report_endpoint_granularity: bool,
}

impl Default for LoadReporting {
    fn default() -> Self {
        Self {
            load_reporting_interval: Duration::from_secs(10),
            send_all_clusters: true,
            clusters: Vec::new(),
            report_endpoint_granularity: false,
        }
    }
}

impl LoadReporting {
    pub(super) fn check(&self) -> Result<(), InvalidIntake> {
        check_interval(self.load_reporting_interval)
    }

    pub(super) fn response(&self, client_can_send_all: bool) -> LoadStatsResponse {
        let send_all_clusters = self.send_all_clusters && client_can_send_all;
        let clusters = if send_all_clusters { Vec::new() } else { self.clusters.clone() };
        LoadStatsResponse {
            clusters,
            send_all_clusters,
            load_reporting_interval: Some(protobuf::Duration {
                // At most a day.
                seconds: self.load_reporting_interval.as_secs() as i64,
                nanos: self.load_reporting_interval.subsec_nanos() as i32,
            }),
            report_endpoint_granularity: self.report_endpoint_granularity,
        }
    }
}

pub(super) fn check_interval(interval: Duration) -> Result<(), InvalidIntake> {
    if (MIN_INTERVAL..=MAX_INTERVAL).contains(&interval) {
        Ok(())
    } else {
        Err(InvalidIntake::Interval { interval })
    }
}

/// One report of one client.
#[derive(Clone, Debug, PartialEq)]
pub struct LoadReport {
    /// Who reports.
    pub node: Arc<ReportingNode>,
    /// When it came in.
    pub at: SystemTime,
    /// The load of each reported cluster since its last report. Empty when there is nothing to report.
    pub cluster_stats: Vec<ClusterStats>,
}

impl LoadReport {
    /// Returns the time over which the numbers of a cluster were counted: at least the interval that was
    /// asked for. `None` if the client does not say, or says something below zero.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use clairvoy_xds::LoadReport;
    /// use envoy_types::pb::envoy::config::endpoint::v3::ClusterStats;
    /// use envoy_types::pb::google::protobuf;
    ///
    /// let load_report_interval = Some(protobuf::Duration { seconds: 2, nanos: 500_000_000 });
    /// let stats = ClusterStats { load_report_interval, ..Default::default() };
    /// assert_eq!(LoadReport::interval(&stats), Some(Duration::from_millis(2500)));
    /// ```
    pub fn interval(cluster: &ClusterStats) -> Option<Duration> {
        let interval = cluster.load_report_interval.as_ref()?;
        let seconds = Duration::from_secs(u64::try_from(interval.seconds).ok()?);
        seconds.checked_add(Duration::from_nanos(u64::try_from(interval.nanos).ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_clusters_are_asked_only_of_clients_that_can() {
        let reporting = LoadReporting { clusters: vec!["a".into()], ..LoadReporting::default() };
        let all = reporting.response(true);
        assert_eq!((all.send_all_clusters, all.clusters.len()), (true, 0));
        let named = reporting.response(false);
        assert_eq!((named.send_all_clusters, named.clusters), (false, vec!["a".to_owned()]));
    }

    #[test]
    fn intervals_that_make_a_client_report_without_pause_are_refused() {
        let refused = Duration::from_micros(999);
        assert_eq!(check_interval(refused), Err(InvalidIntake::Interval { interval: refused }));
        assert!(check_interval(Duration::from_millis(1)).is_ok());
        assert!(check_interval(Duration::MAX).is_err());
    }
}
