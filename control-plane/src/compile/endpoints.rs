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
/// Largest part of the requests that spare groups get while another one can have any.
const MOST_SPARE: f64 = 0.99;
const MILLION: u32 = 1_000_000;
const THOUSAND: u32 = 1_000;

/// The endpoints of a model and the shares of its groups, by predictions and by capacity. Only the first drops requests: an
/// assignment stays when nobody stands by it, and the twin takes over then.
pub(super) fn assignments(model: &ModelIntent) -> [ClusterLoadAssignment; 2] {
    [
        predictive(model, &model.groups),
        assignment(static_cluster(&model.name), &model.static_groups, model, false, 0),
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
    assignment(model.name.clone(), groups, model, has_checks, dropped)
}

/// An assignment that drops a part of the requests, in millionths.
///
/// Envoy hands what is dropped to its workers only together with a change of hosts or weights. So each part, in steps of a
/// thousandth, has a factor of its own by which the weights of all groups are multiplied; their shares stay.
///
/// Spare groups have no weight: such a group gets nothing while a weighted one has a host that can be used, and everything
/// when none has. Priorities would pass on the part of every ejected host, at the factor that groups need
/// (docs/envoy-balance.md). They are weighted while no other group has a host, and for a part of the requests while
/// the others come back.
fn assignment(
    cluster_name: String,
    groups: &[GroupIntent],
    model: &ModelIntent,
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
    let locality = |one: &GroupIntent| group(one, 1 + thousandths, has_checks && !one.is_checked);
    let mut endpoints: Vec<LocalityLbEndpoints> = groups.iter().map(locality).collect();
    let weights = spare_weights(groups, &model.spare_groups, model.spare_part);
    endpoints.extend(model.spare_groups.iter().zip(weights).map(|(spare, weight)| {
        let weighted = locality(&GroupIntent { weight: weight.unwrap_or(1), ..spare.clone() });
        let load_balancing_weight = weighted.load_balancing_weight.filter(|_| weight.is_some());
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

/// The weights of spare groups beside the others, such that they get a part of the requests; none while they only stand by.
fn spare_weights(groups: &[GroupIntent], spare: &[GroupIntent], part: f64) -> Vec<Option<u32>> {
    let serves = |group: &&GroupIntent| group.endpoints.iter().any(|endpoint| !endpoint.draining);
    let sum = |groups: &[GroupIntent]| -> f64 {
        groups.iter().filter(serves).map(|group| f64::from(group.weight.max(1))).sum()
    };
    let (others, of_spare) = (sum(groups), sum(spare));
    let weight = |group: &GroupIntent| {
        if others <= 0.0 {
            return Some(group.weight);
        }
        // At most a hundred times the others' sum, so that all weights stay far below 2^32.
        let odds = part.min(MOST_SPARE) / (1.0 - part.min(MOST_SPARE));
        let share = f64::from(group.weight) / of_spare.max(1.0);
        (part > 0.0).then(|| (odds * others * share).round().max(1.0) as u32)
    };
    spare.iter().map(weight).collect()
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
