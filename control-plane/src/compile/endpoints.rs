use envoy_types::pb::envoy::config::{
    core::v3::{HealthStatus, Locality},
    endpoint::v3::{
        ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints, cluster_load_assignment,
        lb_endpoint::HostIdentifier,
    },
};
use envoy_types::pb::envoy::r#type::v3::{FractionalPercent, fractional_percent::DenominatorType};
use envoy_types::pb::google::protobuf::UInt32Value;

use crate::envoy::static_cluster;

use super::proto::address;
use super::{EndpointIntent, GroupIntent, ModelIntent};

/// What load reports call the requests that are dropped.
const DROP_CATEGORY: &str = "overload";
const MILLION: u32 = 1_000_000;
const THOUSAND: u32 = 1_000;

/// The endpoints of a model and the shares of its groups, by predictions and by capacity. Only the first drops requests: an
/// assignment stays when nobody stands by it, and the twin takes over then.
pub(super) fn assignments(model: &ModelIntent) -> [ClusterLoadAssignment; 2] {
    [
        assignment(model.name.clone(), &model.groups, model.lanes.predictive_refused),
        assignment(static_cluster(&model.name), &model.static_groups, 0),
    ]
}

/// An assignment that drops a part of the requests, in millionths.
///
/// Envoy hands what is dropped to its workers only together with a change of hosts or weights. So each part, in steps of a
/// thousandth, has a factor of its own by which the weights of all groups are multiplied; their shares stay.
fn assignment(cluster_name: String, groups: &[GroupIntent], dropped: u32) -> ClusterLoadAssignment {
    let thousandths = (dropped.min(MILLION) + THOUSAND / 2) / THOUSAND;
    let drop = cluster_load_assignment::policy::DropOverload {
        category: DROP_CATEGORY.to_owned(),
        drop_percentage: Some(FractionalPercent {
            numerator: thousandths * THOUSAND,
            denominator: DenominatorType::Million.into(),
        }),
    };
    ClusterLoadAssignment {
        cluster_name,
        endpoints: groups.iter().map(|one| group(one, 1 + thousandths)).collect(),
        // A group that lost a backend keeps just the share of those that are left; shares are ours to decide.
        policy: Some(cluster_load_assignment::Policy {
            overprovisioning_factor: Some(UInt32Value { value: 100 }),
            drop_overloads: (thousandths > 0).then_some(drop).into_iter().collect(),
            ..cluster_load_assignment::Policy::default()
        }),
        ..ClusterLoadAssignment::default()
    }
}

fn group(group: &GroupIntent, factor: u32) -> LocalityLbEndpoints {
    LocalityLbEndpoints {
        locality: Some(Locality {
            region: group.region.clone(),
            zone: group.zone.clone(),
            sub_zone: group.name.clone(),
        }),
        // Ten thousand together, and a factor of a thousand at most: far below 2^32.
        load_balancing_weight: Some(UInt32Value { value: group.weight.max(1).saturating_mul(factor) }),
        lb_endpoints: group.endpoints.iter().map(endpoint).collect(),
        ..LocalityLbEndpoints::default()
    }
}

fn endpoint(endpoint: &EndpointIntent) -> LbEndpoint {
    let status = if endpoint.draining { HealthStatus::Draining } else { HealthStatus::Healthy };
    LbEndpoint {
        health_status: status.into(),
        // Envoy takes none for 1. Where all are equal it may compare active requests alone.
        load_balancing_weight: (endpoint.weight > 1).then_some(UInt32Value { value: endpoint.weight }),
        host_identifier: Some(HostIdentifier::Endpoint(Endpoint {
            address: Some(address(endpoint.address)),
            ..Endpoint::default()
        })),
        ..LbEndpoint::default()
    }
}
