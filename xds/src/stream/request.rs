//! How requests are read.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use envoy_types::pb::google::rpc;

use super::Stream;
use super::holdings::{Held, Mark};
use super::subscription::Subscription;
use super::wants::WILDCARD;
use crate::encode;
use crate::resource_type::ResourceType;
use crate::version::Version;

/// Why a stream has to end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RequestError {
    #[error("a request on an aggregated stream needs a type_url")]
    MissingTypeUrl,
    #[error("a request for {type_url:?} on a stream of {only}")]
    OtherType { type_url: String, only: ResourceType },
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
        resources: Vec<(Arc<str>, Version)>,
        message: String,
    },
}

impl Stream {
    /// Takes in a request. Whatever it calls for comes out of [`Self::next_response`].
    pub(crate) fn delta_request(
        &mut self,
        request: &DeltaDiscoveryRequest,
        now: Instant,
    ) -> Result<Option<Feedback>, RequestError> {
        // A client that comes back lists what it subscribes to and what it has of that.
        let listed = request.resource_names_subscribe.len().max(request.initial_resource_versions.len());
        self.check_size(listed)?;
        let Some(resource_type) = self.type_of(&request.type_url)? else {
            self.unknown.request(&request.type_url, &request.resource_names_subscribe);
            return Ok(None);
        };
        let names = &request.resource_names_subscribe;
        let sets = self.sets.clone();
        // What the client thinks of a response comes first: a name that it asks for in the same request is
        // owed whatever was in the response.
        let feedback =
            self.feedback(resource_type, &request.response_nonce, request.error_detail.as_ref(), now);
        if let Some(subscription) = &mut self.subscriptions[resource_type] {
            if !names.is_empty() || !request.resource_names_unsubscribe.is_empty() {
                subscription.unsubscribe(&request.resource_names_unsubscribe, &sets);
                subscription.subscribe(names, &sets);
                subscription.changed_at = now;
            }
            return Ok(feedback);
        }

        let mut subscription = Subscription::new(&sets, now);
        let legacy = [WILDCARD.to_owned()];
        let is_legacy = names.is_empty() && resource_type.empty_means_wildcard();
        subscription.subscribe(if is_legacy { &legacy } else { names }, &sets);
        for (name, version) in &request.initial_resource_versions {
            if subscription.wants.covers(name) {
                let version = Version::from_client(version);
                subscription.holdings.set(name.as_str().into(), Held::Has(Mark { version, resource: None }));
            }
        }
        self.returning |= !request.initial_resource_versions.is_empty();
        self.subscriptions[resource_type] = Some(Box::new(subscription));
        Ok(feedback)
    }

    /// Takes in a request of the SotW protocol.
    pub(crate) fn sotw_request(
        &mut self,
        request: &DiscoveryRequest,
        now: Instant,
    ) -> Result<Option<Feedback>, RequestError> {
        // Of a type that is not served there is nothing to say in this protocol.
        let Some(resource_type) = self.type_of(&request.type_url)? else { return Ok(None) };
        let known = self.subscription(resource_type).map_or(0, Subscription::size);
        self.check_size(request.resource_names.len().saturating_sub(known))?;
        let sets = self.sets.clone();
        let nonce = &request.response_nonce;
        let last_nonce =
            self.subscriptions[resource_type].as_ref().map(|subscription| subscription.last_nonce);
        let is_first = last_nonce.is_none();
        // What such a request wants, the client says again with its answer to the newest response. Before the
        // first response there is nothing that it could be older than.
        let is_stale = !nonce.is_empty()
            && last_nonce.is_some_and(|last| last != 0 && self.nonce_number(nonce) != Some(last));
        if is_stale {
            self.note_dropped(resource_type, &request.resource_names);
            return Ok(None);
        }
        let feedback = self.feedback(resource_type, nonce, request.error_detail.as_ref(), now);
        self.returning |= is_first && !request.version_info.is_empty();
        let full_sets = self.sends_full_sets(resource_type);
        let subscription =
            self.subscriptions[resource_type].get_or_insert_with(|| Box::new(Subscription::new(&sets, now)));

        let written = encode::hash_of_names(request.resource_names.iter().map(String::as_str));
        if subscription.sotw.written.replace(written) == Some(written) {
            return Ok(feedback);
        }
        let has_named = subscription.sotw.has_named || !request.resource_names.is_empty();
        subscription.sotw.has_named = has_named;
        let legacy = !has_named && resource_type.empty_means_wildcard();
        let wildcard = legacy || request.resource_names.iter().any(|name| name == WILDCARD);
        let names = request.resource_names.iter().filter(|name| *name != WILDCARD);
        let names: BTreeSet<Arc<str>> = names.map(|name| name.as_str().into()).collect();
        if is_first && wildcard && names.is_empty() && !request.version_info.is_empty() {
            subscription.sotw.brought = Some(Version::from_client(&request.version_info));
        }
        let wants_more = subscription.want_exactly(wildcard, names, &sets);
        subscription.answer_due |= full_sets && wants_more;
        subscription.changed_at = now;
        Ok(feedback)
    }

    /// A request that is not answered says all the same what the client wanted in between: what was not among it,
    /// the client has forgotten, and is sent if the answer to the newest response names it again.
    fn note_dropped(&mut self, resource_type: ResourceType, names: &[String]) {
        let full_sets = self.sends_full_sets(resource_type);
        let Some(subscription) = self.subscriptions[resource_type].as_deref_mut() else { return };
        let written = encode::hash_of_names(names.iter().map(String::as_str));
        if subscription.sotw.written == Some(written) {
            return;
        }
        let names: BTreeSet<&str> = names.iter().map(String::as_str).collect();
        let dropped = subscription.wants.names.iter().filter(|name| !names.contains(&***name));
        let dropped: Vec<_> = dropped.cloned().collect();
        subscription.answer_due |= full_sets && !dropped.is_empty();
        dropped.into_iter().for_each(|name| subscription.holdings.set(name, Held::Nothing));
    }

    /// Takes in an ACK or a NACK. Only its own nonce says what it is about: a late ACK must not count for
    /// what was sent since. A NACK of a response that is no longer remembered is told of all the same, without
    /// resources.
    fn feedback(
        &mut self,
        resource_type: ResourceType,
        nonce: &str,
        error: Option<&rpc::Status>,
        now: Instant,
    ) -> Option<Feedback> {
        let nonce = self.nonce_number(nonce)?;
        let subscription = self.subscriptions[resource_type].as_deref_mut()?;
        let Some(answered) = subscription.answered(nonce) else {
            let message = error?.message.clone();
            subscription.counts.nacks += 1;
            return Some(Feedback::Nacked { resource_type, resources: Vec::new(), message });
        };
        subscription.feedback(&answered, error.is_none());
        self.received = subscription.receive(&answered);
        self.renewals.clone_from(&answered.renewal);
        Some(match error {
            None => {
                let latency = now.saturating_duration_since(answered.caused_at);
                Feedback::Acked { resource_type, latency }
            }
            Some(status) => {
                let resources = answered.batch.resources.iter();
                let resources = resources.map(|resource| (resource.name.clone(), resource.version)).collect();
                Feedback::Nacked { resource_type, resources, message: status.message.clone() }
            }
        })
    }

    fn check_size(&self, listed: usize) -> Result<(), RequestError> {
        let limit = self.limits.max_names;
        let subscriptions = self.subscriptions.iter().filter_map(|(_, subscription)| subscription.as_deref());
        let known: usize = subscriptions.map(Subscription::size).sum();
        if listed + known > limit { Err(RequestError::TooManyNames { limit }) } else { Ok(()) }
    }

    /// The type of a request; `None` for one that is not served.
    fn type_of(&self, type_url: &str) -> Result<Option<ResourceType>, RequestError> {
        match self.only {
            None if type_url.is_empty() => Err(RequestError::MissingTypeUrl),
            None => Ok(ResourceType::from_type_url(type_url)),
            Some(only) if type_url.is_empty() || type_url == only.type_url() => Ok(Some(only)),
            Some(only) => Err(RequestError::OtherType { type_url: type_url.to_owned(), only }),
        }
    }
}
