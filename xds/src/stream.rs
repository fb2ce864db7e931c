//! One discovery stream as a pure state machine: requests, the newest snapshot and the time go in, responses
//! come out. There is no I/O, no clock and no queue here.
//!
//! For each type the machine keeps what the client wants (`wants`) and what it is believed to hold
//! (`holdings`). A response is the difference between the newest snapshot and that belief (`plan`), so
//! changes that a slow client misses merge by themselves, and a stream costs the same whatever its client
//! does. One response per type is in flight at a time. `order` says what has to wait for what:
//!
//! ```text
//! added, changed   RTDS ──► SDS ──► CDS ──► EDS ──► LDS ──► RDS    a route waits until its clusters and
//!                                                                  endpoints were sent
//! removed          LDS ──► RDS ──► CDS ──► EDS, SDS                each waits for the ACKs of what may
//!                                                                  still refer to it
//! ```
//!
//! The two variants of the protocol differ in how requests are read (`request`) and how a difference is
//! written (`respond`), in nothing else.

mod heartbeat;
mod holdings;
mod order;
mod plan;
mod request;
mod respond;
mod subscription;
mod unknown;
mod wants;

#[cfg(test)]
mod fake_client;
#[cfg(test)]
mod fake_sotw;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod sotw_properties;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod worlds;

pub(crate) use self::holdings::{Held, Mark};
pub(crate) use self::request::{Feedback, RequestError};
pub(crate) use self::subscription::Subscription;
pub(crate) use self::wants::{NameSet, NameSets};

use std::sync::Arc;
use std::time::{Duration, Instant};

use self::unknown::UnknownTypes;
#[cfg(test)]
use crate::delivery::Audience;
use crate::delivery::Delivery;
use crate::encode::GrpcMessage;
use crate::resource_type::{PerType, ResourceType};
use crate::snapshot::Snapshot;
pub(crate) use crate::snapshot::batch::Variant;
use crate::version::Version;

/// A snapshot and the time at which it was published.
#[derive(Clone, Debug)]
pub(crate) struct Published {
    pub(crate) snapshot: Snapshot,
    pub(crate) at: Instant,
    /// When the publisher last said that this is how it should be.
    pub(crate) confirmed_at: Instant,
    /// Counts the states of the group.
    pub(crate) number: u64,
    /// Counts the states in which a type changed.
    pub(crate) changes: PerType<u64>,
    /// Who has its endpoints.
    pub(crate) delivery: Delivery,
}

impl Published {
    /// Until when the last confirmation keeps up a resource with a TTL. Clients forget it a TTL after the last heartbeat,
    /// so one and a half after the last confirmation at the latest.
    pub(crate) fn stands_until(&self, ttl: Duration) -> Instant {
        self.confirmed_at + ttl / 2
    }

    /// True when nobody stands by the layers with a TTL any more: whoever comes now is not told of them.
    pub(crate) fn has_lapsed(&self, now: Instant) -> bool {
        self.snapshot.shortest_ttl().is_some_and(|ttl| now >= self.stands_until(ttl))
    }
}

#[cfg(test)]
impl Published {
    pub(crate) fn first(snapshot: Snapshot, now: Instant) -> Self {
        let table = snapshot.table(ResourceType::ClusterLoadAssignment);
        let delivery = Delivery::new(table, None, Audience::default(), now);
        Self { snapshot, at: now, confirmed_at: now, number: 1, changes: PerType::default(), delivery }
    }
}

/// Limits of one stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StreamLimits {
    /// A response that is neither ACKed nor NACKed for this long no longer holds up the next one.
    pub(crate) ack_timeout: Duration,
    /// The longest time that a removal waits for ACKs of what may still refer to the resource.
    pub(crate) removal_hold: Duration,
    /// Names and versions, of all types together, that a client may list.
    pub(crate) max_names: usize,
    /// Heartbeats carry content even where the client surely has it.
    pub(crate) full_heartbeats: bool,
}

/// A message to send.
#[derive(Clone, Debug)]
pub(crate) struct Response {
    /// `None` for a type that is not served.
    pub(crate) resource_type: Option<ResourceType>,
    pub(crate) resources: usize,
    pub(crate) removed: usize,
    /// States that were overtaken before the client could be sent them.
    pub(crate) merged: u64,
    pub(crate) origin: Origin,
    pub(crate) message: GrpcMessage,
}

/// Where the encoded form of a response comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// It had been made for another stream.
    Shared,
    /// It was made for this stream and will serve others.
    First,
    /// It was made for this stream alone.
    Own,
}

#[derive(Debug)]
pub(crate) struct Stream {
    variant: Variant,
    /// The type of a service that serves only one; `None` on an aggregated stream.
    only: Option<ResourceType>,
    nonce_prefix: Box<str>,
    last_nonce: u64,
    started_at: Instant,
    limits: StreamLimits,
    /// The client brought resources from an earlier stream.
    returning: bool,
    subscriptions: PerType<Option<Box<Subscription>>>,
    unknown: UnknownTypes,
    /// On a stream of one type: what the client's stream of another type is to send again.
    renewals: Option<Renewal>,
    /// What the last answer says about endpoints that were published.
    received: Option<Received>,
    sets: Arc<NameSets>,
}

/// The client has all endpoints of a published state, but for those that it refuses.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) delivery: Delivery,
    pub(crate) refused: Vec<Arc<str>>,
}

/// Resources that a client waits for although it has them: endpoints of changed clusters, routes of changed
/// listeners.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Renewal {
    pub(crate) resource_type: ResourceType,
    pub(crate) names: Vec<Arc<str>>,
}

impl Stream {
    /// `nonce_prefix` has to differ between streams, so that a nonce of one says nothing on another.
    pub(crate) fn new(
        variant: Variant,
        only: Option<ResourceType>,
        nonce_prefix: &str,
        limits: StreamLimits,
        sets: Arc<NameSets>,
        now: Instant,
    ) -> Self {
        Self {
            variant,
            only,
            nonce_prefix: nonce_prefix.into(),
            last_nonce: 0,
            started_at: now,
            limits,
            returning: false,
            subscriptions: PerType::default(),
            unknown: UnknownTypes::default(),
            renewals: None,
            received: None,
            sets,
        }
    }

    pub(crate) fn subscription(&self, resource_type: ResourceType) -> Option<&Subscription> {
        self.subscriptions[resource_type].as_deref()
    }

    /// What another stream of the same client is to send again, after a response on this one.
    pub(crate) fn take_renewal(&mut self) -> Option<Renewal> {
        self.renewals.take()
    }

    /// What the last answer said about endpoints that were published, if it was the last one about them.
    pub(crate) fn take_received(&mut self) -> Option<Received> {
        self.received.take()
    }

    /// True when the client has ACKed all endpoints of a published state.
    pub(crate) fn has_received(&self, delivery: &Delivery) -> bool {
        let received = self.subscription(ResourceType::ClusterLoadAssignment).map(|s| &s.received);
        received.is_some_and(|received| received.as_ref().is_some_and(|received| received.is(delivery)))
    }

    /// The client is in another group now: what it says from now on is about that group's endpoints, of which it may have all.
    pub(crate) fn follow(&mut self, delivery: &Delivery) {
        if let Some(subscription) = &mut self.subscriptions[ResourceType::ClusterLoadAssignment] {
            self.received = subscription.follow(delivery);
        }
    }

    /// Sends once more what the client has, because it waits for it.
    pub(crate) fn renew(&mut self, renewal: &Renewal) {
        let Some(subscription) = &mut self.subscriptions[renewal.resource_type] else { return };
        for name in &renewal.names {
            if matches!(subscription.holdings.held(&subscription.wants, name), Held::Has(_)) {
                subscription.holdings.owe(&subscription.wants, name.clone());
            }
        }
    }

    /// The next time at which [`Self::next_response`] can have something to send by itself.
    pub(crate) fn deadline(&self, newest: Option<&Published>, now: Instant) -> Option<Instant> {
        let subscriptions = self.subscriptions.iter().filter_map(|(_, subscription)| subscription.as_deref());
        let times = subscriptions.flat_map(|subscription| {
            let expiry = subscription.in_flight.as_ref().map(|sent| sent.at + self.limits.ack_timeout);
            let removal = subscription.withheld.values().map(|withheld| withheld.until).min();
            let untold = subscription.sotw.missing.values().filter(|missing| !missing.told);
            let absence = untold.map(|missing| missing.since + self.limits.removal_hold).min();
            expiry.into_iter().chain(removal).chain(absence)
        });
        let heartbeat = newest.and_then(|newest| self.next_heartbeat(newest));
        times.chain(heartbeat).filter(|at| *at > now).min()
    }

    /// True when the client has ACKed everything that it wants of the snapshot.
    pub(crate) fn in_sync(&self, newest: &Snapshot) -> bool {
        ResourceType::ALL.into_iter().all(|resource_type| {
            let Some(subscription) = self.subscription(resource_type) else { return true };
            let plan = self.plan(resource_type, newest);
            subscription.in_flight.is_none() && plan.is_settled() && !plan.refused
        })
    }

    /// True when the client has refused something that is in the snapshot.
    pub(crate) fn refuses(&self, newest: &Snapshot) -> bool {
        ResourceType::ALL.into_iter().any(|resource_type| self.plan(resource_type, newest).refused)
    }

    /// The resources that the client refused, each by itself.
    pub(crate) fn refused_alone(
        &self,
        resource_type: ResourceType,
    ) -> impl Iterator<Item = (Arc<str>, Version)> {
        let exceptions = self.subscription(resource_type).into_iter().flat_map(|s| s.holdings.exceptions());
        exceptions.filter_map(|(name, exception)| match exception.held {
            Held::Refused { version, company: 1, .. } => Some((name.clone(), version)),
            _ => None,
        })
    }

    /// True for types whose responses hold everything that the client wants: what is missing is removed.
    fn sends_full_sets(&self, resource_type: ResourceType) -> bool {
        self.variant == Variant::Sotw && resource_type.empty_means_wildcard()
    }

    /// True where a client is told that something does not exist.
    fn tells_absence(&self, _: ResourceType) -> bool {
        self.variant == Variant::Delta
    }

    fn nonce(&mut self) -> (u64, String) {
        self.last_nonce += 1;
        (self.last_nonce, format!("{}{:x}", self.nonce_prefix, self.last_nonce))
    }

    /// The number of a nonce of this stream.
    fn nonce_number(&self, nonce: &str) -> Option<u64> {
        u64::from_str_radix(nonce.strip_prefix(&*self.nonce_prefix)?, 16).ok()
    }
}
