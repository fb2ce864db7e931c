use std::collections::BTreeMap;
use std::net::SocketAddr;

use chrono::{DateTime, Utc};
use envoy_types::pb::envoy::config::core::v3::{Address, address, socket_address};
use envoy_types::pb::envoy::config::endpoint::v3::{ClusterStats, UpstreamLocalityStats};
use serde::{Deserialize, Serialize};

use clairvoy_xds::LoadReport;

use crate::decide::Zone;

use super::clusters::model_of_cluster;
use super::groups::{GroupLoad, GroupSums};

/// What one Envoy reports of the time since its last report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeLoad {
    /// Who reports: see [`reporter`].
    pub node_id: String,
    /// Where it says that it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<Zone>,
    /// When the report came in.
    pub at: DateTime<Utc>,
    /// By model. A model without requests need not be there.
    pub models: BTreeMap<String, ModelLoad>,
    /// Endpoints that had any requests.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<EndpointLoad>,
    /// Groups of backends that had any requests.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<GroupLoad>,
}

/// Requests for one model through one Envoy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ModelLoad {
    /// Requests that were sent to an endpoint, each attempt that got a connection as one, and `dropped` ones.
    pub requests: f64,
    /// Requests that Envoy refused itself, by circuit breaking or overload drops.
    pub dropped: f64,
    /// The time over which they were counted, seconds.
    pub interval_seconds: f64,
}

/// Requests at one endpoint through one Envoy.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct EndpointLoad {
    /// The endpoint.
    pub address: SocketAddr,
    /// Requests that run at the time of the report.
    pub in_progress: f64,
    /// Requests that failed at the endpoint: 5xx, resets, and connections that were not made.
    pub errors: f64,
}

/// Between a gateway's name and a `node.id`; no name has it.
pub(super) const BEHIND_GATEWAY: char = '\u{1f}';

/// The name of an Envoy among all that report: Envoys of several gateways may have one `node.id`.
pub fn reporter(gateway: &str, node_id: &str) -> String {
    format!("{gateway}{BEHIND_GATEWAY}{node_id}")
}

/// The `node.id` in such a name.
pub fn node_of(reporter: &str) -> &str {
    reporter.split_once(BEHIND_GATEWAY).map_or(reporter, |(_, node_id)| node_id)
}

impl NodeLoad {
    /// The plain values of a report of an Envoy of a gateway, and how many endpoints and groups were left out because there are too many. The model
    /// of a cluster is its `service_name`, else its name, as in discovery; its static twin counts as the same.
    pub fn read(report: &LoadReport, gateway: &str, most_endpoints: usize) -> (Self, u64) {
        let mut models = BTreeMap::<String, ModelLoad>::new();
        let mut endpoints = BTreeMap::<SocketAddr, EndpointLoad>::new();
        let (mut groups, mut left_out) = (GroupSums::default(), 0);
        for stats in &report.cluster_stats {
            let model = models.entry(model_name(stats).to_owned()).or_default();
            let issued: u64 = stats
                .upstream_locality_stats
                .iter()
                .fold(0, |sum, locality| sum.saturating_add(locality.total_issued_requests));
            model.requests += issued.saturating_add(stats.total_dropped_requests) as f64;
            model.dropped += stats.total_dropped_requests as f64;
            let interval = LoadReport::interval(stats).map_or(0.0, |interval| interval.as_secs_f64());
            model.interval_seconds = model.interval_seconds.max(interval);
            for locality in &stats.upstream_locality_stats {
                groups.add(model_name(stats), interval, locality);
                left_out += add_endpoints(&mut endpoints, locality, most_endpoints);
            }
        }
        let (groups, more) = groups.finish();
        let load = Self {
            node_id: reporter(gateway, &report.node.id),
            zone: Zone::of_node(&report.node.region, &report.node.zone),
            at: report.at.into(),
            models,
            endpoints: endpoints.into_values().collect(),
            groups,
        };
        (load, left_out + more)
    }
}

pub(super) fn model_name(stats: &ClusterStats) -> &str {
    let name =
        if stats.cluster_service_name.is_empty() { &stats.cluster_name } else { &stats.cluster_service_name };
    model_of_cluster(name)
}

fn add_endpoints(
    endpoints: &mut BTreeMap<SocketAddr, EndpointLoad>,
    locality: &UpstreamLocalityStats,
    most: usize,
) -> u64 {
    let mut left_out = 0;
    for stats in &locality.upstream_endpoint_stats {
        let Some(address) = stats.address.as_ref().and_then(socket) else { continue };
        if endpoints.len() >= most && !endpoints.contains_key(&address) {
            left_out += 1;
            continue;
        }
        let load =
            endpoints.entry(address).or_insert(EndpointLoad { address, in_progress: 0.0, errors: 0.0 });
        load.in_progress += stats.total_requests_in_progress as f64;
        load.errors += stats.total_error_requests as f64;
    }
    left_out
}

pub(super) fn socket(address: &Address) -> Option<SocketAddr> {
    let Some(address::Address::SocketAddress(socket)) = &address.address else { return None };
    let Some(socket_address::PortSpecifier::PortValue(port)) = socket.port_specifier else { return None };
    Some(SocketAddr::new(socket.address.parse().ok()?, u16::try_from(port).ok()?))
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;
    use std::time::{Duration, SystemTime};

    use envoy_types::pb::envoy::config::core::v3::{Locality, SocketAddress};
    use envoy_types::pb::envoy::config::endpoint::v3::UpstreamEndpointStats;
    use envoy_types::pb::google::protobuf;

    use clairvoy_xds::ReportingNode;

    use super::*;

    pub(in super::super) fn envoy_address(address: &str, port: u32) -> Address {
        Address {
            address: Some(address::Address::SocketAddress(SocketAddress {
                address: address.to_owned(),
                port_specifier: Some(socket_address::PortSpecifier::PortValue(port)),
                ..SocketAddress::default()
            })),
        }
    }

    fn stats(name: &str, service: &str, issued: &[u64], dropped: u64) -> ClusterStats {
        let endpoint = |(index, issued): (usize, &u64)| UpstreamEndpointStats {
            address: Some(envoy_address("10.0.0.1", 8000 + index as u32)),
            total_issued_requests: *issued,
            total_requests_in_progress: 2,
            total_error_requests: 1,
            ..UpstreamEndpointStats::default()
        };
        ClusterStats {
            cluster_name: name.to_owned(),
            cluster_service_name: service.to_owned(),
            upstream_locality_stats: vec![UpstreamLocalityStats {
                locality: Some(Locality { sub_zone: "fast".to_owned(), ..Locality::default() }),
                total_issued_requests: issued.iter().sum(),
                total_error_requests: 1,
                total_requests_in_progress: 2,
                upstream_endpoint_stats: issued.iter().enumerate().map(endpoint).collect(),
                ..UpstreamLocalityStats::default()
            }],
            total_dropped_requests: dropped,
            load_report_interval: Some(protobuf::Duration { seconds: 2, nanos: 0 }),
            ..ClusterStats::default()
        }
    }

    #[test]
    fn clusters_of_one_model_are_one_and_endpoints_are_summed() {
        let report = LoadReport {
            node: Arc::new(ReportingNode { id: "a".into(), zone: "b".into(), ..ReportingNode::default() }),
            at: SystemTime::UNIX_EPOCH + Duration::from_secs(100),
            cluster_stats: vec![
                stats("chat", "", &[3, 4], 2),
                stats("own", "chat", &[2], 0),
                stats("!static/chat", "", &[3], 0),
                stats("other", "", &[], 0),
            ],
        };
        let (load, left_out) = NodeLoad::read(&report, "edge", 1);
        assert_eq!((load.endpoints.len(), left_out), (1, 1), "the second one is too many");
        let (load, left_out) = NodeLoad::read(&report, "edge", 2);
        assert_eq!(left_out, 0);
        let chat = ModelLoad { requests: 14.0, dropped: 2.0, interval_seconds: 2.0 };
        assert_eq!(load.models["chat"], chat);
        assert_eq!(load.models["other"].requests, 0.0);
        assert_eq!((node_of(&load.node_id), load.at.timestamp()), ("a", 100));
        assert_eq!(load.zone.map(|zone| zone.to_string()).as_deref(), Some("/b"));
        let endpoint = |port: u16, times: f64| EndpointLoad {
            address: SocketAddr::from(([10, 0, 0, 1], port)),
            in_progress: 2.0 * times,
            errors: times,
        };
        assert_eq!(load.endpoints, [endpoint(8000, 3.0), endpoint(8001, 1.0)]);
        let group = |model: &str, requests, times| GroupLoad {
            model: model.to_owned(),
            group: "fast".to_owned(),
            requests,
            errors: times,
            in_progress: 2.0 * times,
            interval_seconds: 2.0,
        };
        assert_eq!(load.groups, [group("chat", 12.0, 3.0), group("other", 0.0, 1.0)]);
    }

    #[test]
    fn what_is_no_address_is_passed_over() {
        assert_eq!(socket(&envoy_address("gpu.example", 80)), None);
        assert_eq!(socket(&envoy_address("10.0.0.1", 80_000)), None);
        assert_eq!(socket(&envoy_address("::1", 80)), "[::1]:80".parse().ok());
        assert_eq!(socket(&Address::default()), None);
    }
}
