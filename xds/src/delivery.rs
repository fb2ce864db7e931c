//! What became of the endpoints that were published for a group: who has them, who refuses some, and after what time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::clients::ClientId;
use crate::snapshot::Table;

/// Characters kept of the reason that a client gives.
const MAX_MESSAGE: usize = 256;

/// The endpoints of a group as they were published at one time, and what its clients said to them. Clones are handles of
/// the same; whoever keeps one keeps that state of the endpoints in memory.
///
/// Clients that come later are sent the same and are not counted, nor are those that were sent something newer instead.
#[derive(Clone, Debug)]
pub struct Delivery {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    at: SystemTime,
    since: Instant,
    table: Arc<Table>,
    /// Names of what is new in it or other than before, sorted; none in the first state of the group, where all is.
    changed: Option<Vec<Arc<str>>>,
    audience: Audience,
    tally: Mutex<Tally>,
}

/// Who is to be told.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Audience {
    pub(crate) clients: usize,
    /// The one that came last.
    pub(crate) newest: Option<ClientId>,
}

#[derive(Debug, Default)]
struct Tally {
    accepted: usize,
    first: Option<Duration>,
    last: Option<Duration>,
    refusing: BTreeMap<ClientId, Refusing>,
    left: usize,
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
    /// Clients that were to be told: those of the group when it was published.
    pub clients: usize,
    /// Those that ACKed it.
    pub accepted: usize,
    /// Those that refused it: each `node.id`, and its reason, at most 256 characters of it.
    pub refused: Vec<(Arc<str>, String)>,
    /// Those that went, or changed to another group, before they answered.
    pub left: usize,
    /// From publishing until the first and the last ACK.
    pub first: Option<Duration>,
    /// See `first`.
    pub last: Option<Duration>,
}

impl Delivery {
    pub(crate) fn new(table: Arc<Table>, before: Option<&Table>, audience: Audience, now: Instant) -> Self {
        let tally = Mutex::default();
        let changed = before.map(|before| {
            let diff = table.diff(before);
            diff.changed.iter().map(|resource| resource.name.clone()).collect()
        });
        let shared = Shared { at: SystemTime::now(), since: now, table, changed, audience, tally };
        Self { shared: Arc::new(shared) }
    }

    /// When it was published.
    pub fn at(&self) -> SystemTime {
        self.shared.at
    }

    /// True when this assignment of endpoints is there, and was another one, or none, in the state before.
    pub fn changes(&self, name: &str) -> bool {
        match &self.shared.changed {
            None => self.shared.table.contains(name),
            Some(changed) => changed.binary_search_by(|changed| (**changed).cmp(name)).is_ok(),
        }
    }

    /// True when no answer is due any more.
    pub fn is_settled(&self) -> bool {
        // Who is to have the first state of a group may still be on the way.
        if self.shared.changed.is_none() {
            return false;
        }
        let tally = self.tally();
        tally.accepted + tally.refusing.len() + tally.left >= self.shared.audience.clients
    }

    /// What clients have said so far to an assignment of endpoints.
    pub fn receipt(&self, name: &str) -> Receipt {
        let tally = self.tally();
        let (refusing, others): (Vec<_>, Vec<_>) =
            tally.refusing.values().partition(|client| client.names.iter().any(|refused| **refused == *name));
        let times = || others.iter().map(|client| client.after);
        let accepted = tally.accepted + others.len();
        Receipt {
            clients: self.shared.audience.clients.max(accepted + refusing.len() + tally.left),
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

    pub(crate) fn table(&self) -> &Arc<Table> {
        &self.shared.table
    }

    /// A client has answered, and has all but what it refuses. To be called once for each that has all.
    pub(crate) fn note(
        &self,
        client: ClientId,
        node_id: &str,
        refused: Vec<Arc<str>>,
        message: &str,
        now: Instant,
    ) {
        if !self.counts(client) {
            return;
        }
        let after = now.saturating_duration_since(self.shared.since);
        let mut tally = self.tally();
        if !refused.is_empty() {
            let message = message.chars().take(MAX_MESSAGE).collect();
            let refusing = Refusing { node_id: node_id.into(), names: refused, message, after };
            tally.refusing.insert(client, refusing);
            return;
        }
        tally.refusing.remove(&client);
        tally.accepted += 1;
        tally.first = Some(tally.first.map_or(after, |first| first.min(after)));
        tally.last = Some(tally.last.map_or(after, |last| last.max(after)));
    }

    /// A client goes that has not ACKed it.
    pub(crate) fn note_left(&self, client: ClientId) {
        let mut tally = self.tally();
        let is_counted = self.counts(client) && !tally.refusing.contains_key(&client);
        tally.left += usize::from(is_counted);
    }

    /// The first state is for whoever comes.
    fn counts(&self, client: ClientId) -> bool {
        self.shared.changed.is_none() || self.shared.audience.newest.is_some_and(|newest| client <= newest)
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.shared.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
