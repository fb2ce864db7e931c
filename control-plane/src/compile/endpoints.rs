use envoy_types::pb::envoy::config::{
    core::v3::{HealthStatus, Locality},
    endpoint::v3::{
        ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints, cluster_load_assignment,
        endpoint::HealthCheckConfig, lb_endpoint::HostIdentifier,
    },
};
use envoy_types::pb::envoy::r#type::v3::{FractionalPercent, fractional_percent::DenominatorType};
use envoy_types::pb::google::protobuf::UInt32Value;

use crate::envoy::static_cluster;

use super::proto::address;
use super::{EndpointIntent, GroupIntent, ModelIntent};

/// What load reports call the requests that are dropped.
const DROP_CATEGORY: &str = "overload";

/// The endpoints of a model and the shares of its groups, by predictions and by capacity. Only the first drops requests: an
/// assignment stays when nobody stands by it, and the twin takes over then.
pub(super) fn assignments(model: &ModelIntent) -> [ClusterLoadAssignment; 2] {
    [
        assignment(
            model.name.clone(),
            &model.groups,
            model.health.checks.is_some(),
            model.lanes.predictive_refused,
        ),
        assignment(static_cluster(&model.name), &model.static_groups, false, 0),
    ]
}

fn assignment(
    cluster_name: String,
    groups: &[GroupIntent],
    has_checks: bool,
    dropped: u32,
) -> ClusterLoadAssignment {
    let drop = cluster_load_assignment::policy::DropOverload {
        category: DROP_CATEGORY.to_owned(),
        drop_percentage: Some(FractionalPercent {
            numerator: dropped,
            denominator: DenominatorType::Million.into(),
        }),
    };
    ClusterLoadAssignment {
        cluster_name,
        endpoints: groups.iter().map(|one| group(one, has_checks && !one.is_checked)).collect(),
        // A group that lost a backend keeps just the share of those that are left; shares are ours to decide.
        policy: Some(cluster_load_assignment::Policy {
            overprovisioning_factor: Some(UInt32Value { value: 100 }),
            drop_overloads: (dropped > 0).then_some(drop).into_iter().collect(),
            ..cluster_load_assignment::Policy::default()
        }),
        ..ClusterLoadAssignment::default()
    }
}

fn group(group: &GroupIntent, is_left_out: bool) -> LocalityLbEndpoints {
    LocalityLbEndpoints {
        locality: Some(Locality {
            region: group.region.clone(),
            zone: group.zone.clone(),
            sub_zone: group.name.clone(),
        }),
        load_balancing_weight: Some(UInt32Value { value: group.weight.max(1) }),
        lb_endpoints: group.endpoints.iter().map(|one| endpoint(one, is_left_out)).collect(),
        ..LocalityLbEndpoints::default()
    }
}

/// An endpoint, which may be left out of the checks that its cluster makes.
fn endpoint(endpoint: &EndpointIntent, is_left_out: bool) -> LbEndpoint {
    let status = if endpoint.draining { HealthStatus::Draining } else { HealthStatus::Healthy };
    LbEndpoint {
        health_status: status.into(),
        // Envoy takes none for 1. Where all are equal it may compare active requests alone.
        load_balancing_weight: (endpoint.weight > 1).then_some(UInt32Value { value: endpoint.weight }),
        host_identifier: Some(HostIdentifier::Endpoint(Endpoint {
            address: Some(address(endpoint.address)),
            health_check_config: is_left_out.then(|| HealthCheckConfig {
                disable_active_health_check: true,
                ..HealthCheckConfig::default()
            }),
            ..Endpoint::default()
        })),
        ..LbEndpoint::default()
    }
}
