//! What a client wants of one type.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::encode;
use crate::version::Version;

pub(super) const WILDCARD: &str = "*";

/// A sorted set of names, shared by all streams that want the same.
#[derive(Debug)]
pub(crate) struct NameSet {
    names: Vec<Arc<str>>,
    hash: Version,
}

impl NameSet {
    fn new(names: Vec<Arc<str>>) -> Self {
        Self { hash: encode::hash_of_names(names.iter().map(|name| &**name)), names }
    }

    pub(crate) fn hash(&self) -> Version {
        self.hash
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        self.names.binary_search_by(|own| (**own).cmp(name)).is_ok()
    }

    pub(crate) fn len(&self) -> usize {
        self.names.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<str>> {
        self.names.iter()
    }
}

/// The sets of names in use on a server.
#[derive(Debug, Default)]
pub(crate) struct NameSets {
    sets: Mutex<Sets>,
}

#[derive(Debug, Default)]
struct Sets {
    by_hash: HashMap<Version, Weak<NameSet>>,
    /// Entries after the last sweep: the next one is due when there are twice as many.
    swept: usize,
}

impl NameSets {
    /// The shared set of these names.
    pub(super) fn intern(&self, names: BTreeSet<Arc<str>>) -> Arc<NameSet> {
        let set = NameSet::new(names.into_iter().collect());
        let mut sets = self.sets.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = sets.by_hash.get(&set.hash).and_then(Weak::upgrade);
        // Clients choose the names: sets that were made to have one hash are not mixed up.
        if let Some(shared) = shared.filter(|shared| shared.names == set.names) {
            return shared;
        }
        if sets.by_hash.len() >= 2 * sets.swept + 64 {
            sets.by_hash.retain(|_, set| set.strong_count() > 0);
            sets.swept = sets.by_hash.len();
        }
        let set = Arc::new(set);
        sets.by_hash.insert(set.hash, Arc::downgrade(&set));
        set
    }
}

/// What a client wants of one type.
#[derive(Clone, Debug)]
pub(crate) struct Wants {
    pub(super) wildcard: bool,
    pub(super) names: Arc<NameSet>,
}

impl Wants {
    pub(super) fn nothing(sets: &NameSets) -> Self {
        Self { wildcard: false, names: sets.intern(BTreeSet::new()) }
    }

    /// True if the client wants to hear about the name.
    pub(crate) fn covers(&self, name: &str) -> bool {
        self.wildcard || self.names.contains(name)
    }

    /// The hash of the names, `None` for everything.
    pub(super) fn hash(&self) -> Option<Version> {
        (!self.wildcard).then(|| self.names.hash())
    }

    /// The names with some added and some taken away.
    pub(super) fn changed(&self, add: &[Arc<str>], remove: &[Arc<str>], sets: &NameSets) -> Arc<NameSet> {
        if remove.is_empty() && add.iter().all(|name| self.names.contains(name)) {
            return self.names.clone();
        }
        let mut names: BTreeSet<Arc<str>> = self.names.iter().cloned().collect();
        for name in remove {
            names.remove(name);
        }
        names.extend(add.iter().cloned());
        sets.intern(names)
    }
}
