//! The resources of one type, and what many streams work out of them alike.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use super::Resource;
use super::batch::{Batch, BatchKey, Batches};
use crate::encode;
use crate::resource_type::ResourceType;
use crate::version::Version;

/// Differences to older tables that are kept.
const MAX_DIFFS: usize = 16;

/// The resources of one type, immutable.
#[derive(Debug)]
pub(crate) struct Table {
    /// Sorted by name.
    resources: Vec<Arc<Resource>>,
    /// Where in `resources` those with a TTL are.
    with_ttl: Vec<usize>,
    fingerprint: Version,
    names: OnceLock<Version>,
    diffs: Mutex<Vec<(Version, Arc<Diff>)>>,
    batches: Mutex<Batches>,
}

/// What differs from an older table, by name.
#[derive(Debug, Default)]
pub(crate) struct Diff {
    /// Added, or of another version.
    pub(crate) changed: Vec<Arc<Resource>>,
    /// In the older table only.
    pub(crate) removed: Vec<Arc<Resource>>,
}

impl Table {
    /// `resources` have to be sorted by name, without duplicates.
    pub(crate) fn new(resource_type: ResourceType, resources: Vec<Arc<Resource>>) -> Self {
        debug_assert!(resources.is_sorted_by(|a, b| a.name < b.name));
        let versions = resources.iter().map(|resource| (&*resource.name, resource.version));
        let with_ttl = resources.iter().enumerate().filter(|(_, resource)| resource.ttl.is_some());
        Self {
            with_ttl: with_ttl.map(|(at, _)| at).collect(),
            fingerprint: encode::fingerprint(resource_type, versions),
            resources,
            names: OnceLock::new(),
            diffs: Mutex::default(),
            batches: Mutex::default(),
        }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Arc<Resource>> {
        self.resources
            .binary_search_by(|resource| (*resource.name).cmp(name))
            .ok()
            .map(|at| &self.resources[at])
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    pub(crate) fn len(&self) -> usize {
        self.resources.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.resources.iter()
    }

    /// The resources that clients forget by themselves, and after what time.
    pub(crate) fn with_ttl(&self) -> impl Iterator<Item = (&Arc<Resource>, Duration)> {
        let resources = self.with_ttl.iter().map(|at| &self.resources[*at]);
        resources.filter_map(|resource| Some((resource, resource.ttl?)))
    }

    /// A hash of the names and versions.
    pub(crate) fn fingerprint(&self) -> Version {
        self.fingerprint
    }

    /// A hash of the names, as [`NameSet::hash`](crate::stream::NameSet::hash) of a set of all of them.
    pub(crate) fn names_hash(&self) -> Version {
        *self
            .names
            .get_or_init(|| encode::hash_of_names(self.resources.iter().map(|resource| &*resource.name)))
    }

    /// What `base` lacks of this table, and what it has beyond. Worked out once for each `base`.
    pub(crate) fn diff(&self, base: &Table) -> Arc<Diff> {
        let mut diffs = self.diffs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, diff)) = diffs.iter().find(|(of, _)| *of == base.fingerprint) {
            return diff.clone();
        }
        let diff = Arc::new(Diff::between(&base.resources, &self.resources));
        if diffs.len() == MAX_DIFFS {
            diffs.remove(0);
        }
        diffs.push((base.fingerprint, diff.clone()));
        diff
    }

    /// The response of this key, made by `make` if it is not there; true if it was.
    pub(crate) fn batch(&self, key: BatchKey, make: impl FnOnce() -> Batch) -> (Arc<Batch>, bool) {
        let cached = self.batches.lock().unwrap_or_else(PoisonError::into_inner).get(&key);
        if let Some(batch) = cached {
            return (batch, true);
        }
        // Made outside of the lock: two streams may make the same, which is harmless.
        let batch = Arc::new(make());
        self.batches.lock().unwrap_or_else(PoisonError::into_inner).insert(key, batch.clone());
        (batch, false)
    }
}

impl Diff {
    fn between(base: &[Arc<Resource>], newest: &[Arc<Resource>]) -> Self {
        let mut diff = Self::default();
        let mut old = base.iter().peekable();
        for resource in newest {
            while let Some(gone) = old.next_if(|old| old.name < resource.name) {
                diff.removed.push(gone.clone());
            }
            match old.next_if(|old| old.name == resource.name) {
                Some(old) if old.version == resource.version => {}
                _ => diff.changed.push(resource.clone()),
            }
        }
        diff.removed.extend(old.cloned());
        diff
    }
}
