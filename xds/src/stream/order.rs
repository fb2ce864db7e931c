//! Make before break: what has to wait for what on one stream.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::holdings::Held;
use super::plan::Plan;
use super::subscription::Withheld;
use super::{Published, Stream, Variant};
use crate::resource_type::ResourceType;
use crate::snapshot::{Resource, Snapshot};

/// The longest time that a cluster is kept for a client that names it, after the client has ACKed the routes
/// that no longer do. It needs to get the next cluster and its endpoints, which takes it milliseconds.
const IN_USE_HOLD: Duration = Duration::from_secs(2);

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

impl Stream {
    /// True when everything that a listener or a route sends requests to has been sent before it. `in_use`
    /// says that the client has some version of it.
    ///
    /// This holds only for clients that get every cluster. One that asks for clusters by name does so when
    /// it has the route, and would wait for ever.
    pub(super) fn may_refer(
        &self,
        resource_type: ResourceType,
        resource: &Resource,
        in_use: bool,
        newest: &Snapshot,
    ) -> bool {
        if !matches!(resource_type, ResourceType::Listener | ResourceType::RouteConfiguration) {
            return true;
        }
        let Some(clusters) = self.subscription(ResourceType::Cluster) else { return true };
        if resource.clusters.is_empty() || !clusters.wants.wildcard {
            return true;
        }
        let table = newest.table(ResourceType::Cluster);
        let endpoints = newest.table(ResourceType::ClusterLoadAssignment);
        let assignments = self.subscription(ResourceType::ClusterLoadAssignment);
        let has_all = |assignments: &super::Subscription| {
            assignments.holdings.is_exactly(endpoints)
                && assignments.wants.hash().is_none_or(|names| names == endpoints.names_hash())
        };
        if clusters.holdings.is_exactly(table) && assignments.is_some_and(has_all) {
            return true;
        }
        resource.clusters.iter().filter_map(|name| table.get(name)).all(|cluster| {
            let held = clusters.holdings.held(&clusters.wants, &cluster.name);
            let assignment_sent = match (&cluster.assignment, assignments) {
                (None, _) => true,
                (Some(name), Some(assignments)) if assignments.wants.covers(name) => {
                    was_sent(&assignments.holdings.held(&assignments.wants, name), in_use)
                }
                // The client asks for endpoints once it has the cluster: it has done so, or will not,
                // by the time of the ACK. In SotW it may have asked in a request that was stale, and says so
                // again with its answer to the newest response.
                (_, assignments) => {
                    let may_be_stale = self.variant == Variant::Sotw
                        && assignments.is_some_and(super::Subscription::awaits_ack);
                    let is_new = clusters.awaits_ack() && clusters.is_in_flight(&cluster.name);
                    !(may_be_stale || is_new)
                }
            };
            was_sent(&held, in_use) && assignment_sent
        })
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
        let hold = self.limits.removal_hold;
        let lets_go = resource_type == ResourceType::Cluster
            && [ResourceType::Listener, ResourceType::RouteConfiguration]
                .into_iter()
                .any(|referrer| self.subscription(referrer).is_some());
        let Some(subscription) = &mut self.subscriptions[resource_type] else { return Vec::new() };
        let wants = &subscription.wants;
        // It goes on using a cluster that it names until it has the next one.
        let is_in_use = |name: &Arc<str>| lets_go && !wants.wildcard && wants.names.contains(name);
        let withheld = &mut subscription.withheld;
        withheld.retain(|name, _| plan.withdraw.binary_search(name).is_ok());
        let mut released = Vec::new();
        for name in &plan.withdraw {
            let until = withheld.get(name).copied();
            let is_due = |until: Withheld| now >= until.until;
            let may_go = match progress {
                Progress::Done if !is_in_use(name) => true,
                Progress::Done => match until {
                    Some(until @ Withheld { for_client: true, .. }) => is_due(until),
                    _ => {
                        let until = Withheld {
                            until: now + hold.min(IN_USE_HOLD),
                            for_client: true,
                            state: newest.number,
                        };
                        withheld.insert(name.clone(), until);
                        false
                    }
                },
                Progress::Pending => match until {
                    Some(until) => overdue_too && is_due(until),
                    None => {
                        let until = Withheld { until: now + hold, for_client: false, state: newest.number };
                        withheld.insert(name.clone(), until);
                        false
                    }
                },
                // Until the next state: what the client refused is then the refused one's matter alone.
                Progress::Refused => match until {
                    Some(until) if until.state != newest.number => overdue_too && is_due(until),
                    _ => {
                        let until = Withheld { until: now + hold, for_client: false, state: newest.number };
                        withheld.insert(name.clone(), until);
                        false
                    }
                },
            };
            if may_go {
                released.push(name.clone());
            }
        }
        released
    }

    fn progress(&self, resource_type: ResourceType, newest: &Snapshot, now: Instant) -> Progress {
        let Some(subscription) = self.subscription(resource_type) else {
            // A client that comes back asks for its listeners and routes in a moment.
            let expected = self.returning
                && self.only.is_none()
                && resource_type != ResourceType::Cluster
                && now < self.started_at + self.limits.removal_hold;
            return if expected { Progress::Pending } else { Progress::Done };
        };
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

/// True when some version was sent, leaving out one that was refused where something in use would suffer.
fn was_sent(held: &Held, in_use: bool) -> bool {
    held.mark().is_some() || (!in_use && matches!(held, Held::Refused { .. }))
}
