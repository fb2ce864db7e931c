//! Groups of clients: the newest state of each, and the streams that follow it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use arc_swap::ArcSwapOption;

use super::cell::Cell;
use super::pacer::{Pace, Pacer, PacerLimits};
use super::quarantine::{Poison, Quarantine};
use super::sharing::Sharing;
use crate::clients::ClientId;
use crate::delivery::{Audience, Delivery, Membership};
use crate::resource_type::ResourceType;
use crate::snapshot::Snapshot;
use crate::stream::Published;

/// Clients that are to have the same.
#[derive(Debug)]
pub(crate) struct Group {
    name: Arc<str>,
    /// What the streams are sent.
    newest: ArcSwapOption<Published>,
    members: Mutex<HashMap<ClientId, Member>>,
    publishing: Mutex<Publishing>,
    /// Members that have been seen to have all of the newest state.
    synced: AtomicUsize,
    /// The number of the newest state that at least half of the members were seen to have.
    proven: AtomicU64,
}

#[derive(Debug)]
struct Member {
    cell: Arc<Cell>,
    membership: Membership,
}

#[derive(Debug)]
struct Publishing {
    /// What was published last, of which `newest` differs while something is in quarantine.
    wanted: Option<Snapshot>,
    /// The number of the newest state, also of one that was withdrawn.
    number: u64,
    endpoints: Pacer,
    others: Pacer,
    quarantine: Quarantine,
}

/// How the streams of a group are to be woken after a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Nothing,
    Wake(Pace, Kind),
}

/// The kinds of change that are paced by themselves: weights never wait for slower types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Endpoints,
    Others,
}

impl Group {
    fn new(name: &str, pace: PacerLimits) -> Self {
        let publishing = Publishing {
            wanted: None,
            number: 0,
            endpoints: Pacer::new(pace),
            others: Pacer::new(pace),
            quarantine: Quarantine::default(),
        };
        Self {
            name: name.into(),
            newest: ArcSwapOption::empty(),
            members: Mutex::default(),
            publishing: Mutex::new(publishing),
            synced: AtomicUsize::new(0),
            proven: AtomicU64::new(0),
        }
    }

    pub(super) fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub(crate) fn newest(&self) -> Option<Arc<Published>> {
        self.newest.load_full()
    }

    /// The same, without a count of who holds it: for a short look.
    pub(super) fn look(&self) -> arc_swap::Guard<Option<Arc<Published>>> {
        self.newest.load()
    }

    /// What was published last.
    pub(super) fn wanted(&self) -> Option<Snapshot> {
        self.publishing().wanted.clone()
    }

    pub(super) fn members(&self) -> usize {
        self.lock_members().len()
    }

    /// Makes a snapshot what the group is to have. Endpoints that this changes are delivered.
    pub(super) fn publish(&self, snapshot: Snapshot, now: Instant) -> (Change, Option<Delivery>) {
        let mut publishing = self.publishing();
        publishing.wanted = Some(snapshot.clone());
        let effective = publishing.quarantine.apply(&snapshot);
        self.replace(&mut publishing, effective, now)
    }

    fn replace(
        &self,
        publishing: &mut Publishing,
        snapshot: Snapshot,
        now: Instant,
    ) -> (Change, Option<Delivery>) {
        let before = self.newest.load_full();
        let changed: Vec<ResourceType> = match &before {
            None => ResourceType::ALL.to_vec(),
            Some(before) => {
                let differs = |t: &ResourceType| before.snapshot.fingerprint(*t) != snapshot.fingerprint(*t);
                ResourceType::ALL.into_iter().filter(differs).collect()
            }
        };
        if let (Some(before), true) = (&before, changed.is_empty()) {
            return (self.confirm_state(before, now), None);
        }
        let mut changes = before.as_ref().map(|before| before.changes.clone()).unwrap_or_default();
        for resource_type in &changed {
            changes[*resource_type] += 1;
        }
        publishing.number += 1;
        let number = publishing.number;
        let (delivery, is_new) = match &before {
            Some(before) if !changed.contains(&ResourceType::ClusterLoadAssignment) => {
                (before.delivery.clone(), false)
            }
            _ => (self.deliver(before.as_deref(), &snapshot, now), true),
        };
        let delivered = is_new.then(|| delivery.clone());
        self.synced.store(0, Ordering::Relaxed);
        self.newest.store(Some(Arc::new(Published {
            snapshot,
            at: now,
            confirmed_at: now,
            number,
            changes,
            delivery,
        })));

        let only_endpoints =
            changed.iter().all(|t| matches!(t, ResourceType::ClusterLoadAssignment | ResourceType::Runtime));
        let touches_endpoints = changed.contains(&ResourceType::ClusterLoadAssignment);
        let (kind, pacer) = if only_endpoints || touches_endpoints {
            (Kind::Endpoints, &mut publishing.endpoints)
        } else {
            (Kind::Others, &mut publishing.others)
        };
        (Change::Wake(pacer.change(now), kind), delivered)
    }

    /// The publisher says that all is as it should be; none when nothing was published.
    pub(super) fn confirm(&self, now: Instant) -> Option<Change> {
        // So that no state that is published meanwhile is overwritten.
        let _publishing = self.publishing();
        let newest = self.newest.load_full()?;
        Some(self.confirm_state(&newest, now))
    }

    fn deliver(&self, before: Option<&Published>, snapshot: &Snapshot, now: Instant) -> Delivery {
        let endpoints = ResourceType::ClusterLoadAssignment;
        let mut audience = Audience::default();
        for member in self.lock_members().values() {
            if member.cell.service.takes_endpoints() {
                audience.clients += 1;
                audience.newest = audience.newest.max(Some(member.membership));
            }
        }
        let before = before.map(|before| &**before.snapshot.table(endpoints));
        Delivery::new(snapshot.table(endpoints), before, audience, now)
    }

    fn confirm_state(&self, before: &Published, now: Instant) -> Change {
        let confirmed = Published { confirmed_at: now, ..Published::clone(before) };
        let shortest = confirmed.snapshot.shortest_ttl();
        self.newest.store(Some(Arc::new(confirmed)));
        // Heartbeats may have stopped for want of a confirmation. Before a third of the TTL none has: the next one was
        // still within the time for which the last confirmation stands.
        let silent = now.saturating_duration_since(before.confirmed_at);
        match shortest {
            Some(ttl) if silent >= ttl / 3 => Change::Wake(Pace::Now, Kind::Endpoints),
            _ => Change::Nothing,
        }
    }

    pub(super) fn withdraw(&self) -> bool {
        let mut publishing = self.publishing();
        publishing.wanted = None;
        publishing.quarantine = Quarantine::default();
        self.newest.swap(None).is_some()
    }

    /// Wakes every stream of the group. A wake-up is a mark in a queue of the runtime: nothing waits here.
    pub(super) fn wake(&self) {
        self.lock_members().values().for_each(|member| member.cell.waker.wake());
    }

    /// Wakes the streams at a time that a pacer named.
    pub(super) fn fire(&self, kind: Kind, now: Instant) {
        {
            let mut publishing = self.publishing();
            match kind {
                Kind::Endpoints => publishing.endpoints.fired(now),
                Kind::Others => publishing.others.fired(now),
            }
        }
        self.wake();
    }

    /// True when at least half of the clients were seen to have all of a state.
    pub(super) fn is_proven(&self, published: &Published) -> bool {
        self.proven.load(Ordering::Relaxed) == published.number
    }

    /// A client was seen to have all of a state for the first time.
    pub(super) fn note_synced(&self, published: &Published) {
        let newest = self.newest.load();
        if newest.as_ref().is_none_or(|newest| newest.number != published.number) {
            return;
        }
        let synced = self.synced.fetch_add(1, Ordering::Relaxed) + 1;
        // Half of them, once for each state: it is proven. Members that leave make it fewer.
        let number = published.number;
        let is_proven = synced >= self.members().div_ceil(2);
        if is_proven && self.proven.swap(number, Ordering::Relaxed) != number {
            self.publishing().quarantine.note_good(&published.snapshot);
        }
    }

    /// A client refused resources, each alone. Enough such clients put the group back to what it had before.
    pub(super) fn note_refused(
        &self,
        client: ClientId,
        refused: &[Poison],
        share: f64,
        now: Instant,
    ) -> Change {
        let members = self.lock_members().iter().map(|(id, member)| (*id, member.cell.service)).collect();
        let mut publishing = self.publishing();
        let Some(wanted) = publishing.wanted.clone() else { return Change::Nothing };
        if !publishing.quarantine.note_refused(client, refused, &members, share, &wanted) {
            return Change::Nothing;
        }
        let effective = publishing.quarantine.apply(&wanted);
        self.replace(&mut publishing, effective, now).0
    }

    /// What is in quarantine, and since when.
    pub(super) fn quarantined(&self) -> Vec<(Poison, std::time::SystemTime)> {
        self.publishing().quarantine.quarantined()
    }

    fn publishing(&self) -> MutexGuard<'_, Publishing> {
        self.publishing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_members(&self) -> MutexGuard<'_, HashMap<ClientId, Member>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Groups by name. A group exists from its first snapshot or its first stream on; one that never had a
/// snapshot, or whose snapshot was withdrawn, goes with its last stream.
#[derive(Debug)]
pub(super) struct Groups {
    pace: PacerLimits,
    /// The number of the last membership.
    memberships: AtomicU64,
    groups: Mutex<HashMap<Arc<str>, Arc<Group>>>,
    sharing: Mutex<Sharing>,
}

impl Groups {
    pub(super) fn new(pace: PacerLimits) -> Self {
        Self { pace, memberships: AtomicU64::new(0), groups: Mutex::default(), sharing: Mutex::default() }
    }

    pub(super) fn publish(
        &self,
        group: &str,
        snapshot: Snapshot,
        now: Instant,
    ) -> (Arc<Group>, Change, Option<Delivery>) {
        let snapshot = self.sharing.lock().unwrap_or_else(PoisonError::into_inner).share(&snapshot);
        // Under the lock, so that the group cannot go between.
        let mut groups = self.lock();
        let group =
            groups.entry(group.into()).or_insert_with(|| Arc::new(Group::new(group, self.pace))).clone();
        let (change, delivery) = group.publish(snapshot, now);
        drop(groups);
        (group, change, delivery)
    }

    /// False if the group had no snapshot.
    pub(super) fn withdraw(&self, group: &str) -> bool {
        let mut groups = self.lock();
        let Some(found) = groups.get(group) else { return false };
        let withdrawn = found.withdraw();
        // The streams of the group follow it, and are to see what is published next.
        if found.members() == 0 {
            groups.remove(group);
        }
        withdrawn
    }

    pub(super) fn get(&self, group: &str) -> Option<Arc<Group>> {
        self.lock().get(group).cloned()
    }

    pub(super) fn all(&self) -> Vec<Arc<Group>> {
        let mut groups: Vec<_> = self.lock().values().cloned().collect();
        groups.sort_by(|a, b| a.name.cmp(&b.name));
        groups
    }

    /// Takes a client into a group, which may come from another one.
    pub(super) fn join(&self, group: &str, cell: &Arc<Cell>, is_moved: bool) -> (Arc<Group>, Membership) {
        let mut groups = self.lock();
        let group =
            groups.entry(group.into()).or_insert_with(|| Arc::new(Group::new(group, self.pace))).clone();
        // Under the lock of all groups, so that who comes later has a larger one.
        let membership = Membership(self.memberships.fetch_add(1, Ordering::Relaxed) + 1);
        {
            // Whatever is published counts its members: all of them, and each once.
            let _publishing = group.publishing();
            group.lock_members().insert(cell.id, Member { cell: cell.clone(), membership });
            if let Some(newest) = group.newest()
                && is_moved
                && cell.service.takes_endpoints()
            {
                newest.delivery.note_came(membership);
            }
        }
        (group, membership)
    }

    /// Lets a client go. Returns what was published last with it in the group.
    pub(super) fn leave(&self, group: &Arc<Group>, client: ClientId) -> Option<Delivery> {
        let mut groups = self.lock();
        let (is_empty, newest) = {
            let _publishing = group.publishing();
            let mut members = group.lock_members();
            members.remove(&client);
            (members.is_empty(), group.newest())
        };
        if is_empty && newest.is_none() {
            groups.remove(&group.name);
        }
        newest.map(|newest| newest.delivery.clone())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Arc<Group>>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
