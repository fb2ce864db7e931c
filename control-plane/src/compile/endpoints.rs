use envoy_types::pb::envoy::config::{
    core::v3::{HealthStatus, Locality},
    endpoint::v3::{
        ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints, cluster_load_assignment,
        lb_endpoint::HostIdentifier,
    },
};
use envoy_types::pb::google::protobuf::UInt32Value;

use crate::decide::Zone;
use crate::envoy::static_cluster;

use super::proto::address;
use super::{EndpointIntent, GroupIntent, ModelIntent};

/// The endpoints of a model and the shares of its groups, by predictions and by capacity.
pub(super) fn assignments(model: &ModelIntent) -> [ClusterLoadAssignment; 2] {
    [
        assignment(model.name.clone(), &model.groups, &model.spare_groups),
        assignment(static_cluster(&model.name), &model.static_groups, &model.spare_groups),
    ]
}

/// The assignment by predictions for the Envoys of a zone; none where it is the one of all.
pub(super) fn view(model: &ModelIntent, zone: &Zone) -> Option<ClusterLoadAssignment> {
    let view = model.views.iter().find(|view| view.zone == *zone)?;
    let groups = model.groups.iter().zip(&view.weights);
    let groups: Vec<GroupIntent> =
        groups.map(|(group, weight)| GroupIntent { weight: *weight, ..group.clone() }).collect();
    Some(assignment(model.name.clone(), &groups, &model.spare_groups))
}

/// Spare groups have no weight: such a group gets nothing while a weighted one has a host that can be used, and everything
/// when none has. Priorities would pass on the part of every ejected host, at the factor that groups need
/// (docs/envoy-balance.md).
fn assignment(cluster_name: String, groups: &[GroupIntent], spare: &[GroupIntent]) -> ClusterLoadAssignment {
    let serves = |group: &GroupIntent| group.endpoints.iter().any(|endpoint| !endpoint.draining);
    let any_serves = groups.iter().any(serves);
    let mut endpoints: Vec<LocalityLbEndpoints> = groups.iter().map(group).collect();
    endpoints.extend(spare.iter().map(|spare| {
        let weighted = group(spare);
        let load_balancing_weight = weighted.load_balancing_weight.filter(|_| !any_serves);
        LocalityLbEndpoints { load_balancing_weight, ..weighted }
    }));
    ClusterLoadAssignment {
        cluster_name,
        endpoints,
        // A group that lost a backend keeps just the share of those that are left; shares are ours to decide.
        policy: Some(cluster_load_assignment::Policy {
            overprovisioning_factor: Some(UInt32Value { value: 100 }),
            ..cluster_load_assignment::Policy::default()
        }),
        ..ClusterLoadAssignment::default()
    }
}

fn group(group: &GroupIntent) -> LocalityLbEndpoints {
    LocalityLbEndpoints {
        locality: Some(Locality {
            region: group.region.clone(),
            zone: group.zone.clone(),
            sub_zone: group.name.clone(),
        }),
        load_balancing_weight: Some(UInt32Value { value: group.weight.max(1) }),
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
