//! What became of the endpoints that were published for a group: who has them, who refuses some, and after what time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::snapshot::{Resource, Table};
use crate::version::Version;

/// Characters kept of the reason that a client gives.
const MAX_MESSAGE: usize = 256;

/// The endpoints of a group as they were published at one time, and what its clients said to them. Clones are handles of
/// the same. It keeps names, and no endpoints.
///
/// Clients that come later are sent the same and are not counted, nor are those that were sent something newer instead. One
/// that is brought into another group counts there, and here no more.
#[derive(Clone, Debug)]
pub struct Delivery {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    at: SystemTime,
    since: Instant,
    /// Of all of the endpoints, as [`Table::fingerprint`].
    fingerprint: Version,
    /// Names of what is new in it or other than before, sorted.
    changed: Vec<Arc<str>>,
    /// It is the first state of the group, which is for whoever comes.
    is_first: bool,
    audience: Audience,
    tally: Mutex<Tally>,
}

/// A client's time in a group. Each one that begins later, of any client in any group, is larger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Membership(pub(crate) u64);

/// Who is to be told.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Audience {
    pub(crate) clients: usize,
    /// Of the one that came last.
    pub(crate) newest: Option<Membership>,
}

#[derive(Debug, Default)]
struct Tally {
    accepted: usize,
    first: Option<Duration>,
    last: Option<Duration>,
    refusing: BTreeMap<Membership, Refusing>,
    left: usize,
    /// Of the audience, those that are in another group now.
    moved: usize,
    /// Those that came from another group since.
    came: BTreeSet<Membership>,
}

/// A client that has all but what it refuses.
#[derive(Debug)]
struct Refusing {
    node_id: Arc<str>,
    names: Vec<Arc<str>>,
    message: String,
    after: Duration,
}

/// What clients said to one assignment of endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Receipt {
    /// Clients that were to be told: those of the group when it was published, and those that were brought into it since.
    pub clients: usize,
    /// Those that ACKed it.
    pub accepted: usize,
    /// Those that refused it: each `node.id`, and its reason, at most 256 characters of it.
    pub refused: Vec<(Arc<str>, String)>,
    /// Those that went before they answered.
    pub left: usize,
    /// From publishing until the first and the last ACK.
    pub first: Option<Duration>,
    /// See `first`.
    pub last: Option<Duration>,
}

impl Delivery {
    pub(crate) fn new(table: &Table, before: Option<&Table>, audience: Audience, now: Instant) -> Self {
        let name = |resource: &Arc<Resource>| resource.name.clone();
        let changed = match before {
            None => table.iter().map(name).collect(),
            Some(before) => table.diff(before).changed.iter().map(name).collect(),
        };
        let shared = Shared {
            at: SystemTime::now(),
            since: now,
            fingerprint: table.fingerprint(),
            changed,
            is_first: before.is_none(),
            audience,
            tally: Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// When it was published.
    pub fn at(&self) -> SystemTime {
        self.shared.at
    }

    /// True when this assignment of endpoints is there, and was another one, or none, in the state before.
    pub fn changes(&self, name: &str) -> bool {
        self.shared.changed.binary_search_by(|changed| (**changed).cmp(name)).is_ok()
    }

    /// True when no answer is due any more.
    pub fn is_settled(&self) -> bool {
        // Who is to have the first state of a group may still be on the way.
        if self.shared.is_first {
            return false;
        }
        let tally = self.tally();
        tally.accepted + tally.refusing.len() + tally.left >= self.clients(&tally)
    }

    /// What clients have said so far to an assignment of endpoints.
    pub fn receipt(&self, name: &str) -> Receipt {
        let tally = self.tally();
        let (refusing, others): (Vec<_>, Vec<_>) =
            tally.refusing.values().partition(|client| client.names.iter().any(|refused| **refused == *name));
        let times = || others.iter().map(|client| client.after);
        let accepted = tally.accepted + others.len();
        Receipt {
            clients: self.clients(&tally).max(accepted + refusing.len() + tally.left),
            accepted,
            refused: refusing
                .into_iter()
                .map(|client| (client.node_id.clone(), client.message.clone()))
                .collect(),
            left: tally.left,
            first: tally.first.into_iter().chain(times()).min(),
            last: tally.last.into_iter().chain(times()).max(),
        }
    }

    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    pub(crate) fn fingerprint(&self) -> Version {
        self.shared.fingerprint
    }

    /// A client has answered, and has all but what it refuses. To be called once for each that has all.
    pub(crate) fn note(
        &self,
        member: Membership,
        node_id: &str,
        refused: Vec<Arc<str>>,
        message: &str,
        now: Instant,
    ) {
        let mut tally = self.tally();
        if !self.counts(&tally, member) {
            return;
        }
        let after = now.saturating_duration_since(self.shared.since);
        if !refused.is_empty() {
            let message = message.chars().take(MAX_MESSAGE).collect();
            let refusing = Refusing { node_id: node_id.into(), names: refused, message, after };
            tally.refusing.insert(member, refusing);
            return;
        }
        tally.refusing.remove(&member);
        tally.accepted += 1;
        tally.first = Some(tally.first.map_or(after, |first| first.min(after)));
        tally.last = Some(tally.last.map_or(after, |last| last.max(after)));
    }

    /// A client goes that has not ACKed it.
    pub(crate) fn note_left(&self, member: Membership) {
        let mut tally = self.tally();
        let is_counted = self.counts(&tally, member) && !tally.refusing.contains_key(&member);
        tally.left += usize::from(is_counted);
    }

    /// A client comes from another group.
    pub(crate) fn note_came(&self, member: Membership) {
        if !self.shared.is_first {
            self.tally().came.insert(member);
        }
    }

    /// A client is brought into another group, where it counts from now on.
    pub(crate) fn note_moved(&self, member: Membership, has_accepted: bool) {
        let mut tally = self.tally();
        if !self.counts(&tally, member) {
            return;
        }
        if !tally.came.remove(&member) {
            tally.moved += usize::from(self.is_in_audience(member));
        }
        tally.refusing.remove(&member);
        if has_accepted {
            tally.accepted = tally.accepted.saturating_sub(1);
        }
        if tally.accepted == 0 {
            tally.first = None;
            tally.last = None;
        }
    }

    fn clients(&self, tally: &Tally) -> usize {
        (self.shared.audience.clients + tally.came.len()).saturating_sub(tally.moved)
    }

    fn counts(&self, tally: &Tally, member: Membership) -> bool {
        self.shared.is_first || self.is_in_audience(member) || tally.came.contains(&member)
    }

    /// Only who is still in the group asks, and of these the later ones came after it was published.
    fn is_in_audience(&self, member: Membership) -> bool {
        self.shared.audience.newest.is_some_and(|newest| member <= newest)
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.shared.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
