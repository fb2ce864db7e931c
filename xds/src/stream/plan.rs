//! The difference between a snapshot and what a client holds, for one type.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Stream;
use super::holdings::Held;
use crate::resource_type::ResourceType;
use crate::snapshot::{Resource, Snapshot};

/// What is left to send of one type.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) send: Vec<Arc<Resource>>,
    /// Parts of responses that the client refused as a whole, and the size of that response.
    pub(super) suspects: Vec<(Arc<Resource>, usize)>,
    /// Names that the client asked for, does not hold, and that do not exist.
    pub(super) absent: Vec<Arc<str>>,
    /// Names of resources that the client holds and that no longer exist.
    pub(super) withdraw: Vec<Arc<str>>,
    /// Something waits until what it refers to has been sent.
    pub(super) gated: bool,
    /// The client refused something that is in the snapshot.
    pub(super) refused: bool,
}

impl Plan {
    /// True when there is nothing to send, now or later.
    pub(super) fn is_settled(&self) -> bool {
        self.send.is_empty()
            && self.suspects.is_empty()
            && self.absent.is_empty()
            && self.withdraw.is_empty()
            && !self.gated
    }

    /// Some of the suspects, to be sent by themselves: at most half as many as were refused together.
    pub(super) fn next_suspects(&self) -> Vec<Arc<Resource>> {
        let Some((_, company)) = self.suspects.first() else { return Vec::new() };
        let together = self.suspects.iter().filter(|(_, other)| other == company);
        together.take((company / 2).max(1)).map(|(resource, _)| resource.clone()).collect()
    }
}

impl Stream {
    pub(super) fn plan(&self, resource_type: ResourceType, newest: &Snapshot) -> Plan {
        let mut plan = Plan::default();
        let Some(subscription) = self.subscription(resource_type) else { return plan };
        let table = newest.table(resource_type);
        if subscription.holdings.is_exactly(table) {
            return plan;
        }
        for (name, held) in self.candidates(resource_type, newest) {
            let owed = subscription.holdings.is_owed(&name);
            match table.get(&name) {
                Some(resource) if subscription.wants.covers(&name) => match &held {
                    Held::Refused { version, company: 1, .. } if *version == resource.version => {
                        plan.refused = true;
                    }
                    Held::Has(mark) if mark.version == resource.version && !owed => {}
                    _ if !self.may_refer(resource_type, resource, held.mark().is_some(), newest) => {
                        plan.gated = true
                    }
                    Held::Refused { version, company, .. } if *version == resource.version => {
                        plan.suspects.push((resource.clone(), *company));
                    }
                    _ => plan.send.push(resource.clone()),
                },
                // The client waits to hear whether a wildcard covers the name.
                _ => match held {
                    Held::Has(_) | Held::Refused { .. } => plan.withdraw.push(name),
                    Held::Absent if !owed => {}
                    Held::Nothing | Held::Absent if !self.tells_absence(resource_type) => {}
                    Held::Nothing if !owed && !subscription.wants.names.contains(&name) => {}
                    Held::Nothing | Held::Absent => plan.absent.push(name),
                },
            }
        }
        plan
    }

    /// The names of which something may have to be said, with what the client holds.
    fn candidates(&self, resource_type: ResourceType, newest: &Snapshot) -> BTreeMap<Arc<str>, Held> {
        let Some(subscription) = self.subscription(resource_type) else { return BTreeMap::new() };
        let (wants, holdings) = (&subscription.wants, &subscription.holdings);
        let table = newest.table(resource_type);
        let mut names: BTreeMap<Arc<str>, Held> = BTreeMap::new();
        let mut add = |name: &Arc<str>| {
            names.entry(name.clone()).or_insert_with(|| holdings.held(wants, name));
        };
        holdings.exceptions().for_each(|(name, _)| add(name));
        match holdings.base() {
            _ if holdings.is_at(table) => {}
            Some(base) => {
                let diff = table.diff(base);
                let changed = diff.changed.iter().chain(&diff.removed).map(|resource| &resource.name);
                changed.filter(|name| wants.covers(name)).for_each(add);
            }
            None => {
                wants.names.iter().for_each(&mut add);
                if wants.wildcard {
                    table.iter().for_each(|resource| add(&resource.name));
                }
            }
        }
        names
    }
}
