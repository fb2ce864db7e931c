//! Collects resources, checks them as a whole and encodes them.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use envoy_types::pb::envoy::config::listener::v3::Listener;
use envoy_types::pb::envoy::config::route::v3::RouteConfiguration;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::Secret;
use envoy_types::pb::envoy::service::runtime::v3::Runtime;
use prost::Name;

use super::checks::{self, Allowed, Resources};
use super::fault::{Fault, InvalidSnapshot};
use super::references::Findings;
use super::{Resource, Snapshot};
use crate::encode::Entry;
use crate::resource_type::{PerType, ResourceType};

/// Shorter ones run out between heartbeats; whoever wants a longer one wants none.
const ALLOWED_TTL: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(86_400);

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
    kept: Vec<(ResourceType, String)>,
    base: Option<Snapshot>,
    allowed: Allowed,
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

    /// Adds a runtime layer that clients forget by themselves when they hear nothing of it for the TTL.
    ///
    /// Clients are told of it six times within a TTL, as long as the snapshot is
    /// [confirmed](crate::XdsServer::confirm), or published anew, within each half of it: the heartbeat says that
    /// somebody stands by the layer, not that a process lives. Clients forget it one and a half TTLs after the last
    /// confirmation at the latest, and while it is missing no client is told of runtime layers. 6 s are enough for a client to go to another server, which goes on with the
    /// heartbeats.
    pub fn runtime_with_ttl(&mut self, runtime: Runtime, ttl: Duration) -> &mut Self {
        self.runtimes.push((runtime, Some(ttl)));
        self
    }

    /// Says that clients have a cluster of this name from elsewhere, for example from their bootstrap
    /// configuration, so that resources may name it.
    pub fn external_cluster(&mut self, name: impl Into<String>) -> &mut Self {
        self.allowed.external_clusters.insert(name.into());
        self
    }

    /// Says that clients get a secret of this name from elsewhere, although resources ask this server for it.
    pub fn external_secret(&mut self, name: impl Into<String>) -> &mut Self {
        self.allowed.external_secrets.insert(name.into());
        self
    }

    /// Says that the assignment of this name may be without endpoints.
    pub fn may_be_empty(&mut self, assignment: impl Into<String>) -> &mut Self {
        self.allowed.empty_assignments.insert(assignment.into());
        self
    }

    /// Says that localities may be without a weight beside others that have one. Where localities are weighted these get
    /// nothing as long as an endpoint of the others can be used, and everything when none can.
    pub fn allow_spare_localities(&mut self) -> &mut Self {
        self.allowed.spare_localities = true;
        self
    }

    /// Says that every assignment may be without endpoints.
    pub fn allow_empty_assignments(&mut self) -> &mut Self {
        self.allowed.all_empty_assignments = true;
        self
    }

    /// Names the snapshot before this one, of which most is as it was. A resource with the same content is
    /// taken from there, together with what was found out about it, and is not looked through again.
    ///
    /// The result is the same as without.
    pub fn based_on(&mut self, snapshot: &Snapshot) -> &mut Self {
        self.base = Some(snapshot.clone());
        self
    }

    /// Takes over a resource of the snapshot given to [`based_on`](Self::based_on), without so much as
    /// encoding it.
    pub fn keep(&mut self, resource_type: ResourceType, name: impl Into<String>) -> &mut Self {
        self.kept.push((resource_type, name.into()));
        self
    }

    /// Checks all resources and encodes them.
    ///
    /// # Errors
    ///
    /// Every [`Fault`] of the resources, at once.
    pub fn build(self) -> Result<Snapshot, InvalidSnapshot> {
        let mut collected = Collected { base: self.base, resources: PerType::default(), faults: Vec::new() };
        for (resource_type, name) in self.kept {
            collected.keep(resource_type, name);
        }
        for cluster in &self.clusters {
            collected.add(&cluster.name, cluster, || Findings::of_cluster(cluster));
        }
        for assignment in &self.assignments {
            collected.add(&assignment.cluster_name, assignment, || Findings::of_assignment(assignment));
        }
        for listener in &self.listeners {
            collected.add(&listener.name, listener, || {
                Findings::of_message(ResourceType::Listener, &listener.name, listener)
            });
        }
        for config in &self.route_configurations {
            collected.add(&config.name, config, || {
                Findings::of_message(ResourceType::RouteConfiguration, &config.name, config)
            });
        }
        for secret in &self.secrets {
            collected.add(&secret.name, secret, Findings::default);
        }
        for (runtime, ttl) in &self.runtimes {
            if let Some(ttl) = ttl.filter(|ttl| !ALLOWED_TTL.contains(ttl)) {
                collected.faults.push(Fault::OutOfRange {
                    resource_type: ResourceType::Runtime,
                    resource: runtime.name.clone(),
                    field: "ttl",
                    value: format!("{ttl:?}"),
                    allowed: "100 ms to a day",
                });
            }
            collected.add_with_ttl(&runtime.name, runtime, *ttl, || Findings::of_runtime(runtime));
        }

        let Collected { mut resources, mut faults, .. } = collected;
        faults.extend(checks::check(&resources, &self.allowed));
        if !faults.is_empty() {
            faults.sort();
            faults.dedup();
            return Err(InvalidSnapshot { faults });
        }
        add_members_of_aggregates(&mut resources);
        take_in_what_is_asked_for_by_name(&mut resources);
        Ok(Snapshot::new(resources))
    }
}

struct Collected {
    base: Option<Snapshot>,
    resources: Resources,
    faults: Vec<Fault>,
}

impl Collected {
    fn in_base(&self, resource_type: ResourceType, name: &str) -> Option<&Arc<Resource>> {
        self.base.as_ref().and_then(|base| base.table(resource_type).get(name))
    }

    fn keep(&mut self, resource_type: ResourceType, name: String) {
        match self.in_base(resource_type, &name).cloned() {
            Some(resource) => self.insert(resource_type, resource),
            None => self.faults.push(Fault::NothingToKeep { resource_type, name }),
        }
    }

    fn add<M: Name>(&mut self, name: &str, message: &M, find: impl FnOnce() -> Findings) {
        self.add_with_ttl(name, message, None, find);
    }

    fn add_with_ttl<M: Name>(
        &mut self,
        name: &str,
        message: &M,
        ttl: Option<Duration>,
        find: impl FnOnce() -> Findings,
    ) {
        let Some(resource_type) = ResourceType::from_type_url(&M::type_url()) else { return };
        let (version, entry) = Entry::new(name, message);
        let version = ttl.map_or(version, |ttl| version.with_ttl(ttl));
        let is_same = |same: &&Arc<Resource>| same.version == version;
        if let Some(same) = self.in_base(resource_type, name).filter(is_same).cloned() {
            self.insert(resource_type, same);
            return;
        }
        let Findings { references, faults } = find();
        self.faults.extend(faults);
        if name.is_empty() {
            self.faults.push(Fault::EmptyName { resource_type });
            return;
        }
        let resource = Resource {
            name: name.into(),
            version,
            entry,
            ttl,
            clusters: references.clusters.iter().cloned().collect(),
            route_configurations: references.route_configurations.iter().cloned().collect(),
            assignment: references.assignment.clone(),
            own: Arc::new(references),
        };
        self.insert(resource_type, Arc::new(resource));
    }

    fn insert(&mut self, resource_type: ResourceType, resource: Arc<Resource>) {
        if let Some(other) = self.resources[resource_type].insert(resource.name.clone(), resource) {
            self.faults.push(Fault::DuplicateName { resource_type, name: other.name.to_string() });
        }
    }
}

/// A route to an aggregate cluster needs its members too, and their members.
fn add_members_of_aggregates(resources: &mut Resources) {
    let members: BTreeMap<Arc<str>, Arc<Resource>> = resources[ResourceType::Cluster]
        .iter()
        .filter(|(_, cluster)| !cluster.own.clusters.is_empty())
        .map(|(name, cluster)| (name.clone(), cluster.clone()))
        .collect();
    for resource_type in [ResourceType::Listener, ResourceType::RouteConfiguration] {
        for resource in resources[resource_type].values_mut() {
            let mut all: BTreeSet<&Arc<str>> = BTreeSet::new();
            let mut open: Vec<&Arc<str>> = resource.own.clusters.iter().collect();
            while let Some(name) = open.pop() {
                if all.insert(name) {
                    open.extend(members.get(name).into_iter().flat_map(|cluster| &cluster.own.clusters));
                }
            }
            if !all.iter().copied().eq(&resource.clusters) {
                let clusters = all.into_iter().cloned().collect();
                *resource = Arc::new(Resource { clusters, ..Resource::clone(resource) });
            }
        }
    }
}

/// A resource that a client asks a named server for is asked for here if it is here.
fn take_in_what_is_asked_for_by_name(resources: &mut Resources) {
    let names = |resource_type| -> BTreeSet<Arc<str>> { resources[resource_type].keys().cloned().collect() };
    let endpoints = names(ResourceType::ClusterLoadAssignment);
    let routes = names(ResourceType::RouteConfiguration);
    for cluster in resources[ResourceType::Cluster].values_mut() {
        let own = &cluster.own;
        let by_name = own.assignment_by_name.clone().filter(|name| endpoints.contains(name));
        let assignment = own.assignment.clone().or(by_name);
        if cluster.assignment != assignment {
            *cluster = Arc::new(Resource { assignment, ..Resource::clone(cluster) });
        }
    }
    for listener in resources[ResourceType::Listener].values_mut() {
        let own = &listener.own;
        let by_name = own.routes_by_name.iter().filter(|name| routes.contains(*name));
        let all: BTreeSet<&Arc<str>> = own.route_configurations.iter().chain(by_name).collect();
        if !all.iter().copied().eq(&listener.route_configurations) {
            let route_configurations = all.into_iter().cloned().collect();
            *listener = Arc::new(Resource { route_configurations, ..Resource::clone(listener) });
        }
    }
}
