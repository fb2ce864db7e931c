//! Make before break: what has to wait for what on one stream.

use std::sync::Arc;
use std::time::Instant;

use super::plan::Plan;
use super::subscription::Held;
use super::{DeltaStream, Published};
use crate::resource_type::ResourceType;
use crate::snapshot::{Resource, Snapshot};

/// How far the client is with one type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Progress {
    /// Everything has been sent and ACKed.
    Done,
    Pending,
    /// The client refused something of this state, so it may go on using what the last one had.
    Refused,
}

/// The types that can refer to a resource of a type, which therefore must be done before a removal.
const fn referrers(resource_type: ResourceType) -> &'static [ResourceType] {
    use ResourceType::{Cluster, ClusterLoadAssignment, Listener, RouteConfiguration, Runtime, Secret};
    match resource_type {
        Cluster => &[Listener, RouteConfiguration],
        ClusterLoadAssignment => &[Cluster, Listener, RouteConfiguration],
        Secret => &[Cluster, Listener],
        Listener | Runtime => &[],
        RouteConfiguration => &[Listener],
    }
}

impl DeltaStream {
    /// True when everything that a listener or a route sends requests to has been sent before it.
    ///
    /// This holds only for clients that get every cluster. One that asks for clusters by name does so when
    /// it has the route, and would wait for ever.
    pub(super) fn may_refer(
        &self,
        resource_type: ResourceType,
        resource: &Resource,
        held: Option<Held>,
        newest: &Snapshot,
    ) -> bool {
        if !matches!(resource_type, ResourceType::Listener | ResourceType::RouteConfiguration) {
            return true;
        }
        let clusters = &self.subscriptions[ResourceType::Cluster];
        if !clusters.wildcard {
            return true;
        }
        let assignments = &self.subscriptions[ResourceType::ClusterLoadAssignment];
        // With nothing in use yet there is nothing to lose by a reference to a refused resource.
        let in_use = has(held);
        resource.clusters.iter().filter_map(|name| newest.table(ResourceType::Cluster).get(name)).all(
            |cluster| {
                let held = clusters.held.get(&cluster.name).copied();
                let assignment = cluster.assignment.as_ref();
                let assignment_sent = match assignment {
                    None => true,
                    Some(name) if assignments.covers(name) => {
                        was_sent(assignments.held.get(name).copied(), in_use)
                    }
                    // The client asks for endpoints once it has the cluster: it has done so, or will not,
                    // by the time of the ACK.
                    Some(_) => match held {
                        Some(Held::Sent { acked, .. }) => acked || !clusters.awaits_ack(),
                        _ => true,
                    },
                };
                was_sent(held, in_use) && assignment_sent
            },
        )
    }

    /// The removals of a plan that may go now. The others are remembered, with the time since when.
    pub(super) fn release(
        &mut self,
        resource_type: ResourceType,
        plan: &Plan,
        newest: &Published,
        overdue_too: bool,
        now: Instant,
    ) -> Vec<Arc<str>> {
        let progress = if plan.withdraw.is_empty() {
            Progress::Done
        } else {
            let of = |referrer: &ResourceType| self.progress(*referrer, &newest.snapshot, now);
            referrers(resource_type).iter().map(of).max().unwrap_or(Progress::Done)
        };
        let limit = self.limits.removal_hold;
        let withheld = &mut self.subscriptions[resource_type].withheld;
        withheld.retain(|name, _| plan.withdraw.contains(name));
        match progress {
            Progress::Done => plan.withdraw.clone(),
            Progress::Pending => {
                let since =
                    plan.withdraw.iter().map(|name| (name, *withheld.entry(name.clone()).or_insert(now)));
                since
                    .filter(|(_, since)| overdue_too && now.saturating_duration_since(*since) >= limit)
                    .map(|(name, _)| name.clone())
                    .collect()
            }
            Progress::Refused => {
                withheld.extend(plan.withdraw.iter().map(|name| (name.clone(), now)));
                Vec::new()
            }
        }
    }

    fn progress(&self, resource_type: ResourceType, newest: &Snapshot, now: Instant) -> Progress {
        let subscription = &self.subscriptions[resource_type];
        if !subscription.started {
            // A client that comes back asks for its listeners and routes in a moment.
            let expected = self.returning
                && resource_type != ResourceType::Cluster
                && now < self.started_at + self.limits.removal_hold;
            return if expected { Progress::Pending } else { Progress::Done };
        }
        let plan = self.plan(resource_type, newest);
        if plan.refused {
            Progress::Refused
        } else if subscription.awaits_ack() || !plan.is_settled() {
            Progress::Pending
        } else {
            Progress::Done
        }
    }
}

/// True when the client has some version.
fn has(held: Option<Held>) -> bool {
    matches!(held, Some(Held::Sent { .. } | Held::Refused { had: true, .. }))
}

/// True when some version was sent, leaving out one that was refused where something in use would suffer.
fn was_sent(held: Option<Held>, in_use: bool) -> bool {
    has(held) || (!in_use && matches!(held, Some(Held::Refused { .. })))
}
