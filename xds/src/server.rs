//! The server: groups of clients, their newest snapshots, and the streams.

mod codec;
mod groups;
mod options;
mod service;
mod session;

pub use self::options::{NodeGroup, ServerOptions};
pub use self::service::AdsService;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::{broadcast, watch};

use self::groups::Groups;
use crate::clients::{ClientEvent, ClientStatus, Clients, SyncState};
use crate::metrics::Metrics;
use crate::snapshot::Snapshot;
use crate::stream::Published;

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
    events: broadcast::Sender<ClientEvent>,
    metrics: Metrics,
    control: watch::Sender<Control>,
    open_streams: AtomicUsize,
    next_stream: AtomicU64,
    /// Differs between runs of the server, so that nonces of an earlier one are not taken for its own.
    epoch: u64,
}

/// Orders to all streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Control {
    shutting_down: bool,
    regroupings: u64,
}

impl XdsServer {
    /// Returns a server without snapshots, whose metrics are not exported.
    pub fn new(options: ServerOptions) -> Self {
        Self::with_metrics(options, Metrics::unregistered())
    }

    /// Returns a server without snapshots.
    pub fn with_metrics(options: ServerOptions, metrics: Metrics) -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let shared = Shared {
            groups: Groups::default(),
            clients: Clients::default(),
            events: broadcast::Sender::new(options.event_capacity.max(1)),
            metrics,
            control: watch::Sender::default(),
            open_streams: AtomicUsize::new(0),
            next_stream: AtomicU64::new(0),
            epoch: since_epoch.as_micros() as u64,
            options,
        };
        Self { shared: Arc::new(shared) }
    }

    /// Makes `snapshot` the newest one of the group. Swaps a pointer and wakes the streams of the group;
    /// waits for none of them. Publishing what is published already does nothing.
    pub fn publish(&self, group: &str, snapshot: Snapshot) {
        let published = Arc::new(Published { snapshot, at: Instant::now() });
        if self.shared.groups.publish(group, published) {
            self.shared.metrics.publishes.inc();
        }
    }

    /// Takes the snapshot of the group back, and frees it: for a group that is gone for good. Streams of the
    /// group stay open and are not answered, so that their clients keep what they have, until there is another
    /// snapshot. False if the group had none.
    pub fn withdraw(&self, group: &str) -> bool {
        self.shared.groups.withdraw(group)
    }

    /// The newest snapshot of the group.
    pub fn newest(&self, group: &str) -> Option<Snapshot> {
        self.shared.groups.newest(group).map(|published| published.snapshot.clone())
    }

    /// Asks [`ServerOptions::node_group`] again for the node of every stream. A stream whose node has a new
    /// group is sent what differs; one whose node has none any more keeps what it has.
    pub fn regroup(&self) {
        self.shared.control.send_modify(|control| control.regroupings += 1);
    }

    /// The service to add to a [`tonic::transport::Server`].
    pub fn service(&self) -> AdsService {
        AdsService::new(self.shared.clone())
    }

    /// Every open stream that has sent a request.
    pub fn clients(&self) -> Vec<ClientStatus> {
        let mut clients = self.shared.clients.all();
        for client in &mut clients {
            let newest = client.group.as_deref().and_then(|group| self.shared.groups.newest(group));
            let seen = client.snapshot_seen.upgrade();
            let is_newest = match (&newest, &seen) {
                (Some(newest), Some(seen)) => Arc::ptr_eq(newest, seen),
                _ => false,
            };
            if !is_newest {
                client.sync = SyncState::Pending;
            }
        }
        clients
    }

    /// What happens to clients from now on. A receiver that falls behind by more than
    /// [`ServerOptions::event_capacity`] misses the oldest events and is told how many.
    pub fn events(&self) -> broadcast::Receiver<ClientEvent> {
        self.shared.events.subscribe()
    }

    /// Ends every stream, and each new one, with `UNAVAILABLE`.
    ///
    /// Clients go elsewhere when their connections end too: to be called when the signal is given that the
    /// [`tonic::transport::Server`] serves until, which would otherwise wait for the streams. A client that
    /// does not read holds its connection, so that wait needs a limit.
    pub fn shutdown(&self) {
        self.shared.control.send_modify(|control| control.shutting_down = true);
    }
}

impl Shared {
    /// Takes one of the places for streams.
    fn admit(self: &Arc<Self>) -> Result<Admission, tonic::Status> {
        let refuse = |status| {
            self.metrics.streams_rejected.inc();
            Err(status)
        };
        if self.control.borrow().shutting_down {
            return refuse(tonic::Status::unavailable("the server is shutting down"));
        }
        let limit = self.options.max_streams;
        let taken = self
            .open_streams
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |open| (open < limit).then_some(open + 1));
        if taken.is_err() {
            return refuse(tonic::Status::resource_exhausted(format!("{limit} streams are open, the limit")));
        }
        self.metrics.streams.inc();
        Ok(Admission { shared: self.clone(), id: self.next_stream.fetch_add(1, Ordering::Relaxed) })
    }
}

/// A place for a stream, given back when dropped.
#[derive(Debug)]
struct Admission {
    shared: Arc<Shared>,
    id: u64,
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.shared.open_streams.fetch_sub(1, Ordering::Relaxed);
        self.shared.metrics.streams.dec();
    }
}
