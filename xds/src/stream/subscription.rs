//! What a client wants of one type, and what it is believed to hold.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;

use crate::clients::TypeStatus;
use crate::snapshot::Resource;
use crate::version::Version;

const WILDCARD: &str = "*";

/// What a client is believed to have under a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Held {
    /// This version was sent, or the client brought it from an earlier stream.
    Sent { version: Version, acked: bool },
    /// The client refused a response with this version, and may hold an older one if it `had` any. The
    /// response had this many resources: with 1, this is the one that was refused.
    Refused { version: Version, had: bool, company: usize },
    /// The client knows that there is no such resource.
    Absent,
}

/// A response that is neither ACKed nor NACKed.
#[derive(Debug)]
pub(crate) struct InFlight {
    pub(crate) nonce: String,
    pub(crate) at: Instant,
    /// No longer waited for.
    pub(crate) expired: bool,
    /// When the snapshot was published or, if that came later, when the client asked.
    pub(crate) caused_at: Instant,
    pub(crate) resources: Vec<SentResource>,
    pub(crate) removed: Vec<Arc<str>>,
}

/// A resource in a response in flight.
#[derive(Debug)]
pub(crate) struct SentResource {
    pub(crate) name: Arc<str>,
    version: Version,
    /// The client had a version of it before.
    had: bool,
}

#[derive(Debug)]
pub(crate) struct Subscription {
    /// There was a request for the type.
    pub(crate) started: bool,
    pub(crate) wildcard: bool,
    pub(crate) names: BTreeSet<Arc<str>>,
    /// Holds nothing that is not subscribed.
    pub(crate) held: HashMap<Arc<str>, Held>,
    /// Names to be answered even though nothing changed.
    pub(crate) owed: BTreeSet<Arc<str>>,
    /// The client waits for a response, be it an empty one.
    pub(crate) answer_due: bool,
    pub(crate) in_flight: Option<InFlight>,
    /// The newest response that was given up before the one in flight was sent.
    given_up: Option<InFlight>,
    /// Removals that wait for other types, and since when.
    pub(crate) withheld: BTreeMap<Arc<str>, Instant>,
    /// When the client last asked for something.
    pub(crate) changed_at: Instant,
    /// Fingerprint of resources of which nothing is left to send, and whether the client refused any.
    pub(crate) settled_at: Option<(Version, bool)>,
    pub(crate) responses_sent: u64,
    pub(crate) resources_sent: u64,
    pub(crate) acks: u64,
    pub(crate) nacks: u64,
}

impl Subscription {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            started: false,
            wildcard: false,
            names: BTreeSet::new(),
            held: HashMap::new(),
            owed: BTreeSet::new(),
            answer_due: false,
            in_flight: None,
            given_up: None,
            withheld: BTreeMap::new(),
            changed_at: now,
            settled_at: None,
            responses_sent: 0,
            resources_sent: 0,
            acks: 0,
            nacks: 0,
        }
    }

    /// True if the client wants to hear about the name.
    pub(super) fn covers(&self, name: &str) -> bool {
        self.wildcard || self.names.contains(name)
    }

    /// True while the next response has to wait for an ACK or a NACK.
    pub(super) fn awaits_ack(&self) -> bool {
        self.in_flight.as_ref().is_some_and(|sent| !sent.expired)
    }

    /// Stops waiting for an ACK that is overdue. It still counts if it comes before the next but one response.
    pub(super) fn expire(&mut self, now: Instant, timeout: Duration) {
        if let Some(sent) = &mut self.in_flight {
            sent.expired |= now >= sent.at + timeout;
        }
    }

    pub(super) fn put_in_flight(&mut self, sent: InFlight) {
        if let Some(before) = self.in_flight.replace(sent) {
            self.given_up = Some(before);
        }
    }

    /// The response that a nonce names, which is then waited for no more, nor is an older one: a client answers
    /// in the order of the responses.
    pub(super) fn answered(&mut self, nonce: &str) -> Option<InFlight> {
        let newest = self.in_flight.take_if(|sent| sent.nonce == nonce);
        if newest.is_some() {
            self.given_up = None;
            return newest;
        }
        self.given_up.take_if(|sent| sent.nonce == nonce)
    }

    /// Names that the client made this subscription remember.
    pub(super) fn size(&self) -> usize {
        self.names.len().max(self.held.len())
    }

    /// The first request of the type: what it lists as held is not sent unless it changed.
    pub(super) fn start(
        &mut self,
        empty_means_wildcard: bool,
        request: &DeltaDiscoveryRequest,
        now: Instant,
    ) {
        self.started = true;
        self.changed_at = now;
        let subscribed = &request.resource_names_subscribe;
        if subscribed.is_empty() && empty_means_wildcard {
            self.subscribe(WILDCARD);
        }
        for name in subscribed {
            self.subscribe(name);
        }
        for (name, version) in &request.initial_resource_versions {
            if self.covers(name) {
                let version = Version::from_client(version);
                self.held.insert(name.as_str().into(), Held::Sent { version, acked: true });
            }
        }
    }

    /// A request after the first one.
    pub(super) fn change(&mut self, request: &DeltaDiscoveryRequest, now: Instant) {
        for name in &request.resource_names_unsubscribe {
            self.unsubscribe(name);
        }
        for name in &request.resource_names_subscribe {
            self.subscribe(name);
        }
        if !request.resource_names_subscribe.is_empty() || !request.resource_names_unsubscribe.is_empty() {
            self.changed_at = now;
            self.settled_at = None;
        }
    }

    fn subscribe(&mut self, name: &str) {
        if name == WILDCARD {
            self.answer_due |= !self.wildcard;
            self.wildcard = true;
            return;
        }
        let name: Arc<str> = name.into();
        self.names.insert(name.clone());
        match self.held.get(&name).copied() {
            None => {}
            // The client may have forgotten it, so it is sent again.
            Some(Held::Sent { .. } | Held::Absent) => {
                self.owed.insert(name);
            }
            // A refusal is forgotten, once for each time that the client asks.
            Some(Held::Refused { had: true, .. }) => {
                self.held.insert(name, Held::Sent { version: Version::default(), acked: true });
            }
            Some(Held::Refused { had: false, .. }) => {
                self.held.remove(&name);
            }
        }
    }

    fn unsubscribe(&mut self, name: &str) {
        if name == WILDCARD {
            self.wildcard = false;
            self.answer_due = false;
            let names = &self.names;
            self.held.retain(|name, _| names.contains(name));
            self.owed.retain(|name| names.contains(name));
            self.withheld.retain(|name, _| names.contains(name));
            return;
        }
        let Some(name) = self.names.take(name) else { return };
        if self.wildcard {
            // The client waits to hear whether the wildcard covers the name.
            self.owed.insert(name);
        } else {
            self.held.remove(&name);
            self.owed.remove(&name);
            self.withheld.remove(&name);
        }
    }

    /// Has the name answered even though nothing changed.
    pub(super) fn owe(&mut self, name: Arc<str>) {
        self.owed.insert(name);
        self.settled_at = None;
    }

    pub(super) fn sent(&mut self, resource: &Resource) -> SentResource {
        let Resource { name, version, .. } = resource;
        let before = self.held.insert(name.clone(), Held::Sent { version: *version, acked: false });
        self.owed.remove(name);
        let had = matches!(before, Some(Held::Sent { .. } | Held::Refused { had: true, .. }));
        SentResource { name: name.clone(), version: *version, had }
    }

    pub(super) fn removed(&mut self, name: &Arc<str>) {
        self.owed.remove(name);
        self.withheld.remove(name);
        if self.names.contains(name) {
            self.held.insert(name.clone(), Held::Absent);
        } else {
            self.held.remove(name);
        }
    }

    pub(super) fn acked(&mut self, answered: &InFlight) {
        self.acks += 1;
        for sent in &answered.resources {
            if let Some(Held::Sent { version, acked }) = self.held.get_mut(&sent.name)
                && *version == sent.version
            {
                *acked = true;
            }
        }
    }

    /// The client does not say which resource it refused, nor whether it took the others. So the removals
    /// go once more, without resources, and then parts of the response, until what is refused is alone.
    pub(super) fn refused(&mut self, answered: &InFlight) {
        self.nacks += 1;
        self.settled_at = None;
        let company = answered.resources.len();
        for sent in &answered.resources {
            let Some(held) = self.held.get_mut(&sent.name) else { continue };
            if matches!(held, Held::Sent { version, .. } if *version == sent.version) {
                *held = Held::Refused { version: sent.version, had: sent.had, company };
                self.owed.remove(&sent.name);
            }
        }
        if company > 0 {
            for name in answered.removed.iter().filter(|name| self.wildcard || self.names.contains(*name)) {
                // With the answer late, it may have been sent once more.
                if matches!(self.held.get(name), None | Some(Held::Absent)) {
                    let version = Version::default();
                    self.held.insert(name.clone(), Held::Sent { version, acked: true });
                }
            }
        }
    }

    pub(crate) fn status(&self) -> TypeStatus {
        TypeStatus {
            subscribed: self.started,
            wildcard: self.wildcard,
            names: self.names.len(),
            held: self.held.values().filter(|held| !matches!(held, Held::Absent)).count(),
            responses_sent: self.responses_sent,
            resources_sent: self.resources_sent,
            acks: self.acks,
            nacks: self.nacks,
            in_flight: self.in_flight.is_some(),
        }
    }
}
