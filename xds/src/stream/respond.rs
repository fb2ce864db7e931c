//! How a difference is written.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use super::subscription::{Before, InFlight, Missing};
use super::{Origin, Published, Renewal, Response, Stream, Variant};
use crate::encode::{self, Entry, GrpcMessage};
use crate::resource_type::ResourceType;
use crate::snapshot::batch::{Batch, BatchKey};
use crate::snapshot::{Resource, Snapshot, Table, empty_resource};
use crate::version::Version;

impl Stream {
    /// The next response that is due, given the newest snapshot; `None` when there is nothing to send
    /// before a request, a new snapshot or [`Self::deadline`].
    ///
    /// Without a snapshot nothing is answered: a client keeps what it has until there is a first state.
    pub(crate) fn next_response(&mut self, newest: Option<&Published>, now: Instant) -> Option<Response> {
        if let Some((type_url, removed)) = self.unknown.next_answer() {
            let (_, nonce) = self.nonce();
            let names = removed.iter().map(String::as_str);
            let body = encode::delta_body(&type_url, std::iter::empty(), names);
            return Some(Response {
                resource_type: None,
                resources: 0,
                removed: removed.len(),
                merged: 0,
                origin: Origin::Own,
                message: GrpcMessage::new(&nonce, &body),
            });
        }
        let newest = newest?;
        let (timeout, mut withheld) = (self.limits.ack_timeout, false);
        for resource_type in ResourceType::ALL {
            let Some(subscription) = &mut self.subscriptions[resource_type] else { continue };
            subscription.expire(now, timeout);
            if let Some(response) = self.respond(resource_type, newest, false, now) {
                return Some(response);
            }
            withheld |= self.subscription(resource_type).is_some_and(|s| !s.withheld.is_empty());
        }
        // A removal whose time is up goes only when nothing else can: what replaces it goes first.
        let overdue = ResourceType::ALL.into_iter().filter(|_| withheld);
        for resource_type in overdue {
            if let Some(response) = self.respond(resource_type, newest, true, now) {
                return Some(response);
            }
        }
        if self.variant == Variant::Sotw {
            for resource_type in ResourceType::ALL {
                if let Some(response) = self.tell_missing(resource_type, newest, now) {
                    return Some(response);
                }
            }
        }
        if newest.snapshot.has_ttl() {
            return ResourceType::ALL.into_iter().find_map(|t| self.heartbeat(t, newest, now));
        }
        None
    }

    fn respond(
        &mut self,
        resource_type: ResourceType,
        newest: &Published,
        overdue_too: bool,
        now: Instant,
    ) -> Option<Response> {
        let subscription = self.subscriptions[resource_type].as_deref_mut()?;
        if subscription.awaits_ack() || (resource_type == ResourceType::Runtime && newest.has_lapsed(now)) {
            return None;
        }
        let table = newest.snapshot.table(resource_type);
        if let Some(brought) = subscription.sotw.brought.take()
            && brought == table.fingerprint()
        {
            // A pure wildcard, and the client has all of it.
            subscription.holdings.jump(table.clone());
            subscription.answer_due = false;
        }
        if !subscription.holdings.has_exceptions() {
            if subscription.holdings.is_at(table) && !subscription.answer_due {
                return None;
            }
            if let Some(response) = self.respond_as_others(resource_type, newest, now) {
                return response;
            }
        }

        let plan = self.plan(resource_type, &newest.snapshot);
        // In SotW a client drops what is gone by itself, but for types sent as a whole.
        let forgets = self.variant == Variant::Sotw && !self.sends_full_sets(resource_type);
        let mut removed = plan.absent.clone();
        if forgets {
            removed.extend(plan.withdraw.iter().cloned());
        } else {
            removed.extend(self.release(resource_type, &plan, newest, overdue_too, now));
        }
        let nothing_to_tell = removed.is_empty() || forgets;
        let send = if plan.send.is_empty() && nothing_to_tell { plan.next_suspects() } else { plan.send };
        let subscription = self.subscriptions[resource_type].as_deref_mut()?;
        let answer_is_due = subscription.answer_due && !plan.gated;

        let marks = send
            .iter()
            .map(|resource| subscription.holdings.held(&subscription.wants, &resource.name).mark().cloned());
        let before = Before::Each(marks.collect());
        let sent = send.iter().map(|resource| &resource.name);
        subscription.holdings.advance(&subscription.wants, table, sent, removed.iter());
        subscription.withheld.retain(|name, _| !removed.contains(name));
        self.note_missing(resource_type, table, now);
        if send.is_empty() && nothing_to_tell && !answer_is_due {
            return None;
        }
        if forgets {
            removed.clear();
        }
        let body = self.body(resource_type, &send, &removed, &newest.snapshot);
        let batch = Arc::new(Batch { resources: send, removed, body });
        Some(self.send(resource_type, newest, batch, before, Origin::Own, now))
    }

    /// Responds with what other streams in the same state are sent, unless order or removals call for a
    /// look at this one. The inner `None` says that there is nothing to send.
    fn respond_as_others(
        &mut self,
        resource_type: ResourceType,
        newest: &Published,
        now: Instant,
    ) -> Option<Option<Response>> {
        let subscription = self.subscriptions[resource_type].as_deref()?;
        let table = newest.snapshot.table(resource_type);
        let base = subscription.holdings.base();
        let key = BatchKey {
            variant: self.variant,
            base: base.map(|base| base.fingerprint()),
            names: (!subscription.wants.wildcard).then(|| subscription.wants.names.clone()),
        };
        let (batch, was_there) = table.batch(key, || self.batch(resource_type, newest));
        if !batch.removed.is_empty() {
            return None;
        }
        let is_free = |resource: &Arc<Resource>| {
            let in_use = base.is_some_and(|base| base.contains(&resource.name));
            self.may_refer(resource_type, resource, in_use, &newest.snapshot)
        };
        if !batch.resources.iter().all(is_free) {
            return None;
        }
        let answer_due = subscription.answer_due;
        let subscription = self.subscriptions[resource_type].as_deref_mut()?;
        let before = Before::Table(subscription.holdings.base().cloned());
        subscription.withheld.clear();
        subscription.holdings.jump(table.clone());
        self.note_missing(resource_type, table, now);
        if batch.resources.is_empty() && !answer_due {
            return Some(None);
        }
        let origin = if was_there { Origin::Shared } else { Origin::First };
        Some(Some(self.send(resource_type, newest, batch, before, origin, now)))
    }

    /// The response to a stream without exceptions, if nothing has to wait.
    fn batch(&self, resource_type: ResourceType, newest: &Published) -> Batch {
        let table = newest.snapshot.table(resource_type);
        let nothing = Batch { resources: Vec::new(), removed: Vec::new(), body: bytes::Bytes::new() };
        let Some(subscription) = self.subscription(resource_type) else { return nothing };
        let wants = &subscription.wants;
        let (resources, removed): (Vec<_>, Vec<_>) = match subscription.holdings.base() {
            Some(base) => {
                let diff = table.diff(base);
                let wanted = |resource: &&Arc<Resource>| wants.covers(&resource.name);
                let removed = diff.removed.iter().filter(wanted).map(|resource| resource.name.clone());
                (diff.changed.iter().filter(wanted).cloned().collect(), removed.collect())
            }
            None if wants.wildcard => {
                let absent = wants.names.iter().filter(|name| !table.contains(name));
                (table.iter().cloned().collect(), absent.cloned().collect())
            }
            None => {
                let absent = wants.names.iter().filter(|name| !table.contains(name)).cloned();
                (wants.names.iter().filter_map(|name| table.get(name)).cloned().collect(), absent.collect())
            }
        };
        let (type_url, variant) = (resource_type.type_url(), self.variant);
        if variant == Variant::Delta {
            let entries = Entries::new(&resources, variant);
            let body = encode::delta_body(type_url, entries.iter(), removed.iter().map(|name| &**name));
            return Batch { resources, removed, body };
        }
        let wanted = table.iter().filter(|resource| wants.covers(&resource.name));
        let all: Vec<_> = wanted.cloned().collect();
        let version = version_info(resource_type, &all);
        let full = self.sends_full_sets(resource_type);
        let entries = Entries::new(if full { &all } else { &resources }, variant);
        let body = encode::sotw_body(type_url, version, entries.iter());
        // What nobody waits to hear is no removal.
        let is_news = |_: &Arc<str>| full && subscription.holdings.base().is_some();
        Batch { resources, removed: removed.into_iter().filter(is_news).collect(), body }
    }

    /// A response to this stream alone, after its holdings have been brought up to date.
    fn body(
        &self,
        resource_type: ResourceType,
        send: &[Arc<Resource>],
        removed: &[Arc<str>],
        newest: &Snapshot,
    ) -> bytes::Bytes {
        let type_url = resource_type.type_url();
        if self.variant == Variant::Delta {
            let entries = Entries::new(send, self.variant);
            return encode::delta_body(type_url, entries.iter(), removed.iter().map(|name| &**name));
        }
        let held = self.held_resources(resource_type, newest);
        let version = version_info(resource_type, &held);
        let full = self.sends_full_sets(resource_type);
        let entries = Entries::new(if full { &held } else { send }, self.variant);
        encode::sotw_body(type_url, version, entries.iter())
    }

    /// Everything that the client has, as far as it came over this stream or is in the snapshot.
    pub(super) fn held_resources(
        &self,
        resource_type: ResourceType,
        newest: &Snapshot,
    ) -> Vec<Arc<Resource>> {
        let Some(subscription) = self.subscription(resource_type) else { return Vec::new() };
        let table = newest.table(resource_type);
        let held = subscription.holdings.all(&subscription.wants).into_iter();
        held.filter_map(|(name, held)| {
            let mark = held.mark()?.clone();
            mark.resource.or_else(|| table.get(&name).filter(|r| r.version == mark.version).cloned())
        })
        .collect()
    }

    pub(super) fn send(
        &mut self,
        resource_type: ResourceType,
        newest: &Published,
        batch: Arc<Batch>,
        before: Before,
        origin: Origin,
        now: Instant,
    ) -> Response {
        let (number, nonce) = self.nonce();
        let message = GrpcMessage::new(&nonce, &batch.body);
        let (resources, removed) = (batch.resources.len(), batch.removed.len());
        let renewal = self.renew_dependents(resource_type, &batch.resources, &newest.snapshot);
        self.renewals.clone_from(&renewal);
        let mut merged = 0;
        if let Some(subscription) = &mut self.subscriptions[resource_type] {
            subscription.answer_due = false;
            let seen = subscription.seen.replace(newest.changes[resource_type]);
            merged = seen.map_or(0, |seen| newest.changes[resource_type].saturating_sub(seen + 1));
            subscription.counts.responses += 1;
            subscription.counts.resources += resources as u64;
            let with_ttl = batch.resources.iter().filter(|resource| resource.ttl.is_some());
            subscription.told_at.extend(with_ttl.map(|resource| (resource.name.clone(), now)));
            let is_endpoints = resource_type == ResourceType::ClusterLoadAssignment;
            let caused_at = newest.at.max(subscription.changed_at);
            subscription.put_in_flight(InFlight {
                nonce: number,
                at: now,
                expired: false,
                caused_at,
                batch,
                before,
                renewal,
                delivery: is_endpoints.then(|| newest.delivery.clone()),
            });
        }
        Response { resource_type: Some(resource_type), resources, removed, merged, origin, message }
    }

    /// A client warms a changed cluster until endpoints arrive, even if it has them already, and a changed
    /// listener until its routes do: marks these to be sent once more, or tells what another stream is to send.
    fn renew_dependents(
        &mut self,
        resource_type: ResourceType,
        sent: &[Arc<Resource>],
        newest: &Snapshot,
    ) -> Option<Renewal> {
        let dependent = match resource_type {
            ResourceType::Cluster => ResourceType::ClusterLoadAssignment,
            ResourceType::Listener => ResourceType::RouteConfiguration,
            _ => return None,
        };
        let names =
            sent.iter().flat_map(|resource| resource.assignment.iter().chain(&resource.route_configurations));
        let names: Vec<_> = names.filter(|name| newest.table(dependent).contains(name)).cloned().collect();
        let renewal = Renewal { resource_type: dependent, names };
        match self.only {
            None => {
                self.renew(&renewal);
                None
            }
            Some(_) => (!renewal.names.is_empty()).then_some(renewal),
        }
    }

    /// Remembers which wanted names do not exist, for clients that cannot be told so.
    fn note_missing(&mut self, resource_type: ResourceType, table: &Table, now: Instant) {
        let can_be_faked =
            matches!(resource_type, ResourceType::ClusterLoadAssignment | ResourceType::Runtime);
        if self.variant == Variant::Delta || !can_be_faked {
            return;
        }
        let Some(subscription) = &mut self.subscriptions[resource_type] else { return };
        let missing = &mut subscription.sotw.missing;
        if subscription.wants.names.hash() == table.names_hash() {
            missing.clear();
            return;
        }
        missing.retain(|name, _| !table.contains(name));
        for name in subscription.wants.names.iter().filter(|name| !table.contains(name)) {
            missing.entry(name.clone()).or_insert(Missing { since: now, told: false });
        }
    }

    /// A SotW client cannot be told that something does not exist. Where it would wait, it gets an empty one: a
    /// runtime layer without keys at once, endpoints of a cluster that is not there after a while.
    fn tell_missing(
        &mut self,
        resource_type: ResourceType,
        newest: &Published,
        now: Instant,
    ) -> Option<Response> {
        let clusters = newest.snapshot.table(ResourceType::Cluster);
        // Endpoints of a cluster that another server has given are not ours to take away, and those of one whose
        // removal is held back are in use.
        let clusters_are_ours = self
            .subscription(ResourceType::Cluster)
            .is_some_and(|own| own.wants.wildcard && own.holdings.is_exactly(clusters) && !own.awaits_ack());
        let hold = self.limits.removal_hold;
        let subscription = self.subscriptions[resource_type].as_deref_mut()?;
        if subscription.awaits_ack() {
            return None;
        }
        let mut told = Vec::new();
        for (name, missing) in subscription.sotw.missing.iter_mut().filter(|(_, missing)| !missing.told) {
            let is_due = match resource_type {
                ResourceType::Runtime => true,
                _ => clusters_are_ours && now >= missing.since + hold,
            };
            if is_due {
                missing.told = true;
                told.extend(empty_resource(resource_type, name));
            }
        }
        if told.is_empty() {
            return None;
        }
        let entries = Entries::new(&told, self.variant);
        let mut all = self.held_resources(resource_type, &newest.snapshot);
        all.extend(told.iter().cloned());
        let version = version_info(resource_type, &all);
        let body = encode::sotw_body(resource_type.type_url(), version, entries.iter());
        let batch = Arc::new(Batch { resources: Vec::new(), removed: Vec::new(), body });
        Some(self.send(resource_type, newest, batch, Before::Same, Origin::Own, now))
    }
}

/// The version of all that a SotW client has of a type after a response.
pub(super) fn version_info(resource_type: ResourceType, held: &[Arc<Resource>]) -> Version {
    encode::fingerprint(resource_type, held.iter().map(|resource| (&*resource.name, resource.version)))
}

/// Resources as they stand in a response.
struct Entries<'a>(Vec<Cow<'a, [u8]>>);

impl<'a> Entries<'a> {
    fn new(resources: &'a [Arc<Resource>], variant: Variant) -> Self {
        Self(resources.iter().map(|resource| entry(resource, variant)).collect())
    }

    fn iter(&self) -> impl Iterator<Item = &[u8]> + Clone {
        self.0.iter().map(|entry| &**entry)
    }
}

fn entry(resource: &Resource, variant: Variant) -> Cow<'_, [u8]> {
    let Resource { name, version, entry, ttl, .. } = resource;
    match (variant, ttl) {
        (Variant::Delta, None) => Cow::Borrowed(entry.delta()),
        (Variant::Sotw, None) => Cow::Borrowed(entry.sotw()),
        (_, Some(ttl)) => Cow::Owned(entry_with_ttl(entry, name, *version, *ttl, true, variant)),
    }
}

pub(super) fn entry_with_ttl(
    entry: &Entry,
    name: &str,
    version: Version,
    ttl: std::time::Duration,
    content: bool,
    variant: Variant,
) -> Vec<u8> {
    match variant {
        Variant::Delta => entry.delta_with_ttl(name, version, ttl, content),
        Variant::Sotw => entry.sotw_with_ttl(name, version, ttl, content),
    }
}
