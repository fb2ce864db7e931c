use envoy_types::pb::envoy::config::{
    core::v3::{HealthStatus, Locality},
    endpoint::v3::{
        ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints, cluster_load_assignment,
        endpoint::HealthCheckConfig, lb_endpoint::HostIdentifier,
    },
};
use envoy_types::pb::envoy::r#type::v3::{FractionalPercent, fractional_percent::DenominatorType};
use envoy_types::pb::google::protobuf::UInt32Value;

use crate::decide::Zone;
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
        predictive(model, &model.groups),
        assignment(static_cluster(&model.name), &model.static_groups, &model.spare_groups, false, 0),
    ]
}

/// The assignment by predictions for the Envoys of a zone; none where it is the one of all.
pub(super) fn view(model: &ModelIntent, zone: &Zone) -> Option<ClusterLoadAssignment> {
    let view = model.views.iter().find(|view| view.zone == *zone)?;
    let groups = model.groups.iter().zip(&view.weights);
    let groups: Vec<GroupIntent> =
        groups.map(|(group, weight)| GroupIntent { weight: *weight, ..group.clone() }).collect();
    Some(predictive(model, &groups))
}

fn predictive(model: &ModelIntent, groups: &[GroupIntent]) -> ClusterLoadAssignment {
    let has_checks = model.health.checks.is_some();
    let dropped = model.lanes.predictive_refused;
    assignment(model.name.clone(), groups, &model.spare_groups, has_checks, dropped)
}

/// An assignment that drops a part of the requests, in millionths.
///
/// Envoy hands what is dropped to its workers only together with a change of hosts or weights. So each part, in steps of a
/// thousandth, has a factor of its own by which the weights of all groups are multiplied; their shares stay.
///
/// Spare groups have no weight: such a group gets nothing while a weighted one has a host that can be used, and everything
/// when none has. Priorities would pass on the part of every ejected host, at the factor that groups need
/// (docs/envoy-balance.md).
fn assignment(
    cluster_name: String,
    groups: &[GroupIntent],
    spare: &[GroupIntent],
    has_checks: bool,
    dropped: u32,
) -> ClusterLoadAssignment {
    let thousandths = (dropped.min(MILLION) + THOUSAND / 2) / THOUSAND;
    let drop = cluster_load_assignment::policy::DropOverload {
        category: DROP_CATEGORY.to_owned(),
        drop_percentage: Some(FractionalPercent {
            numerator: thousandths * THOUSAND,
            denominator: DenominatorType::Million.into(),
        }),
    };
    let serves = |group: &GroupIntent| group.endpoints.iter().any(|endpoint| !endpoint.draining);
    let any_serves = groups.iter().any(serves);
    let locality = |one: &GroupIntent| group(one, 1 + thousandths, has_checks && !one.is_checked);
    let mut endpoints: Vec<LocalityLbEndpoints> = groups.iter().map(locality).collect();
    endpoints.extend(spare.iter().map(|spare| {
        let weighted = locality(spare);
        let load_balancing_weight = weighted.load_balancing_weight.filter(|_| !any_serves);
        LocalityLbEndpoints { load_balancing_weight, ..weighted }
    }));
    ClusterLoadAssignment {
        cluster_name,
        endpoints,
        // A group that lost a backend keeps just the share of those that are left; shares are ours to decide.
        policy: Some(cluster_load_assignment::Policy {
            overprovisioning_factor: Some(UInt32Value { value: 100 }),
            drop_overloads: (thousandths > 0).then_some(drop).into_iter().collect(),
            ..cluster_load_assignment::Policy::default()
        }),
        ..ClusterLoadAssignment::default()
    }
}

fn group(group: &GroupIntent, factor: u32, is_left_out: bool) -> LocalityLbEndpoints {
    LocalityLbEndpoints {
        locality: Some(Locality {
            region: group.region.clone(),
            zone: group.zone.clone(),
            sub_zone: group.name.clone(),
        }),
        // Ten thousand together, and a factor of a thousand at most: far below 2^32.
        load_balancing_weight: Some(UInt32Value { value: group.weight.max(1).saturating_mul(factor) }),
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
