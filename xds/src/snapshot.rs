//! Immutable states of all resources of a group of clients.

pub(crate) mod batch;
mod builder;
mod checks;
mod fault;
mod references;
mod table;
mod weights;

#[cfg(test)]
mod tests;

pub use self::builder::SnapshotBuilder;
pub use self::fault::{Fault, InvalidSnapshot};
pub(crate) use self::table::Table;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use envoy_types::pb::envoy::service::runtime::v3::Runtime;
use envoy_types::pb::google::protobuf::Struct;
use prost::Name;

use self::references::References;
use crate::encode::Entry;
use crate::resource_type::{PerType, ResourceType};
use crate::version::Version;

/// One resource, encoded.
#[derive(Clone, Debug)]
pub(crate) struct Resource {
    pub(crate) name: Arc<str>,
    pub(crate) version: Version,
    pub(crate) entry: Entry,
    /// The client is to forget the resource by itself unless it is told again in time.
    pub(crate) ttl: Option<Duration>,
    /// Clusters that a listener or a route configuration sends something to, and the members of those that are
    /// aggregates.
    pub(crate) clusters: Vec<Arc<str>>,
    /// Route configurations that a listener asks for.
    pub(crate) route_configurations: Vec<Arc<str>>,
    /// The assignment that a cluster asks for.
    pub(crate) assignment: Option<Arc<str>>,
    /// What the resource itself names, which the check of the next snapshot needs again.
    own: Arc<References>,
}

impl Resource {
    /// A resource that refers to nothing.
    fn plain<M: Name>(name: &str, message: &M) -> Self {
        let (version, entry) = Entry::new(name, message);
        Self {
            name: name.into(),
            version,
            entry,
            ttl: None,
            clusters: Vec::new(),
            route_configurations: Vec::new(),
            assignment: None,
            own: Arc::default(),
        }
    }

    /// Secrets that the resource asks this server for.
    pub(crate) fn secrets(&self) -> impl Iterator<Item = &Arc<str>> {
        self.own.secrets.iter()
    }

    /// True when the other one is the same in every respect.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.name == other.name
            && self.version == other.version
            && self.ttl == other.ttl
            && self.clusters == other.clusters
            && self.route_configurations == other.route_configurations
            && self.assignment == other.assignment
    }
}

/// What stands for a resource that does not exist: a runtime layer without keys, an assignment without
/// endpoints. `None` for other types.
pub(crate) fn empty_resource(resource_type: ResourceType, name: &str) -> Option<Arc<Resource>> {
    let resource = match resource_type {
        ResourceType::Runtime => {
            Resource::plain(name, &Runtime { name: name.into(), layer: Some(Struct::default()) })
        }
        ResourceType::ClusterLoadAssignment => {
            let cluster_name = name.into();
            Resource::plain(name, &ClusterLoadAssignment { cluster_name, ..Default::default() })
        }
        _ => return None,
    };
    Some(Arc::new(resource))
}

/// Everything that the clients of a group are to have: valid as a whole, encoded, and never changed.
///
/// Clones share the same memory.
#[derive(Clone, Debug)]
pub struct Snapshot {
    tables: Arc<PerType<Arc<Table>>>,
}

impl Snapshot {
    fn new(mut resources: PerType<BTreeMap<Arc<str>, Arc<Resource>>>) -> Self {
        Self::of_tables(PerType::from_fn(|resource_type| {
            let resources = std::mem::take(&mut resources[resource_type]).into_values().collect();
            Arc::new(Table::new(resource_type, resources))
        }))
    }

    pub(crate) fn of_tables(tables: PerType<Arc<Table>>) -> Self {
        Self { tables: Arc::new(tables) }
    }

    /// The number of resources of a type.
    pub fn len(&self, resource_type: ResourceType) -> usize {
        self.tables[resource_type].len()
    }

    /// True when there is no resource of any type.
    pub fn is_empty(&self) -> bool {
        ResourceType::ALL.into_iter().all(|resource_type| self.len(resource_type) == 0)
    }

    /// The names of a type, sorted.
    pub fn names(&self, resource_type: ResourceType) -> impl Iterator<Item = &str> {
        self.tables[resource_type].iter().map(|resource| &*resource.name)
    }

    /// The version of a resource; `None` if there is no such resource.
    pub fn version(&self, resource_type: ResourceType, name: &str) -> Option<Version> {
        self.tables[resource_type].get(name).map(|resource| resource.version)
    }

    /// A hash of the names and versions of a type: equal when the content is equal.
    pub fn fingerprint(&self, resource_type: ResourceType) -> Version {
        self.tables[resource_type].fingerprint()
    }

    pub(crate) fn table(&self, resource_type: ResourceType) -> &Arc<Table> {
        &self.tables[resource_type]
    }

    /// True when clients are to forget some resources by themselves.
    pub(crate) fn has_ttl(&self) -> bool {
        self.shortest_ttl().is_some()
    }

    /// After what time clients forget the first of those resources.
    pub(crate) fn shortest_ttl(&self) -> Option<Duration> {
        // Only runtime layers can have one.
        self.table(ResourceType::Runtime).with_ttl().map(|(_, ttl)| ttl).min()
    }
}
