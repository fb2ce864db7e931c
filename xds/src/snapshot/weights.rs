//! Limits of load balancing weights.

use std::collections::BTreeMap;

use envoy_types::pb::envoy::config::core::v3::address::Address;
use envoy_types::pb::envoy::config::core::v3::socket_address::PortSpecifier;
use envoy_types::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use envoy_types::pb::envoy::config::endpoint::v3::{ClusterLoadAssignment, LbEndpoint, LocalityLbEndpoints};
use envoy_types::pb::envoy::config::route::v3::WeightedCluster;
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy;

use super::fault::Fault;
use crate::resource_type::ResourceType;

const MAX_SUM: u64 = u32::MAX as u64;

/// Checks the weights of endpoints, whose sum is limited within a locality, and of localities, whose sum
/// is limited within a priority. A missing weight counts as 1.
pub(super) fn of_assignment(
    resource_type: ResourceType,
    resource: &str,
    assignment: &ClusterLoadAssignment,
) -> Vec<Fault> {
    let mut faults = Vec::new();
    let zero = |of| Fault::ZeroWeight { resource_type, resource: resource.to_owned(), of };
    let mut sums = Vec::new();
    let mut priorities: BTreeMap<u32, u64> = BTreeMap::new();
    for locality in &assignment.endpoints {
        let name = locality_name(locality);
        let weight = locality.load_balancing_weight.map(|weight| weight.value);
        if weight == Some(0) {
            faults.push(zero(name.clone()));
        }
        *priorities.entry(locality.priority).or_default() += u64::from(weight.unwrap_or(1));
        let mut sum = 0;
        for endpoint in &locality.lb_endpoints {
            let weight = endpoint.load_balancing_weight.map(|weight| weight.value);
            if weight == Some(0) {
                faults.push(zero(format!("endpoint {} in {name}", endpoint_name(endpoint))));
            }
            sum += u64::from(weight.unwrap_or(1));
        }
        faults.extend(unweighted(&locality.lb_endpoints).map(|endpoint| Fault::MissingWeight {
            resource_type,
            resource: resource.to_owned(),
            of: format!("endpoint {} in {name}", endpoint_name(endpoint)),
        }));
        sums.push((format!("the endpoints in {name}"), sum));
    }
    sums.extend(priorities.into_iter().map(|(p, sum)| (format!("the localities of priority {p}"), sum)));
    let too_large = sums.into_iter().filter(|(_, sum)| *sum > MAX_SUM);
    faults.extend(too_large.filter_map(|(of, sum)| of_sum(resource_type, resource, of, sum)));
    faults
}

/// The localities with endpoints that have no weight, where others of their priority have one. Where
/// localities are weighted they get no requests.
pub(super) fn unweighted_localities(assignment: &ClusterLoadAssignment) -> Vec<String> {
    let mut priorities: BTreeMap<u32, Vec<&LocalityLbEndpoints>> = BTreeMap::new();
    for locality in assignment.endpoints.iter().filter(|locality| !locality.lb_endpoints.is_empty()) {
        priorities.entry(locality.priority).or_default().push(locality);
    }
    let unweighted = priorities.values().flat_map(|localities| {
        let weighted = localities.iter().any(|locality| locality.load_balancing_weight.is_some());
        localities.iter().filter(move |locality| weighted && locality.load_balancing_weight.is_none())
    });
    unweighted.map(|locality| locality_name(locality)).collect()
}

/// The endpoints without a weight, where others have one that is not 1.
fn unweighted(endpoints: &[LbEndpoint]) -> impl Iterator<Item = &LbEndpoint> {
    let mut weights = endpoints.iter().filter_map(|endpoint| endpoint.load_balancing_weight);
    let weighted = weights.any(|weight| weight.value > 1);
    endpoints.iter().filter(move |endpoint| weighted && endpoint.load_balancing_weight.is_none())
}

/// Checks the weights of one route's clusters. A weight of 0 is allowed here, a sum of 0 is not.
pub(super) fn of_weighted_clusters(
    resource_type: ResourceType,
    resource: &str,
    weighted: &WeightedCluster,
) -> Option<Fault> {
    let weights = weighted.clusters.iter().filter_map(|cluster| cluster.weight);
    let sum = weights.map(|weight| u64::from(weight.value)).sum();
    of_sum(resource_type, resource, names_of(weighted), sum)
}

/// Checks the weights of the clusters of a TCP proxy, none of which may be 0.
pub(super) fn of_tcp_weighted_clusters(
    resource_type: ResourceType,
    resource: &str,
    weighted: &tcp_proxy::WeightedCluster,
) -> Vec<Fault> {
    let zero = weighted.clusters.iter().filter(|cluster| cluster.weight == 0);
    zero.map(|cluster| Fault::ZeroWeight {
        resource_type,
        resource: resource.to_owned(),
        of: format!("cluster {}", cluster.name),
    })
    .collect()
}

/// Checks a sum of weights, which must be neither 0 nor beyond 32 bits.
pub(super) fn of_sum(resource_type: ResourceType, resource: &str, of: String, sum: u64) -> Option<Fault> {
    let resource = resource.to_owned();
    match sum {
        0 => Some(Fault::ZeroWeight { resource_type, resource, of }),
        1..=MAX_SUM => None,
        _ => Some(Fault::WeightSum { resource_type, resource, of, sum }),
    }
}

/// What a fault calls the clusters of a route.
pub(super) fn names_of(weighted: &WeightedCluster) -> String {
    let names: Vec<_> = weighted.clusters.iter().map(|cluster| cluster.name.as_str()).collect();
    format!("the clusters {}", names.join(", "))
}

pub(super) fn locality_name(endpoints: &LocalityLbEndpoints) -> String {
    let locality = endpoints.locality.clone().unwrap_or_default();
    format!("locality {}/{}/{}", locality.region, locality.zone, locality.sub_zone)
}

pub(super) fn endpoint_name(endpoint: &LbEndpoint) -> String {
    let Some(HostIdentifier::Endpoint(endpoint)) = &endpoint.host_identifier else {
        return "without address".to_owned();
    };
    let address = endpoint.address.as_ref().and_then(|address| address.address.as_ref());
    match address {
        Some(Address::SocketAddress(socket)) => match socket.port_specifier {
            Some(PortSpecifier::PortValue(port)) => format!("{}:{port}", socket.address),
            _ => socket.address.clone(),
        },
        Some(Address::Pipe(pipe)) => pipe.path.clone(),
        _ => endpoint.hostname.clone(),
    }
}
