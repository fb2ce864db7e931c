//! The form of one assignment, apart from its weights.

use std::collections::{BTreeSet, HashMap};

use envoy_types::pb::envoy::config::core::v3::address::Address;
use envoy_types::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use envoy_types::pb::envoy::config::endpoint::v3::locality_lb_endpoints::LbConfig;
use envoy_types::pb::envoy::config::endpoint::v3::{ClusterLoadAssignment, LbEndpoint, LocalityLbEndpoints};

use crate::resource_type::ResourceType;
use crate::snapshot::fault::Fault;
use crate::snapshot::references::Source;
use crate::snapshot::weights::{endpoint_name, locality_name};

/// The largest priority that Envoy takes.
const MAX_PRIORITY: u32 = 128;

const RESOURCE_TYPE: ResourceType = ResourceType::ClusterLoadAssignment;

pub(in crate::snapshot) fn is_empty(assignment: &ClusterLoadAssignment) -> bool {
    assignment
        .endpoints
        .iter()
        .all(|locality| locality.lb_endpoints.is_empty() && locality.lb_config.is_none())
}

pub(in crate::snapshot) fn check(assignment: &ClusterLoadAssignment) -> Vec<Fault> {
    let mut faults = duplicates(assignment);
    faults.extend(priorities(assignment));
    let resource = &assignment.cluster_name;
    let factor = assignment.policy.as_ref().and_then(|policy| policy.overprovisioning_factor.as_ref());
    if factor.is_some_and(|factor| factor.value == 0) {
        faults.push(Fault::OutOfRange {
            resource_type: RESOURCE_TYPE,
            resource: resource.clone(),
            field: "policy.overprovisioning_factor",
            value: "0".to_owned(),
            allowed: "at least 1",
        });
    }
    let leds = assignment.endpoints.iter().filter_map(|locality| match &locality.lb_config {
        Some(LbConfig::LedsClusterLocalityConfig(leds)) => Some(leds),
        _ => None,
    });
    for leds in leds.filter(|leds| Source::of(leds.leds_config.as_ref()) == Source::ThisServer) {
        faults.push(Fault::NotServed {
            resource_type: RESOURCE_TYPE,
            resource: resource.clone(),
            what: format!("endpoints of a locality (LEDS) {:?}", leds.leds_collection_name),
        });
    }
    faults
}

/// Proxies keep the first of two endpoints with one address, whichever localities and priorities they are
/// in, and say nothing.
fn duplicates(assignment: &ClusterLoadAssignment) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut places: HashMap<&Address, &LocalityLbEndpoints> = HashMap::new();
    for locality in &assignment.endpoints {
        for endpoint in &locality.lb_endpoints {
            let Some(address) = address(endpoint) else { continue };
            let Some(first) = places.insert(address, locality) else { continue };
            faults.push(Fault::DuplicateEndpoint {
                assignment: assignment.cluster_name.clone(),
                endpoint: endpoint_name(endpoint),
                first: place(first),
                again: place(locality),
            });
        }
    }
    faults
}

fn priorities(assignment: &ClusterLoadAssignment) -> Vec<Fault> {
    let used: BTreeSet<u32> = assignment.endpoints.iter().map(|locality| locality.priority).collect();
    let mut faults = Vec::new();
    let too_large = used.range(MAX_PRIORITY + 1..).map(|priority| Fault::OutOfRange {
        resource_type: RESOURCE_TYPE,
        resource: assignment.cluster_name.clone(),
        field: "priority",
        value: priority.to_string(),
        allowed: "0 to 128",
    });
    faults.extend(too_large);
    let gap = (0..).zip(&used).find(|(expected, priority)| expected != *priority);
    if let Some((missing, used)) = gap {
        faults.push(Fault::PriorityGap { assignment: assignment.cluster_name.clone(), missing, used: *used });
    }
    faults
}

fn address(endpoint: &LbEndpoint) -> Option<&Address> {
    let Some(HostIdentifier::Endpoint(endpoint)) = &endpoint.host_identifier else { return None };
    endpoint.address.as_ref()?.address.as_ref()
}

fn place(locality: &LocalityLbEndpoints) -> String {
    format!("{} of priority {}", locality_name(locality), locality.priority)
}
