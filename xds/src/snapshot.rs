//! Immutable states of all resources of a group of clients.

mod builder;
mod checks;
mod fault;
mod references;
mod weights;

#[cfg(test)]
mod tests;

pub use self::builder::SnapshotBuilder;
pub use self::fault::{Fault, InvalidSnapshot};

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use self::references::References;
use crate::encode;
use crate::resource_type::{PerType, ResourceType};
use crate::version::Version;

/// One resource, encoded.
#[derive(Clone, Debug)]
pub(crate) struct Resource {
    pub(crate) name: Arc<str>,
    pub(crate) version: Version,
    /// The entry of the `resources` field of a delta response, tag and length included.
    pub(crate) entry: Bytes,
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

/// The resources of one type.
#[derive(Debug)]
pub(crate) struct Table {
    resources: BTreeMap<Arc<str>, Arc<Resource>>,
    fingerprint: Version,
}

impl Table {
    fn new(resource_type: ResourceType, resources: BTreeMap<Arc<str>, Arc<Resource>>) -> Self {
        let versions = resources.iter().map(|(name, resource)| (&**name, resource.version));
        Self { fingerprint: encode::fingerprint(resource_type, versions), resources }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Arc<Resource>> {
        self.resources.get(name)
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        self.resources.contains_key(name)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.resources.values()
    }

    pub(crate) fn fingerprint(&self) -> Version {
        self.fingerprint
    }
}

/// Everything that the clients of a group are to have: valid as a whole, encoded, and never changed.
///
/// Clones share the same memory.
#[derive(Clone, Debug)]
pub struct Snapshot {
    tables: Arc<PerType<Table>>,
}

impl Snapshot {
    fn new(mut resources: PerType<BTreeMap<Arc<str>, Arc<Resource>>>) -> Self {
        let tables = PerType::from_fn(|resource_type| {
            Table::new(resource_type, std::mem::take(&mut resources[resource_type]))
        });
        Self { tables: Arc::new(tables) }
    }

    /// The number of resources of a type.
    pub fn len(&self, resource_type: ResourceType) -> usize {
        self.tables[resource_type].resources.len()
    }

    /// True when there is no resource of any type.
    pub fn is_empty(&self) -> bool {
        ResourceType::ALL.into_iter().all(|resource_type| self.len(resource_type) == 0)
    }

    /// The names of a type, sorted.
    pub fn names(&self, resource_type: ResourceType) -> impl Iterator<Item = &str> {
        self.tables[resource_type].resources.keys().map(|name| &**name)
    }

    /// The version of a resource; `None` if there is no such resource.
    pub fn version(&self, resource_type: ResourceType, name: &str) -> Option<Version> {
        self.tables[resource_type].get(name).map(|resource| resource.version)
    }

    /// A hash of the names and versions of a type: equal when the content is equal.
    pub fn fingerprint(&self, resource_type: ResourceType) -> Version {
        self.tables[resource_type].fingerprint
    }

    pub(crate) fn table(&self, resource_type: ResourceType) -> &Table {
        &self.tables[resource_type]
    }

    pub(crate) fn same_content(&self, other: &Self) -> bool {
        ResourceType::ALL.into_iter().all(|t| self.fingerprint(t) == other.fingerprint(t))
    }
}
