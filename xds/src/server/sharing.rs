//! Equal resources of different groups, and of successive states, are kept once.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use crate::resource_type::{PerType, ResourceType};
use crate::snapshot::{Resource, Snapshot, Table};
use crate::version::Version;

#[derive(Debug, Default)]
pub(super) struct Sharing {
    tables: HashMap<Version, Weak<Table>>,
    resources: HashMap<(ResourceType, Version), Vec<Weak<Resource>>>,
    /// Entries at the last sweep: the next one is due when there are twice as many.
    swept: usize,
}

impl Sharing {
    /// The same snapshot, of tables and resources that others have already where there are equal ones. Shared
    /// tables share their encoded responses too.
    pub(super) fn share(&mut self, snapshot: &Snapshot) -> Snapshot {
        let tables = PerType::from_fn(|resource_type| {
            let table = snapshot.table(resource_type);
            let shared = self.tables.get(&table.fingerprint()).and_then(Weak::upgrade);
            // What resources refer to depends on other tables, too.
            let is_same = |shared: &Arc<Table>| shared.iter().zip(table.iter()).all(|(a, b)| a.is_same(b));
            if let Some(shared) = shared.filter(is_same) {
                return shared;
            }
            let resources =
                table.iter().map(|resource| self.share_resource(resource_type, resource)).collect();
            let table = Arc::new(Table::new(resource_type, resources));
            self.tables.insert(table.fingerprint(), Arc::downgrade(&table));
            table
        });
        self.sweep();
        Snapshot::of_tables(tables)
    }

    fn share_resource(&mut self, resource_type: ResourceType, resource: &Arc<Resource>) -> Arc<Resource> {
        let equal = self.resources.entry((resource_type, resource.version)).or_default();
        equal.retain(|other| other.strong_count() > 0);
        let shared = equal.iter().filter_map(Weak::upgrade).find(|other| other.is_same(resource));
        shared.unwrap_or_else(|| {
            equal.push(Arc::downgrade(resource));
            resource.clone()
        })
    }

    fn sweep(&mut self) {
        if self.resources.len() + self.tables.len() < 2 * self.swept + 1024 {
            return;
        }
        self.tables.retain(|_, table| table.strong_count() > 0);
        self.resources.retain(|_, equal| {
            equal.retain(|resource| resource.strong_count() > 0);
            !equal.is_empty()
        });
        self.swept = self.resources.len() + self.tables.len();
    }
}
