//! What a group of clients refuses is taken back for all of them.
//!
//! A client that refuses a resource keeps what it had before. One that starts has nothing to keep, and one
//! after another would come up without. So when many clients of a group refused a resource, each by itself,
//! the group goes back to the last version that at least half of them had, and keeps the rest of what is
//! published. Where that would leave a reference dangling, the whole of the last proven state is served. A
//! state without the resource, or with another version of it, ends the quarantine.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::SystemTime;

use crate::clients::ClientId;
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

    /// True if something is to go into quarantine.
    pub(super) fn note_refused(
        &mut self,
        client: ClientId,
        refused: &[Poison],
        members: usize,
        share: f64,
        wanted: &Snapshot,
    ) -> bool {
        let enough = ((members as f64 * share).ceil() as usize).max(MIN_CLIENTS);
        let mut changed = false;
        for poison in refused.iter().filter(|poison| poison.is_in(wanted)) {
            let clients = self.refused_by.entry(poison.clone()).or_default();
            clients.insert(client);
            if clients.len() >= enough && self.good.is_some() && !self.quarantined.contains_key(poison) {
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
        if lacks_nothing(&substituted, wanted) { substituted } else { good.clone() }
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

/// True when every name in the snapshot can be followed, but for those that `wanted` does not follow either,
/// since clients have them from elsewhere.
fn lacks_nothing(snapshot: &Snapshot, wanted: &Snapshot) -> bool {
    let clusters = |s: &Snapshot, name: &str| s.table(ResourceType::Cluster).contains(name);
    let known: HashSet<&str> = ResourceType::ALL
        .into_iter()
        .flat_map(|t| wanted.table(t).iter())
        .flat_map(|resource| resource.clusters.iter().map(|name| &**name))
        .filter(|name| !clusters(wanted, name))
        .collect();
    let resources = ResourceType::ALL.into_iter().flat_map(|t| snapshot.table(t).iter());
    let mut resources = resources;
    resources.all(|resource| {
        resource.clusters.iter().all(|name| clusters(snapshot, name) || known.contains(&**name))
            && resource
                .route_configurations
                .iter()
                .all(|name| snapshot.table(ResourceType::RouteConfiguration).contains(name))
            && resource
                .assignment
                .iter()
                .all(|name| snapshot.table(ResourceType::ClusterLoadAssignment).contains(name))
    })
}
