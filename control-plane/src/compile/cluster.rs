use envoy_types::pb::envoy::config::cluster::v3::{CircuitBreakers, Cluster, circuit_breakers, cluster};
use envoy_types::pb::envoy::config::core::v3::RoutingPriority;
use envoy_types::pb::envoy::r#type::v3::Percent;
use envoy_types::pb::google::protobuf::UInt32Value;

use crate::config::{ModelBalance, Policy};
use crate::envoy::Lane;
use crate::envoy::static_cluster;

use super::ModelIntent;
use super::lanes::priority;
use super::proto::{ads, seconds, span};
use super::{health, policy};

/// Envoy's default of 1,024 a cluster is soon reached by streams that last minutes; queues are the model servers'
/// business, and what they cannot take is told by their telemetry.
const MAX_CONCURRENT: u32 = 1_000_000;

/// The cluster of a model, and its static twin, which has shares of groups by capacity whatever the policy, and checks no
/// endpoint: checked twice they would be asked twice as often, and it has to go on when a check is wrong.
pub(super) fn clusters(model: &ModelIntent) -> [Cluster; 2] {
    let by_capacity = ModelBalance { policy: Policy::Static, ..ModelBalance::default() };
    [
        Cluster {
            health_checks: model.health.checks.iter().map(health::check).collect(),
            // Else a backend that is taken from the assignment gets requests for as long as it answers checks.
            ignore_health_on_host_removal: model.health.checks.is_some(),
            ..cluster(model.name.clone(), &model.balance, model)
        },
        cluster(static_cluster(&model.name), &by_capacity, model),
    ]
}

fn cluster(name: String, balance: &ModelBalance, model: &ModelIntent) -> Cluster {
    Cluster {
        name,
        cluster_discovery_type: Some(cluster::ClusterDiscoveryType::Type(cluster::DiscoveryType::Eds.into())),
        eds_cluster_config: Some(cluster::EdsClusterConfig {
            eds_config: Some(ads()),
            service_name: String::new(),
        }),
        connect_timeout: Some(span(model.health.connect_timeout)),
        load_balancing_policy: Some(policy::load_balancing(balance)),
        common_lb_config: Some(cluster::CommonLbConfig {
            // No panic mode: a backend that is draining or ejected gets nothing, and Clairvoy never drains all.
            healthy_panic_threshold: Some(Percent { value: 0.0 }),
            // By default Envoy gathers changes of health for a second: several times the errors when backends fail
            // (docs/envoy-balance.md).
            update_merge_window: Some(seconds(0)),
            ..cluster::CommonLbConfig::default()
        }),
        circuit_breakers: Some(CircuitBreakers {
            thresholds: vec![
                thresholds(priority(Lane::Batch), model.lanes.max_requests.batch),
                thresholds(priority(Lane::Interactive), model.lanes.max_requests.interactive),
            ],
            ..CircuitBreakers::default()
        }),
        outlier_detection: Some(health::outlier_detection(&model.health.outlier_detection)),
        lrs_report_endpoint_metrics: model.load_metrics.clone(),
        ..Cluster::default()
    }
}

/// The bounds of a lane. A request without HTTP/2 has a connection of its own, and one that waits for it is pending.
fn thresholds(priority: RoutingPriority, max_requests: u32) -> circuit_breakers::Thresholds {
    let number = |value| Some(UInt32Value { value });
    circuit_breakers::Thresholds {
        priority: priority.into(),
        max_connections: number(MAX_CONCURRENT),
        max_pending_requests: number(max_requests),
        max_requests: number(max_requests),
        max_retries: number(MAX_CONCURRENT),
        ..circuit_breakers::Thresholds::default()
    }
}
