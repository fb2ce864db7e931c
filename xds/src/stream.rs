//! One delta ADS stream as a pure state machine: requests, the newest snapshot and the time go in,
//! responses come out. There is no I/O, no clock and no queue here.
//!
//! For each type the machine keeps what the client wants (`subscription`) and what it is believed to hold.
//! A response is the difference between the newest snapshot and that belief (`plan`), so changes that a
//! slow client misses merge by themselves, and a stream costs the same whatever its client does. One
//! response per type is in flight at a time. `order` says what has to wait for what:
//!
//! ```text
//! added, changed   CDS ──► EDS ──► LDS ──► RDS    a route waits until its clusters and endpoints were sent
//! removed          LDS ──► RDS ──► CDS ──► EDS    each waits for the ACKs of what may still refer to it
//! ```

mod order;
mod plan;
mod subscription;
mod unknown;

#[cfg(test)]
mod fake_client;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;

use self::subscription::{Held, InFlight, Subscription};
use self::unknown::UnknownTypes;
use crate::encode::EncodedResponse;
use crate::resource_type::{PerType, ResourceType};
use crate::snapshot::{Resource, Snapshot};

/// A snapshot and the time at which it was published.
#[derive(Clone, Debug)]
pub(crate) struct Published {
    pub(crate) snapshot: Snapshot,
    pub(crate) at: Instant,
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
}

/// Why a stream has to end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RequestError {
    #[error("a request on an aggregated stream needs a type_url")]
    MissingTypeUrl,
    #[error("more than {limit} resource names on one stream")]
    TooManyNames { limit: usize },
}

/// What a request said about the response in flight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Feedback {
    Acked {
        resource_type: ResourceType,
        /// Since the snapshot was published, or since the client asked if that came later.
        latency: Duration,
    },
    Nacked {
        resource_type: ResourceType,
        resources: Vec<Arc<str>>,
        message: String,
    },
}

/// A message to send.
#[derive(Clone, Debug)]
pub(crate) struct Response {
    /// `None` for a type that is not served.
    pub(crate) resource_type: Option<ResourceType>,
    pub(crate) resources: usize,
    pub(crate) removed: usize,
    pub(crate) encoded: EncodedResponse,
}

#[derive(Debug)]
pub(crate) struct DeltaStream {
    nonce_prefix: String,
    last_nonce: u64,
    started_at: Instant,
    limits: StreamLimits,
    /// The client brought resources from an earlier stream.
    returning: bool,
    subscriptions: PerType<Subscription>,
    unknown: UnknownTypes,
}

impl DeltaStream {
    /// `nonce_prefix` has to differ between streams, so that a nonce of one says nothing on another.
    pub(crate) fn new(nonce_prefix: String, limits: StreamLimits, now: Instant) -> Self {
        Self {
            nonce_prefix,
            last_nonce: 0,
            started_at: now,
            limits,
            returning: false,
            subscriptions: PerType::from_fn(|_| Subscription::new(now)),
            unknown: UnknownTypes::default(),
        }
    }

    /// Takes in a request. Whatever it calls for comes out of [`Self::next_response`].
    pub(crate) fn request(
        &mut self,
        request: &DeltaDiscoveryRequest,
        now: Instant,
    ) -> Result<Option<Feedback>, RequestError> {
        if request.type_url.is_empty() {
            return Err(RequestError::MissingTypeUrl);
        }
        let listed = request.resource_names_subscribe.len() + request.initial_resource_versions.len();
        let known: usize = self.subscriptions.iter().map(|(_, s)| s.size()).sum();
        if listed + known > self.limits.max_names {
            return Err(RequestError::TooManyNames { limit: self.limits.max_names });
        }
        let Some(resource_type) = ResourceType::from_type_url(&request.type_url) else {
            self.unknown.request(request);
            return Ok(None);
        };

        // What the client thinks of a response comes first: a name that it asks for in the same request is
        // owed whatever was in the response.
        let feedback = self.feedback(resource_type, request, now);
        let subscription = &mut self.subscriptions[resource_type];
        if subscription.started {
            subscription.change(request, now);
        } else {
            subscription.start(resource_type.empty_means_wildcard(), request, now);
            self.returning |= !request.initial_resource_versions.is_empty();
        }
        Ok(feedback)
    }

    /// Takes in an ACK or a NACK. Only its own nonce says what it is about: a late ACK must not count for
    /// what was sent since. A NACK of a response that is no longer remembered is told of all the same, without
    /// resources.
    fn feedback(
        &mut self,
        resource_type: ResourceType,
        request: &DeltaDiscoveryRequest,
        now: Instant,
    ) -> Option<Feedback> {
        let subscription = &mut self.subscriptions[resource_type];
        let Some(answered) = subscription.answered(&request.response_nonce) else {
            let status = request.error_detail.as_ref()?;
            if !request.response_nonce.starts_with(&self.nonce_prefix) {
                return None;
            }
            subscription.nacks += 1;
            let message = status.message.clone();
            return Some(Feedback::Nacked { resource_type, resources: Vec::new(), message });
        };
        Some(match &request.error_detail {
            None => {
                subscription.acked(&answered);
                let latency = now.saturating_duration_since(answered.caused_at);
                Feedback::Acked { resource_type, latency }
            }
            Some(status) => {
                subscription.refused(&answered);
                let resources = answered.resources.into_iter().map(|sent| sent.name).collect();
                Feedback::Nacked { resource_type, resources, message: status.message.clone() }
            }
        })
    }

    /// The next response that is due, given the newest snapshot; `None` when there is nothing to send
    /// before a request, a new snapshot or [`Self::deadline`].
    ///
    /// Without a snapshot nothing is answered: a client keeps what it has until there is a first state.
    pub(crate) fn next_response(&mut self, newest: Option<&Published>, now: Instant) -> Option<Response> {
        if let Some((type_url, removed)) = self.unknown.next_answer() {
            let nonce = self.nonce();
            let encoded = EncodedResponse::new(&type_url, &nonce, Vec::new(), &removed);
            return Some(Response { resource_type: None, resources: 0, removed: removed.len(), encoded });
        }
        let newest = newest?;
        for subscription in self.subscriptions.iter_mut() {
            subscription.expire(now, self.limits.ack_timeout);
        }
        // A removal whose time is up goes only when nothing else can: what replaces it goes first.
        for overdue_too in [false, true] {
            for resource_type in ResourceType::ALL {
                if let Some(response) = self.respond(resource_type, newest, overdue_too, now) {
                    return Some(response);
                }
            }
        }
        None
    }

    /// The next time at which [`Self::next_response`] can have something to send by itself.
    pub(crate) fn deadline(&self, now: Instant) -> Option<Instant> {
        let times = self.subscriptions.iter().flat_map(|(_, subscription)| {
            let expiry = subscription.in_flight.as_ref().map(|sent| sent.at + self.limits.ack_timeout);
            let removal = subscription.withheld.values().min().map(|since| *since + self.limits.removal_hold);
            expiry.into_iter().chain(removal)
        });
        times.filter(|at| *at > now).min()
    }

    /// True when the client has ACKed everything that it wants of the snapshot.
    pub(crate) fn in_sync(&self, newest: &Snapshot) -> bool {
        ResourceType::ALL.into_iter().all(|resource_type| {
            let subscription = &self.subscriptions[resource_type];
            let plan = self.plan(resource_type, newest);
            subscription.in_flight.is_none() && plan.is_settled() && !plan.refused
        })
    }

    /// True when the client has refused something that is in the snapshot.
    pub(crate) fn refuses(&self, newest: &Snapshot) -> bool {
        ResourceType::ALL.into_iter().any(|resource_type| self.plan(resource_type, newest).refused)
    }

    pub(crate) fn subscription(&self, resource_type: ResourceType) -> &Subscription {
        &self.subscriptions[resource_type]
    }

    fn respond(
        &mut self,
        resource_type: ResourceType,
        newest: &Published,
        overdue_too: bool,
        now: Instant,
    ) -> Option<Response> {
        let subscription = &self.subscriptions[resource_type];
        if !subscription.started || subscription.awaits_ack() {
            return None;
        }
        let plan = self.plan(resource_type, &newest.snapshot);
        let mut removed = plan.absent.clone();
        removed.extend(self.release(resource_type, &plan, newest, overdue_too, now));

        let subscription = &mut self.subscriptions[resource_type];
        let with_suspects = plan.send.is_empty() && removed.is_empty();
        let send = if with_suspects { plan.next_suspects() } else { plan.send };
        let is_complete = !plan.gated
            && plan.suspects.is_empty()
            && removed.len() == plan.absent.len() + plan.withdraw.len();
        let fingerprint = newest.snapshot.fingerprint(resource_type);
        subscription.settled_at = is_complete.then_some((fingerprint, plan.refused));
        let empty_is_due = subscription.answer_due && !plan.gated;
        if send.is_empty() && removed.is_empty() && !empty_is_due {
            return None;
        }
        Some(self.send(resource_type, newest, &send, &removed, now))
    }

    fn send(
        &mut self,
        resource_type: ResourceType,
        newest: &Published,
        send: &[Arc<Resource>],
        removed: &[Arc<str>],
        now: Instant,
    ) -> Response {
        let nonce = self.nonce();
        let subscription = &mut self.subscriptions[resource_type];
        subscription.answer_due = false;
        let resources = send.iter().map(|resource| subscription.sent(resource)).collect();
        for name in removed {
            subscription.removed(name);
        }
        let caused_at = newest.at.max(subscription.changed_at);
        subscription.put_in_flight(InFlight {
            nonce: nonce.clone(),
            at: now,
            expired: false,
            caused_at,
            resources,
            removed: removed.to_vec(),
        });
        subscription.responses_sent += 1;
        subscription.resources_sent += send.len() as u64;
        self.renew_dependents(resource_type, send, &newest.snapshot);

        let entries = send.iter().map(|resource| resource.entry.clone()).collect();
        Response {
            resource_type: Some(resource_type),
            resources: send.len(),
            removed: removed.len(),
            encoded: EncodedResponse::new(resource_type.type_url(), &nonce, entries, removed),
        }
    }

    /// A client warms a changed cluster until endpoints arrive, even if it has them already, and a changed
    /// listener until its routes do: marks these to be sent once more.
    fn renew_dependents(&mut self, resource_type: ResourceType, sent: &[Arc<Resource>], newest: &Snapshot) {
        let dependent = match resource_type {
            ResourceType::Cluster => ResourceType::ClusterLoadAssignment,
            ResourceType::Listener => ResourceType::RouteConfiguration,
            _ => return,
        };
        let subscription = &mut self.subscriptions[dependent];
        for name in
            sent.iter().flat_map(|resource| resource.assignment.iter().chain(&resource.route_configurations))
        {
            let has = matches!(subscription.held.get(name), Some(Held::Sent { .. }));
            if has && newest.table(dependent).contains(name) {
                subscription.owe(name.clone());
            }
        }
    }

    fn nonce(&mut self) -> String {
        self.last_nonce += 1;
        format!("{}{}", self.nonce_prefix, self.last_nonce)
    }
}
