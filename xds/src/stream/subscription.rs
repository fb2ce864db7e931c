//! One type on a stream: what the client wants, what it is believed to hold, what is under way.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::holdings::{Held, Holdings, Mark};
use super::wants::{NameSets, WILDCARD, Wants};
use super::{Received, Renewal};
use crate::clients::TypeStatus;
use crate::delivery::Delivery;
use crate::snapshot::Table;
use crate::snapshot::batch::Batch;
use crate::version::Version;

/// A response that is neither ACKed nor NACKed.
#[derive(Debug)]
pub(crate) struct InFlight {
    pub(crate) nonce: u64,
    pub(crate) at: Instant,
    /// No longer waited for.
    pub(crate) expired: bool,
    /// When the snapshot was published or, if that came later, when the client asked.
    pub(crate) caused_at: Instant,
    pub(crate) batch: Arc<Batch>,
    pub(crate) before: Before,
    /// What another stream of the client is to send again: at once, and, since it may overtake this response,
    /// when the client has answered.
    pub(crate) renewal: Option<Renewal>,
    /// The published state that these endpoints are of.
    pub(crate) delivery: Option<Delivery>,
}

/// What the client had of the resources in a response.
#[derive(Debug)]
pub(crate) enum Before {
    /// What a table has.
    Table(Option<Arc<Table>>),
    /// One for each resource.
    Each(Vec<Option<Mark>>),
    /// The very same: these are heartbeats without content.
    Same,
}

#[derive(Debug)]
pub(crate) struct Subscription {
    pub(crate) wants: Wants,
    pub(crate) holdings: Holdings,
    /// The client waits for a response, be it an empty one.
    pub(crate) answer_due: bool,
    pub(crate) in_flight: Option<InFlight>,
    /// The newest response that was given up before the one in flight was sent.
    given_up: Option<Box<InFlight>>,
    /// The number of the last nonce.
    pub(crate) last_nonce: u64,
    /// Removals that wait for other types or for the client.
    pub(crate) withheld: BTreeMap<Arc<str>, Withheld>,
    /// When the client last asked for something.
    pub(crate) changed_at: Instant,
    pub(crate) sotw: SotwState,
    /// Resources with a TTL, and when the client was last told of each.
    pub(crate) told_at: BTreeMap<Arc<str>, Instant>,
    /// The number of changes of the type up to the last response.
    pub(crate) seen: Option<u64>,
    /// The newest published state of which the client has ACKed all endpoints.
    pub(crate) received: Option<Delivery>,
    pub(crate) counts: Counts,
}

/// A removal that waits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Withheld {
    pub(crate) until: Instant,
    /// Other types are done, and the client is still to let go of the resource.
    pub(crate) for_client: bool,
    /// The number of the state in which this was arranged.
    pub(crate) state: u64,
}

/// What only a SotW subscription remembers.
#[derive(Debug, Default)]
pub(crate) struct SotwState {
    /// A request has named resources, so that no names no longer mean all.
    pub(crate) has_named: bool,
    /// The hash of the names in the last request, as they were written.
    pub(crate) written: Option<Version>,
    /// The version that the client brought from an earlier stream, until it is compared.
    pub(crate) brought: Option<Version>,
    /// Names that do not exist, since when, and whether the client was told.
    pub(crate) missing: BTreeMap<Arc<str>, Missing>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Missing {
    pub(crate) since: Instant,
    pub(crate) told: bool,
}

/// What happened so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) responses: u64,
    pub(crate) resources: u64,
    pub(crate) acks: u64,
    pub(crate) nacks: u64,
}

impl Subscription {
    pub(super) fn new(sets: &NameSets, now: Instant) -> Self {
        Self {
            wants: Wants::nothing(sets),
            holdings: Holdings::default(),
            answer_due: false,
            in_flight: None,
            given_up: None,
            last_nonce: 0,
            withheld: BTreeMap::new(),
            changed_at: now,
            sotw: SotwState::default(),
            told_at: BTreeMap::new(),
            seen: None,
            received: None,
            counts: Counts::default(),
        }
    }

    /// True while the next response has to wait for an ACK or a NACK.
    pub(super) fn awaits_ack(&self) -> bool {
        self.in_flight.as_ref().is_some_and(|sent| !sent.expired)
    }

    /// True while the ACK of a response with this resource is due.
    pub(crate) fn is_in_flight(&self, name: &str) -> bool {
        self.in_flight.as_ref().is_some_and(|sent| sent.batch.resources.iter().any(|r| *r.name == *name))
    }

    /// Stops waiting for an ACK that is overdue. It still counts if it comes before the next but one response.
    pub(super) fn expire(&mut self, now: Instant, timeout: Duration) {
        if let Some(sent) = &mut self.in_flight {
            sent.expired |= now >= sent.at + timeout;
        }
    }

    pub(super) fn put_in_flight(&mut self, sent: InFlight) {
        self.last_nonce = sent.nonce;
        if let Some(before) = self.in_flight.replace(sent) {
            self.given_up = Some(Box::new(before));
        }
    }

    /// The response that a nonce names, which is then waited for no more, nor is an older one: a client answers
    /// in the order of the responses.
    pub(super) fn answered(&mut self, nonce: u64) -> Option<InFlight> {
        let newest = self.in_flight.take_if(|sent| sent.nonce == nonce);
        if newest.is_some() {
            self.given_up = None;
            return newest;
        }
        self.given_up.take_if(|sent| sent.nonce == nonce).map(|sent| *sent)
    }

    /// Names that the client made this subscription remember.
    pub(super) fn size(&self) -> usize {
        self.wants.names.len().max(self.holdings.own_names())
    }

    /// Takes in names that a client subscribes to, in the delta protocol.
    pub(super) fn subscribe(&mut self, names: &[String], sets: &NameSets) {
        let mut added: Vec<Arc<str>> = Vec::new();
        for name in names {
            if name == WILDCARD {
                if !self.wants.wildcard {
                    self.answer_due = true;
                    self.holdings.spell_out(&self.wants);
                    self.wants.wildcard = true;
                }
                continue;
            }
            let name: Arc<str> = name.as_str().into();
            if self.wants.covers(&name) {
                self.ask_again(&name);
            } else {
                self.holdings.lack(name.clone());
            }
            added.push(name);
        }
        self.wants.names = self.wants.changed(&added, &[], sets);
    }

    /// The client may have forgotten the resource, so it is sent again. A refusal is forgotten, once for each
    /// time that the client asks.
    fn ask_again(&mut self, name: &Arc<str>) {
        match self.holdings.held(&self.wants, name) {
            Held::Has(_) | Held::Absent => self.holdings.owe(&self.wants, name.clone()),
            Held::Refused { had: Some(_), .. } => self.holdings.set(name.clone(), Held::Has(Mark::unknown())),
            Held::Refused { had: None, .. } | Held::Nothing => self.holdings.set(name.clone(), Held::Nothing),
        }
    }

    /// Takes in names that a client is no longer interested in, in the delta protocol.
    pub(super) fn unsubscribe(&mut self, names: &[String], sets: &NameSets) {
        let mut dropped: Vec<Arc<str>> = Vec::new();
        for name in names {
            if name == WILDCARD {
                self.wants.wildcard = false;
                self.answer_due = false;
            } else if self.wants.names.contains(name) {
                dropped.push(name.as_str().into());
            }
        }
        self.wants.names = self.wants.changed(&[], &dropped, sets);
        if self.wants.wildcard {
            // The client waits to hear whether the wildcard covers the name.
            dropped.into_iter().for_each(|name| self.holdings.owe(&self.wants, name));
        } else if !names.is_empty() {
            self.forget_what_is_not_wanted();
        }
    }

    /// Takes in everything that the client wants, in the SotW protocol. True if it wants more than before.
    pub(super) fn want_exactly(
        &mut self,
        wildcard: bool,
        names: BTreeSet<Arc<str>>,
        sets: &NameSets,
    ) -> bool {
        let before = self.wants.clone();
        if wildcard && !before.wildcard {
            self.holdings.spell_out(&before);
        }
        let added: Vec<_> = names.iter().filter(|name| !before.covers(name)).cloned().collect();
        let wants_more = !added.is_empty() || (wildcard && !before.wildcard);
        self.wants = Wants { wildcard, names: sets.intern(names) };
        self.forget_what_is_not_wanted();
        added.into_iter().for_each(|name| self.holdings.lack(name));
        wants_more
    }

    fn forget_what_is_not_wanted(&mut self) {
        let wants = &self.wants;
        self.holdings.forget_unless(|name| wants.covers(name));
        self.withheld.retain(|name, _| wants.covers(name));
        self.told_at.retain(|name, _| wants.covers(name));
        self.sotw.missing.retain(|name, _| wants.covers(name));
    }

    /// Takes in an ACK or a NACK of a response.
    ///
    /// With a NACK the client does not say which resource it refused, nor whether it took the others. So the
    /// removals go once more, without resources, and then parts of the response, until what is refused is
    /// alone.
    pub(super) fn feedback(&mut self, answered: &InFlight, accepted: bool) {
        if accepted {
            self.counts.acks += 1;
            return;
        }
        self.counts.nacks += 1;
        let Batch { resources, removed, .. } = &*answered.batch;
        for (at, resource) in resources.iter().enumerate() {
            let name = &resource.name;
            // Its time may have run out at the client, which then has no content for a heartbeat.
            self.told_at.remove(name);
            let had = match &answered.before {
                Before::Same => continue,
                Before::Table(table) => table.as_ref().and_then(|table| table.get(name)).map(Mark::of),
                Before::Each(marks) => marks.get(at).cloned().flatten(),
            };
            let held = self.holdings.held(&self.wants, name);
            if matches!(held, Held::Has(mark) if mark.version == resource.version) {
                let refused = Held::Refused { version: resource.version, had, company: resources.len() };
                self.holdings.set(name.clone(), refused);
            }
        }
        if !resources.is_empty() {
            for name in removed.iter().filter(|name| self.wants.covers(name)) {
                // With the answer late, it may have been sent once more.
                if matches!(self.holdings.held(&self.wants, name), Held::Nothing | Held::Absent) {
                    self.holdings.set(name.clone(), Held::Has(Mark::unknown()));
                }
            }
        }
    }

    /// What the client has of the published state that a response was made of, once it has answered about all of it. Of a
    /// state that it has without exceptions, this is told once.
    pub(super) fn receive(&mut self, answered: &InFlight) -> Option<Received> {
        self.received_of(answered.delivery.clone()?)
    }

    /// The client is in another group now, with another published state. Returns what it has of that, when it is still to answer
    /// about nothing; what it answers from now on, it answers about that.
    pub(super) fn follow(&mut self, delivery: &Delivery) -> Option<Received> {
        self.received = None;
        for sent in self.in_flight.iter_mut().chain(self.given_up.as_deref_mut()) {
            sent.delivery = Some(delivery.clone());
        }
        if self.in_flight.is_some() { None } else { self.received_of(delivery.clone()) }
    }

    fn received_of(&mut self, delivery: Delivery) -> Option<Received> {
        let refused = self.holdings.refused_of(delivery.fingerprint())?;
        if refused.is_empty() {
            if self.received.as_ref().is_some_and(|received| received.is(&delivery)) {
                return None;
            }
            self.received = Some(delivery.clone());
        }
        Some(Received { delivery, refused })
    }

    pub(crate) fn status(&self) -> TypeStatus {
        let held = self.holdings.all(&self.wants);
        TypeStatus {
            subscribed: true,
            wildcard: self.wants.wildcard,
            names: self.wants.names.len(),
            held: held.values().filter(|held| !matches!(held, Held::Absent | Held::Nothing)).count(),
            responses_sent: self.counts.responses,
            resources_sent: self.counts.resources,
            acks: self.counts.acks,
            nacks: self.counts.nacks,
            in_flight: self.in_flight.is_some(),
        }
    }
}
