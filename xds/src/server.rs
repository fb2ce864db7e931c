//! The server: groups of clients, their newest snapshots, and the streams.

mod cell;
mod collector;
mod control;
mod csds;
mod groups;
mod grpc;
mod health;
mod options;
mod pacer;
mod quarantine;
mod registry;
mod service;
mod session;
mod sharing;

pub use self::csds::VisibleGroups;
pub use self::options::{NodeGroup, ServerOptions};
pub use self::service::{AdsService, DiscoveryService};

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use tokio::runtime::Handle;
use tokio::sync::{broadcast, watch};
use tonic::Status;
use tonic::service::{Routes, RoutesBuilder};

use self::control::Control;
use self::groups::{Change, Group, Groups};
use self::pacer::{Pace, PacerLimits};
use self::registry::Clients;
use crate::clients::{ClientEvent, ClientStatus, Quarantined, Service};
use crate::delivery::Delivery;
use crate::metrics::Metrics;
use crate::snapshot::Snapshot;
use crate::stream::{NameSets, Stream};

/// Serves snapshots to the clients of each group. Clones are handles of the same server.
///
/// A node belongs to the group that [`ServerOptions::node_group`] names. Its streams are sent the newest
/// snapshot of that group, and each one published after it. A stream that comes before the first snapshot
/// of its group, or whose node has no group, stays open and is not answered, so that the client keeps what
/// it has; see [`XdsServer::regroup`].
#[derive(Clone, Debug)]
pub struct XdsServer {
    shared: Arc<Shared>,
}

/// What all streams see.
#[derive(Debug)]
struct Shared {
    options: ServerOptions,
    groups: Groups,
    clients: Clients,
    names: Arc<NameSets>,
    events: broadcast::Sender<ClientEvent>,
    metrics: Metrics,
    control: Control,
    /// Whether there is a state to serve, and the server is not about to go.
    ready: watch::Sender<bool>,
    open_streams: AtomicUsize,
    next_stream: AtomicU64,
    /// The runtime of the streams, to be woken on later.
    runtime: OnceLock<Handle>,
    /// Differs between runs of the server, so that nonces of an earlier one are not taken for its own.
    epoch: u64,
}

impl XdsServer {
    /// Returns a server without snapshots, whose metrics are not exported.
    pub fn new(options: ServerOptions) -> Self {
        Self::with_metrics(options, Metrics::unregistered())
    }

    /// Returns a server without snapshots.
    pub fn with_metrics(options: ServerOptions, metrics: Metrics) -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let (min, max) = options.pace;
        let shared = Arc::new(Shared {
            groups: Groups::new(PacerLimits { min, max: max.max(min) }),
            clients: Clients::default(),
            names: Arc::default(),
            events: broadcast::Sender::new(options.event_capacity.max(1)),
            metrics,
            control: Control::default(),
            ready: watch::Sender::new(false),
            open_streams: AtomicUsize::new(0),
            next_stream: AtomicU64::new(0),
            runtime: OnceLock::new(),
            epoch: since_epoch.as_micros() as u64,
            options,
        });
        shared.metrics.observe(Arc::downgrade(&shared) as _);
        Self { shared }
    }

    /// Makes `snapshot` what the group is to have. Swaps a pointer and wakes the streams of the group, at
    /// once or, in a burst of changes, at most [`ServerOptions::pace`] later; waits for none of them.
    ///
    /// Publishing what is published already sends nothing. It [confirms](Self::confirm) it.
    ///
    /// Returns what becomes of the endpoints, when these are other ones than before.
    pub fn publish(&self, group: &str, snapshot: Snapshot) -> Option<Delivery> {
        let now = Instant::now();
        let (group, change, delivery) = self.shared.groups.publish(group, snapshot, now);
        if matches!(change, Change::Wake(..)) {
            self.shared.metrics.publishes.inc();
        }
        self.shared.wake(&group, change, now);
        let control = &self.shared.control;
        self.shared.ready.send_if_modified(|ready| !control.is_draining() && !std::mem::replace(ready, true));
        delivery
    }

    /// Says that what was published last for the group is still as it should be: resources with a TTL are kept up
    /// only as long as the publisher says so within each half of it. To be called by whoever decides, not by a timer
    /// of its own. False when nothing was published.
    pub fn confirm(&self, group: &str) -> bool {
        let now = Instant::now();
        let Some(group) = self.shared.groups.get(group) else { return false };
        let Some(change) = group.confirm(now) else { return false };
        self.shared.wake(&group, change, now);
        true
    }

    /// Takes the snapshot of the group back, and frees it: for a group that is gone for good. Streams of the
    /// group stay open and are not answered, so that their clients keep what they have, until there is another
    /// snapshot. False if the group had none.
    pub fn withdraw(&self, group: &str) -> bool {
        self.shared.groups.withdraw(group)
    }

    /// What was published last for the group.
    pub fn newest(&self, group: &str) -> Option<Snapshot> {
        self.shared.groups.get(group)?.wanted()
    }

    /// Asks [`ServerOptions::node_group`] again for the node of every stream. A stream whose node has a new
    /// group is sent what differs; one whose node has none any more keeps what it has.
    pub fn regroup(&self) {
        self.shared.control.regroup();
        self.shared.clients.wake();
    }

    /// All services of the server: the aggregated discovery service and those of each type, in both variants,
    /// the client status discovery service (CSDS), and health (`grpc.health.v1`). For
    /// [`serve`](crate::serve), or for [`tonic::transport::Server::add_routes`].
    pub fn routes(&self) -> Routes {
        let mut routes = RoutesBuilder::default();
        self.shared.add_services(&mut routes);
        routes.add_service(csds::service(self.shared.clone()));
        routes.add_service(health::service(self.shared.clone()));
        routes.routes()
    }

    /// The aggregated discovery service alone, to add to a [`tonic::transport::Server`].
    pub fn service(&self) -> AdsService {
        AdsService::new(self.shared.clone())
    }

    /// Every open stream that has sent a request.
    pub fn clients(&self) -> Vec<ClientStatus> {
        self.shared.clients.all().iter().filter_map(|cell| cell.status()).collect()
    }

    /// Resources that so many clients refused that their group was put back to what it had before.
    pub fn quarantined(&self) -> Vec<Quarantined> {
        let of_group = |group: Arc<Group>| {
            let quarantined = group.quarantined().into_iter();
            quarantined.map(move |(poison, since)| Quarantined {
                group: group.name().clone(),
                resource_type: poison.resource_type,
                resource: poison.name,
                version: poison.version,
                since,
            })
        };
        self.shared.groups.all().into_iter().flat_map(of_group).collect()
    }

    /// What happens to clients from now on. A receiver that falls behind by more than
    /// [`ServerOptions::event_capacity`] misses the oldest events and is told how many.
    pub fn events(&self) -> broadcast::Receiver<ClientEvent> {
        self.shared.events.subscribe()
    }

    /// Refuses new streams with `UNAVAILABLE` and says in the health service that the server does not serve.
    /// Open streams go on: to be called with the signal that [`serve`](crate::serve) serves until, which then
    /// ends them one connection after the other.
    pub fn drain(&self) {
        self.shared.control.drain();
        self.shared.ready.send_replace(false);
    }

    /// Ends every stream, and each new one, with `UNAVAILABLE`, all at once.
    ///
    /// Clients go elsewhere when their connections end too: to be called when the signal is given that a
    /// [`tonic::transport::Server`] serves until, which would otherwise wait for the streams. A client that
    /// does not read holds its connection, so that wait needs a limit.
    pub fn shutdown(&self) {
        self.shared.control.shut_down();
        self.shared.ready.send_replace(false);
        self.shared.clients.wake();
    }
}

impl Shared {
    /// Takes one of the places for streams.
    fn admit(self: &Arc<Self>, service: Service) -> Result<Admission, Status> {
        let refuse = |status| {
            self.metrics.streams_rejected.inc();
            Err(status)
        };
        if self.control.is_draining() {
            return refuse(Status::unavailable("the server is shutting down"));
        }
        let limit = self.options.max_streams;
        let taken = self
            .open_streams
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |open| (open < limit).then_some(open + 1));
        if taken.is_err() {
            return refuse(Status::resource_exhausted(format!("{limit} streams are open, the limit")));
        }
        if let Ok(runtime) = Handle::try_current() {
            self.runtime.get_or_init(|| runtime);
        }
        self.metrics.stream_opened(service.variant);
        Ok(Admission { shared: self.clone(), id: self.next_stream.fetch_add(1, Ordering::Relaxed), service })
    }

    fn new_stream(&self, admission: &Admission, service: Service) -> Stream {
        let prefix = format!("{:x}-{:x}-", self.epoch, admission.id);
        let limits = self.options.stream_limits();
        Stream::new(service.variant, service.only, &prefix, limits, self.names.clone(), Instant::now())
    }

    /// Wakes the streams of a group when it is time.
    fn wake(&self, group: &Arc<Group>, change: Change, now: Instant) {
        match change {
            Change::Nothing | Change::Wake(Pace::Arranged, _) => {}
            Change::Wake(Pace::Now, _) => group.wake(),
            Change::Wake(Pace::At(at), kind) => match self.runtime.get() {
                Some(runtime) => {
                    let group = group.clone();
                    runtime.spawn(async move {
                        tokio::time::sleep_until(at.into()).await;
                        group.fire(kind, Instant::now());
                    });
                }
                // There has been no stream yet.
                None => group.fire(kind, now),
            },
        }
    }
}

/// A place for a stream, given back when dropped.
#[derive(Debug)]
struct Admission {
    shared: Arc<Shared>,
    id: u64,
    service: Service,
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.shared.open_streams.fetch_sub(1, Ordering::Relaxed);
        self.shared.metrics.stream_closed(self.service.variant);
    }
}
