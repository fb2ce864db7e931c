//! Collects resources, checks them as a whole and encodes them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use envoy_types::pb::envoy::config::listener::v3::Listener;
use envoy_types::pb::envoy::config::route::v3::RouteConfiguration;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::Secret;
use envoy_types::pb::envoy::service::runtime::v3::Runtime;
use prost::Name;

use super::fault::{Fault, InvalidSnapshot};
use super::references::References;
use super::{Resource, Snapshot, weights};
use crate::encode::Entry;
use crate::resource_type::{PerType, ResourceType};

/// Collects the resources of a [`Snapshot`].
///
/// # Examples
///
/// ```
/// use clairvoy_xds::{ResourceType, SnapshotBuilder};
/// use envoy_types::pb::envoy::config::cluster::v3::Cluster;
///
/// let mut builder = SnapshotBuilder::new();
/// builder.cluster(Cluster { name: "backend".into(), ..Default::default() });
/// let snapshot = builder.build()?;
/// assert_eq!(snapshot.len(ResourceType::Cluster), 1);
/// # Ok::<(), clairvoy_xds::InvalidSnapshot>(())
/// ```
#[derive(Debug, Default)]
pub struct SnapshotBuilder {
    clusters: Vec<Cluster>,
    assignments: Vec<ClusterLoadAssignment>,
    listeners: Vec<Listener>,
    route_configurations: Vec<RouteConfiguration>,
    secrets: Vec<Secret>,
    runtimes: Vec<(Runtime, Option<Duration>)>,
    external_clusters: BTreeSet<String>,
}

impl SnapshotBuilder {
    /// Returns a builder without resources.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a cluster.
    pub fn cluster(&mut self, cluster: Cluster) -> &mut Self {
        self.clusters.push(cluster);
        self
    }

    /// Adds the endpoints of a cluster, under `cluster_name`: the cluster's name, or the `service_name` by
    /// which it asks for endpoints.
    pub fn assignment(&mut self, assignment: ClusterLoadAssignment) -> &mut Self {
        self.assignments.push(assignment);
        self
    }

    /// Adds a listener.
    pub fn listener(&mut self, listener: Listener) -> &mut Self {
        self.listeners.push(listener);
        self
    }

    /// Adds a route configuration.
    pub fn route_configuration(&mut self, config: RouteConfiguration) -> &mut Self {
        self.route_configurations.push(config);
        self
    }

    /// Adds a secret.
    pub fn secret(&mut self, secret: Secret) -> &mut Self {
        self.secrets.push(secret);
        self
    }

    /// Adds a runtime layer.
    pub fn runtime(&mut self, runtime: Runtime) -> &mut Self {
        self.runtimes.push((runtime, None));
        self
    }

    /// Adds a runtime layer that clients drop by themselves when it was not confirmed for `ttl`: by a heartbeat,
    /// which they get as long as the snapshot is published again within each `ttl`.
    pub fn runtime_with_ttl(&mut self, runtime: Runtime, ttl: Duration) -> &mut Self {
        self.runtimes.push((runtime, Some(ttl)));
        self
    }

    /// Says that clients have a cluster of this name from elsewhere, for example from their bootstrap
    /// configuration, so that routes may name it.
    pub fn external_cluster(&mut self, name: impl Into<String>) -> &mut Self {
        self.external_clusters.insert(name.into());
        self
    }

    /// Checks all resources and encodes them.
    ///
    /// # Errors
    ///
    /// Every [`Fault`] of the resources, at once.
    pub fn build(self) -> Result<Snapshot, InvalidSnapshot> {
        let mut collected = Collected { resources: PerType::default(), faults: Vec::new() };
        for cluster in &self.clusters {
            collected.add(&cluster.name, cluster, References::of_cluster(cluster));
        }
        for assignment in &self.assignments {
            let faults = weights::of_assignment(assignment);
            let references = References { faults, ..References::default() };
            collected.add(&assignment.cluster_name, assignment, references);
        }
        for listener in &self.listeners {
            collected.add(&listener.name, listener, References::of_listener(listener));
        }
        for config in &self.route_configurations {
            collected.add(&config.name, config, References::of_route_configuration(config));
        }
        for secret in &self.secrets {
            collected.add(&secret.name, secret, References::default());
        }
        for (runtime, ttl) in &self.runtimes {
            collected.add(&runtime.name, runtime, References::default());
            let resource = collected.resources[ResourceType::Runtime].get_mut(runtime.name.as_str());
            if let (Some(resource), Some(ttl)) = (resource, ttl) {
                resource.limit_life(*ttl);
            }
        }
        collected.check_references(&self.external_clusters);

        let Collected { mut resources, mut faults } = collected;
        if !faults.is_empty() {
            faults.sort();
            faults.dedup();
            return Err(InvalidSnapshot { faults });
        }
        add_members_of_aggregates(&mut resources);
        Ok(Snapshot::new(PerType::from_fn(|t| {
            let of_type = std::mem::take(&mut resources[t]).into_iter();
            of_type.map(|(name, resource)| (name, Arc::new(resource))).collect()
        })))
    }
}

struct Collected {
    resources: PerType<BTreeMap<Arc<str>, Resource>>,
    faults: Vec<Fault>,
}

impl Collected {
    fn add<M: Name>(&mut self, name: &str, message: &M, references: References) {
        let Some(resource_type) = ResourceType::from_type_url(&M::type_url()) else { return };
        self.faults.extend(references.faults);
        if name.is_empty() {
            self.faults.push(Fault::EmptyName { resource_type });
            return;
        }
        let (version, entry) = Entry::new(name, message);
        let name: Arc<str> = name.into();
        let resource = Resource {
            name: name.clone(),
            version,
            entry,
            ttl: None,
            clusters: references.clusters.iter().map(|name| name.as_str().into()).collect(),
            route_configurations: references
                .route_configurations
                .iter()
                .map(|name| name.as_str().into())
                .collect(),
            assignment: references.assignment.map(Into::into),
        };
        if self.resources[resource_type].insert(name.clone(), resource).is_some() {
            self.faults.push(Fault::DuplicateName { resource_type, name: name.to_string() });
        }
    }

    fn check_references(&mut self, external_clusters: &BTreeSet<String>) {
        let clusters = &self.resources[ResourceType::Cluster];
        let assignments = &self.resources[ResourceType::ClusterLoadAssignment];
        let routes = &self.resources[ResourceType::RouteConfiguration];
        let mut unused: BTreeSet<&str> = assignments.keys().map(|name| &**name).collect();

        for (resource_type, of_type) in self.resources.iter() {
            for resource in of_type.values() {
                let unknown = resource
                    .clusters
                    .iter()
                    .filter(|name| !clusters.contains_key(*name) && !external_clusters.contains(&***name));
                self.faults.extend(unknown.map(|cluster| Fault::UnknownCluster {
                    resource_type,
                    resource: resource.name.to_string(),
                    cluster: cluster.to_string(),
                }));
                let dangling =
                    resource.route_configurations.iter().filter(|name| !routes.contains_key(*name));
                self.faults.extend(dangling.map(|name| Fault::UnknownRouteConfiguration {
                    listener: resource.name.to_string(),
                    route_configuration: name.to_string(),
                }));
                let Some(assignment) = &resource.assignment else { continue };
                unused.remove(&**assignment);
                if !assignments.contains_key(assignment) {
                    self.faults.push(Fault::MissingAssignment {
                        cluster: resource.name.to_string(),
                        assignment: assignment.to_string(),
                    });
                }
            }
        }
        self.faults
            .extend(unused.into_iter().map(|name| Fault::UnusedAssignment { assignment: name.to_owned() }));
    }
}

/// A route to an aggregate cluster needs its members too, and their members.
fn add_members_of_aggregates(resources: &mut PerType<BTreeMap<Arc<str>, Resource>>) {
    let members: BTreeMap<Arc<str>, Vec<Arc<str>>> = resources[ResourceType::Cluster]
        .values()
        .filter(|cluster| !cluster.clusters.is_empty())
        .map(|cluster| (cluster.name.clone(), cluster.clusters.clone()))
        .collect();
    for resource_type in [ResourceType::Listener, ResourceType::RouteConfiguration] {
        for resource in resources[resource_type].values_mut() {
            let mut all: BTreeSet<Arc<str>> = BTreeSet::new();
            let mut open = std::mem::take(&mut resource.clusters);
            while let Some(name) = open.pop() {
                if all.insert(name.clone()) {
                    open.extend(members.get(&name).into_iter().flatten().cloned());
                }
            }
            resource.clusters = all.into_iter().collect();
        }
    }
}
