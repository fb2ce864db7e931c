//! The difference between a snapshot and what a client holds, for one type.

use std::sync::Arc;

use super::DeltaStream;
use super::subscription::Held;
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

impl DeltaStream {
    pub(super) fn plan(&self, resource_type: ResourceType, newest: &Snapshot) -> Plan {
        let mut plan = Plan::default();
        let subscription = &self.subscriptions[resource_type];
        let table = newest.table(resource_type);
        if !subscription.started {
            return plan;
        }
        if let Some((fingerprint, refused)) = subscription.settled_at
            && fingerprint == table.fingerprint()
        {
            plan.refused = refused;
            return plan;
        }

        let mut consider = |resource: &Arc<Resource>| {
            let held = subscription.held.get(&resource.name).copied();
            match held {
                Some(Held::Refused { version, company: 1, .. }) if version == resource.version => {
                    plan.refused = true;
                }
                Some(Held::Sent { version, .. })
                    if version == resource.version && !subscription.owed.contains(&resource.name) => {}
                _ if !self.may_refer(resource_type, resource, held, newest) => plan.gated = true,
                Some(Held::Refused { version, company, .. }) if version == resource.version => {
                    plan.suspects.push((resource.clone(), company));
                }
                _ => plan.send.push(resource.clone()),
            }
        };
        if subscription.wildcard {
            table.iter().for_each(&mut consider);
        } else {
            subscription.names.iter().filter_map(|name| table.get(name)).for_each(&mut consider);
        }

        for (name, held) in &subscription.held {
            if !matches!(held, Held::Absent) && !table.contains(name) {
                plan.withdraw.push(name.clone());
            }
        }
        plan.withdraw.sort();
        for name in subscription.names.union(&subscription.owed).filter(|name| !table.contains(name)) {
            let answered = match subscription.held.get(name) {
                None => false,
                Some(Held::Absent) => !subscription.owed.contains(name),
                Some(_) => true,
            };
            if !answered {
                plan.absent.push(name.clone());
            }
        }
        plan
    }
}
