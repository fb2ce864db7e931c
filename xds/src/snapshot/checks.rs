//! Checks of a snapshot as a whole: whether what its resources name is there.

pub(super) mod assignment;
pub(super) mod messages;
pub(super) mod runtime;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Resource;
use super::fault::Fault;
use crate::resource_type::{PerType, ResourceType};

pub(super) type Resources = PerType<BTreeMap<Arc<str>, Arc<Resource>>>;

/// What may be missing from a snapshot.
#[derive(Debug, Default)]
pub(super) struct Allowed {
    pub(super) external_clusters: BTreeSet<String>,
    pub(super) external_secrets: BTreeSet<String>,
    /// Assignments that may have no endpoints.
    pub(super) empty_assignments: BTreeSet<String>,
    pub(super) all_empty_assignments: bool,
    /// Localities may have no weight beside others that have one.
    pub(super) spare_localities: bool,
}

/// Finds references to what is not there, assignments that nobody or nothing is behind, and weights that do
/// not go together.
pub(super) fn check(resources: &Resources, allowed: &Allowed) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (resource_type, of_type) in resources.iter() {
        for resource in of_type.values() {
            check_names(resource_type, resource, resources, allowed, &mut faults);
        }
    }
    check_assignments(resources, allowed, &mut faults);
    faults.extend(runtime::check(resources));
    faults
}

fn check_names(
    resource_type: ResourceType,
    resource: &Resource,
    resources: &Resources,
    allowed: &Allowed,
    faults: &mut Vec<Fault>,
) {
    let missing = |resource_type: ResourceType, name: &Arc<str>, elsewhere: &BTreeSet<String>| {
        !resources[resource_type].contains_key(name) && !elsewhere.contains(&**name)
    };
    let own = &resource.own;
    for cluster in &own.clusters {
        if missing(ResourceType::Cluster, cluster, &allowed.external_clusters) {
            faults.push(Fault::UnknownCluster {
                resource_type,
                resource: resource.name.to_string(),
                cluster: cluster.to_string(),
            });
        }
    }
    for secret in &own.secrets {
        if missing(ResourceType::Secret, secret, &allowed.external_secrets) {
            faults.push(Fault::UnknownSecret {
                resource_type,
                resource: resource.name.to_string(),
                secret: secret.to_string(),
            });
        }
    }
    for routes in &own.route_configurations {
        if missing(ResourceType::RouteConfiguration, routes, &BTreeSet::new()) {
            faults.push(Fault::UnknownRouteConfiguration {
                listener: resource.name.to_string(),
                route_configuration: routes.to_string(),
            });
        }
    }
}

fn check_assignments(resources: &Resources, allowed: &Allowed, faults: &mut Vec<Fault>) {
    let assignments = &resources[ResourceType::ClusterLoadAssignment];
    let mut unused: BTreeSet<&str> = assignments.keys().map(|name| &**name).collect();
    for cluster in resources[ResourceType::Cluster].values() {
        if let Some(name) = &cluster.own.assignment_by_name {
            unused.remove(&**name);
        }
        let Some(name) = &cluster.own.assignment else { continue };
        unused.remove(&**name);
        let Some(assignment) = assignments.get(name) else {
            faults.push(Fault::MissingAssignment {
                cluster: cluster.name.to_string(),
                assignment: name.to_string(),
            });
            continue;
        };
        if cluster.own.locality_weighted && !allowed.spare_localities {
            let unweighted = assignment.own.unweighted_localities.iter();
            faults.extend(unweighted.map(|locality| Fault::MissingWeight {
                resource_type: ResourceType::ClusterLoadAssignment,
                resource: name.to_string(),
                of: locality.clone(),
            }));
        }
    }
    // Without any cluster, clients have their clusters from elsewhere and take only endpoints.
    if !resources[ResourceType::Cluster].is_empty() {
        faults.extend(unused.into_iter().map(|name| Fault::UnusedAssignment { assignment: name.to_owned() }));
    }
    if !allowed.all_empty_assignments {
        let empty = assignments.values().filter(|assignment| assignment.own.no_endpoints);
        let forbidden = empty.filter(|assignment| !allowed.empty_assignments.contains(&*assignment.name));
        faults.extend(
            forbidden.map(|assignment| Fault::EmptyAssignment { assignment: assignment.name.to_string() }),
        );
    }
}
