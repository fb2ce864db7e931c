use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::decide::ClassProfile;

use super::{Backend, Fleet};

/// Version of what is saved of a class.
const VERSION: u32 = 1;
/// Time between two versions of a class that are saved.
const SAVED_EVERY: TimeDelta = TimeDelta::seconds(60);

/// What is known of the backends of a pool in general.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct PoolClass {
    profile: Option<ClassProfile>,
    /// As it was at the end of the last run.
    remembered: Option<ClassProfile>,
    saved_at: Option<DateTime<Utc>>,
}

/// A class as it is saved.
#[derive(Serialize, Deserialize)]
struct Saved {
    version: u32,
    profile: ClassProfile,
}

impl PoolClass {
    pub(super) fn profile(&self) -> Option<&ClassProfile> {
        self.profile.as_ref()
    }
}

impl Fleet {
    /// Works out anew what the backends of each pool have in common, and hands it to each of them: once a second. Returns what is
    /// to be saved, by pool.
    pub fn look_at_classes(&mut self, now: DateTime<Utc>) -> Vec<(String, Value)> {
        let mut pools: BTreeMap<&str, Vec<&Backend>> = BTreeMap::new();
        for backend in self.backends.values() {
            pools.entry(&backend.pool).or_default().push(backend);
        }
        let mut to_save = Vec::new();
        for (pool, backends) in pools {
            let class = self.classes.entry(pool.to_owned()).or_default();
            let members = backends.iter().map(|backend| (&backend.learner, backend.engine_size()));
            if let Some(profile) = ClassProfile::of(members, class.remembered.as_ref()) {
                class.profile = Some(profile);
            }
            to_save.extend(class.save(now).map(|saved| (pool.to_owned(), saved)));
        }
        for backend in self.backends.values_mut() {
            backend.learner.inherit(self.classes.get(&backend.pool).and_then(PoolClass::profile));
        }
        to_save
    }

    /// Takes what was saved of a pool's class by the last run. Returns false when it cannot be used.
    pub fn remember_class(&mut self, pool: &str, saved: Value) -> bool {
        let saved = serde_json::from_value::<Saved>(saved);
        let Ok(Saved { version: VERSION, profile }) = saved else { return false };
        if !profile.is_usable() {
            return false;
        }
        let class = self.classes.entry(pool.to_owned()).or_default();
        class.remembered = Some(profile);
        if class.profile.is_none() {
            class.profile.clone_from(&class.remembered);
        }
        for backend in self.backends.values_mut().filter(|backend| backend.pool == pool) {
            backend.learner.inherit(class.profile.as_ref());
        }
        true
    }
}

impl PoolClass {
    fn save(&mut self, now: DateTime<Utc>) -> Option<Value> {
        let is_early = self.saved_at.is_some_and(|at| (TimeDelta::zero()..SAVED_EVERY).contains(&(now - at)));
        if is_early || self.profile == self.remembered {
            return None;
        }
        let profile = self.profile.clone()?;
        self.saved_at = Some(now);
        serde_json::to_value(Saved { version: VERSION, profile }).ok()
    }
}
