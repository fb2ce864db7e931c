//! Resources that a client forgets by itself, unless it is told again in time.
//!
//! A heartbeat means that the publisher stands by the resource: without a confirmation within half the TTL there
//! are no more of them. It carries no content as long as the client surely has it, unless it always shall, and goes
//! in a response of its own, since a refusal concerns a whole response.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::holdings::Held;
use super::respond::{entry_with_ttl, version_info};
use super::subscription::Before;
use super::{Origin, Published, Response, Stream, Variant};
use crate::encode;
use crate::resource_type::ResourceType;
use crate::snapshot::Resource;
use crate::snapshot::batch::Batch;

/// Heartbeats within a TTL: one may be lost, and another server may have to take over in between.
const BEATS_PER_TTL: u32 = 6;

impl Stream {
    /// The heartbeats of a type that are due now.
    pub(super) fn heartbeat(
        &mut self,
        resource_type: ResourceType,
        newest: &Published,
        now: Instant,
    ) -> Option<Response> {
        let due: Vec<_> = self
            .beating(resource_type, newest)
            .filter(|(_, ttl, told_at)| told_at.is_none_or(|told_at| now >= told_at + *ttl / BEATS_PER_TTL))
            .filter(|(_, ttl, _)| now < newest.stands_until(*ttl))
            .map(|(resource, ttl, told_at)| (resource.clone(), ttl, told_at))
            .collect();
        if due.is_empty() || self.subscription(resource_type)?.awaits_ack() {
            return None;
        }
        // After a longer silence the client may have forgotten the content, and would refuse this for ever.
        let has_it = |(_, ttl, told_at): &(_, Duration, Option<Instant>)| {
            told_at.is_some_and(|told_at| now <= told_at + *ttl / 2)
        };
        let with_content = self.limits.full_heartbeats || !due.iter().all(has_it);
        let entries: Vec<_> = due
            .iter()
            .map(|(resource, ttl, _)| {
                let Resource { name, version, entry, .. } = &**resource;
                entry_with_ttl(entry, name, *version, *ttl, with_content, self.variant)
            })
            .collect();
        let resources: Vec<Arc<Resource>> = due.into_iter().map(|(resource, ..)| resource).collect();
        let entries = entries.iter().map(Vec::as_slice);
        let held = self.held_resources(resource_type, &newest.snapshot);
        let version = version_info(resource_type, &held);
        let body = match self.variant {
            Variant::Delta => encode::delta_body(resource_type.type_url(), entries, std::iter::empty()),
            Variant::Sotw => encode::sotw_body(resource_type.type_url(), version, entries),
        };
        let before = if with_content { Before::Each(vec![None; resources.len()]) } else { Before::Same };
        let batch = Arc::new(Batch { resources, removed: Vec::new(), body });
        Some(self.send(resource_type, newest, batch, before, Origin::Own, now))
    }

    /// When the next heartbeat is due.
    pub(super) fn next_heartbeat(&self, newest: &Published) -> Option<Instant> {
        if !newest.snapshot.has_ttl() {
            return None;
        }
        let times = ResourceType::ALL.into_iter().flat_map(|resource_type| {
            self.beating(resource_type, newest).filter_map(|(_, ttl, told_at)| {
                let next = told_at? + ttl / BEATS_PER_TTL;
                (next < newest.stands_until(ttl)).then_some(next)
            })
        });
        times.min()
    }

    /// Resources with a TTL that the client has, and when it was last told of each on this stream.
    fn beating<'a>(
        &'a self,
        resource_type: ResourceType,
        newest: &'a Published,
    ) -> impl Iterator<Item = (&'a Arc<Resource>, Duration, Option<Instant>)> {
        let table = newest.snapshot.table(resource_type);
        let subscription = self.subscription(resource_type);
        table.with_ttl().filter_map(move |(resource, ttl)| {
            let subscription = subscription?;
            let held = subscription.holdings.held(&subscription.wants, &resource.name);
            let has_it = matches!(held, Held::Has(mark) if mark.version == resource.version);
            has_it.then(|| (resource, ttl, subscription.told_at.get(&resource.name).copied()))
        })
    }
}
