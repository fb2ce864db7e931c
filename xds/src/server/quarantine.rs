//! What a group of clients refuses is taken back for all of them.
//!
//! A client that refuses a resource keeps what it had before. One that starts has nothing to keep, and one
//! after another would come up without. So when many clients of a group refused a resource, each by itself,
//! the group goes back to the last version that at least half of them had, and keeps the rest of what is
//! published. Where that would leave a reference dangling, the whole of the last proven state is served, but
//! with the newest endpoints. What half of the clients have taken is never taken from them. A
//! state without the resource, or with another version of it, ends the quarantine.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::SystemTime;

use crate::clients::{ClientId, Service};
use crate::resource_type::{PerType, ResourceType};
use crate::snapshot::{Resource, Snapshot, Table};
use crate::version::Version;

/// Clients that have to refuse a resource at least: a single one holds on to what it had by itself.
const MIN_CLIENTS: usize = 2;

/// A version of a resource that clients refuse.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Poison {
    pub(crate) resource_type: ResourceType,
    pub(crate) name: Arc<str>,
    pub(crate) version: Version,
}

impl Poison {
    fn is_in(&self, snapshot: &Snapshot) -> bool {
        snapshot.version(self.resource_type, &self.name) == Some(self.version)
    }
}

#[derive(Debug, Default)]
pub(super) struct Quarantine {
    /// The newest state that at least half of the clients had.
    good: Option<Snapshot>,
    refused_by: HashMap<Poison, HashSet<ClientId>>,
    quarantined: BTreeMap<Poison, SystemTime>,
}

impl Quarantine {
    pub(super) fn note_good(&mut self, snapshot: &Snapshot) {
        self.good = Some(snapshot.clone());
    }

    /// True if something is to go into quarantine. `members` are the open streams of the group.
    pub(super) fn note_refused(
        &mut self,
        client: ClientId,
        refused: &[Poison],
        members: &HashMap<ClientId, Service>,
        share: f64,
        wanted: &Snapshot,
    ) -> bool {
        let mut changed = false;
        for poison in refused.iter().filter(|poison| poison.is_in(wanted)) {
            let clients = self.refused_by.entry(poison.clone()).or_default();
            clients.retain(|client| members.contains_key(client));
            clients.insert(client);
            let has_type = |service: &&Service| service.only.is_none_or(|t| t == poison.resource_type);
            let able = members.values().filter(has_type).count();
            let enough = ((able as f64 * share).ceil() as usize).max(MIN_CLIENTS);
            // What half of the clients took is not taken from them.
            let is_new = self.good.as_ref().is_some_and(|good| !poison.is_in(good));
            if clients.len() >= enough && is_new && !self.quarantined.contains_key(poison) {
                self.quarantined.insert(poison.clone(), SystemTime::now());
                changed = true;
            }
        }
        changed
    }

    /// What the group is sent instead of a state that holds refused resources.
    pub(super) fn apply(&mut self, wanted: &Snapshot) -> Snapshot {
        self.refused_by.retain(|poison, _| poison.is_in(wanted));
        self.quarantined.retain(|poison, _| poison.is_in(wanted));
        let Some(good) = self.good.as_ref().filter(|_| !self.quarantined.is_empty()) else {
            return wanted.clone();
        };
        let substituted = self.substituted(wanted, good);
        if lacks_nothing(&substituted, wanted) {
            substituted
        } else {
            with_newest_endpoints(good, &substituted)
        }
    }

    fn substituted(&self, wanted: &Snapshot, good: &Snapshot) -> Snapshot {
        Snapshot::of_tables(PerType::from_fn(|resource_type| {
            let is_poison = |resource: &Arc<Resource>| {
                self.quarantined.keys().any(|poison| {
                    poison.resource_type == resource_type
                        && poison.name == resource.name
                        && poison.version == resource.version
                })
            };
            let table = wanted.table(resource_type);
            if !table.iter().any(is_poison) {
                return table.clone();
            }
            let resources = table.iter().filter_map(|resource| {
                if is_poison(resource) {
                    good.table(resource_type).get(&resource.name).filter(|old| !is_poison(old)).cloned()
                } else {
                    Some(resource.clone())
                }
            });
            Arc::new(Table::new(resource_type, resources.collect()))
        }))
    }

    pub(super) fn quarantined(&self) -> Vec<(Poison, SystemTime)> {
        self.quarantined.iter().map(|(poison, since)| (poison.clone(), *since)).collect()
    }
}

/// A state with the endpoints and runtime layers of a newer one: what is held back is the structure, not where
/// requests go.
fn with_newest_endpoints(good: &Snapshot, newest: &Snapshot) -> Snapshot {
    Snapshot::of_tables(PerType::from_fn(|resource_type| {
        let table = good.table(resource_type);
        match resource_type {
            ResourceType::Runtime => newest.table(resource_type).clone(),
            ResourceType::ClusterLoadAssignment => {
                let newest = newest.table(resource_type);
                let resources = table.iter().map(|old| newest.get(&old.name).unwrap_or(old).clone());
                Arc::new(Table::new(resource_type, resources.collect()))
            }
            _ => table.clone(),
        }
    }))
}

/// True when every name in the snapshot can be followed, but for those that `wanted` does not follow either,
/// since clients have them from elsewhere.
fn lacks_nothing(snapshot: &Snapshot, wanted: &Snapshot) -> bool {
    let lacks = |s: &Snapshot, (t, name): (ResourceType, &Arc<str>)| !s.table(t).contains(name);
    let is_known = |name: (ResourceType, &Arc<str>)| !lacks(snapshot, name) || lacks(wanted, name);
    ResourceType::ALL.into_iter().flat_map(|t| snapshot.table(t).iter()).all(|resource| {
        let clusters = resource.clusters.iter().map(|name| (ResourceType::Cluster, name));
        let routes = resource.route_configurations.iter();
        let routes = routes.map(|name| (ResourceType::RouteConfiguration, name));
        let endpoints = resource.assignment.iter().map(|name| (ResourceType::ClusterLoadAssignment, name));
        let secrets = resource.secrets().map(|name| (ResourceType::Secret, name));
        clusters.chain(routes).chain(endpoints).chain(secrets).all(is_known)
    })
}
