//! Limits of load balancing weights.

use std::collections::BTreeMap;

use envoy_types::pb::envoy::config::core::v3::address::Address;
use envoy_types::pb::envoy::config::core::v3::socket_address::PortSpecifier;
use envoy_types::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use envoy_types::pb::envoy::config::endpoint::v3::{ClusterLoadAssignment, LbEndpoint, LocalityLbEndpoints};
use envoy_types::pb::envoy::config::route::v3::WeightedCluster;

use super::fault::Fault;
use crate::resource_type::ResourceType;

const MAX_SUM: u64 = u32::MAX as u64;

/// Checks the weights of endpoints, whose sum is limited within a locality, and of localities, whose sum
/// is limited within a priority. A missing weight counts as 1.
pub(super) fn of_assignment(assignment: &ClusterLoadAssignment) -> Vec<Fault> {
    let resource_type = ResourceType::ClusterLoadAssignment;
    let resource = &assignment.cluster_name;
    let mut faults = Vec::new();
    let mut zero = |of: String| {
        faults.push(Fault::ZeroWeight { resource_type, resource: resource.clone(), of });
    };
    let mut sums = Vec::new();
    let mut priorities: BTreeMap<u32, u64> = BTreeMap::new();
    for locality in &assignment.endpoints {
        let name = locality_name(locality);
        let weight = locality.load_balancing_weight.as_ref().map(|weight| weight.value);
        if weight == Some(0) {
            zero(name.clone());
        }
        *priorities.entry(locality.priority).or_default() += u64::from(weight.unwrap_or(1));
        let mut sum = 0;
        for endpoint in &locality.lb_endpoints {
            let weight = endpoint.load_balancing_weight.as_ref().map(|weight| weight.value);
            if weight == Some(0) {
                zero(format!("endpoint {} in {name}", endpoint_name(endpoint)));
            }
            sum += u64::from(weight.unwrap_or(1));
        }
        sums.push((format!("the endpoints in {name}"), sum));
    }
    sums.extend(priorities.into_iter().map(|(p, sum)| (format!("the localities of priority {p}"), sum)));
    faults.extend(sums.into_iter().filter(|(_, sum)| *sum > MAX_SUM).map(|(of, sum)| Fault::WeightSum {
        resource_type,
        resource: resource.clone(),
        of,
        sum,
    }));
    faults
}

/// Checks the weights of one route's clusters. A weight of 0 is allowed here, a sum of 0 is not.
pub(super) fn of_weighted_clusters(
    resource_type: ResourceType,
    resource: &str,
    weighted: &WeightedCluster,
) -> Option<Fault> {
    let of = weighted.clusters.iter().map(|cluster| cluster.name.as_str()).collect::<Vec<_>>().join(", ");
    let of = format!("the clusters {of}");
    let weights = weighted.clusters.iter().filter_map(|cluster| cluster.weight.as_ref());
    let sum = weights.map(|weight| u64::from(weight.value)).sum();
    let resource = resource.to_owned();
    match sum {
        0 => Some(Fault::ZeroWeight { resource_type, resource, of }),
        1..=MAX_SUM => None,
        _ => Some(Fault::WeightSum { resource_type, resource, of, sum }),
    }
}

fn locality_name(endpoints: &LocalityLbEndpoints) -> String {
    let locality = endpoints.locality.clone().unwrap_or_default();
    format!("locality {}/{}/{}", locality.region, locality.zone, locality.sub_zone)
}

fn endpoint_name(endpoint: &LbEndpoint) -> String {
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
