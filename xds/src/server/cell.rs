//! One open stream, as the rest of the server sees it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use envoy_types::pb::envoy::config::core::v3::Node;
use futures::task::AtomicWaker;

use super::groups::Group;
use crate::clients::{ClientId, ClientStatus, Nack, Service, SyncState, TypeStatus};
use crate::resource_type::ResourceType;
use crate::stream::{Published, Stream};
use crate::transport::Peer;

/// A stream: its state, and how to wake the task that drives it. The lock is held for a step of the state
/// machine, by that task, or for a look, by whoever asks about clients.
#[derive(Debug)]
pub(super) struct Cell {
    pub(super) id: ClientId,
    pub(super) service: Service,
    pub(super) peer: Option<Arc<Peer>>,
    pub(super) waker: AtomicWaker,
    state: Mutex<CellState>,
}

#[derive(Debug)]
pub(super) struct CellState {
    pub(super) stream: Stream,
    /// Known from the first request on.
    pub(super) node: Option<Arc<Node>>,
    pub(super) connected_at: SystemTime,
    pub(super) group: Option<Arc<Group>>,
    pub(super) last_nack: Option<Box<Nack>>,
    /// How long the last ACK took from publishing.
    pub(super) last_latency: Option<Duration>,
    /// The number of the newest state that the client was seen to have.
    pub(super) synced: u64,
}

impl Cell {
    pub(super) fn new(id: ClientId, service: Service, peer: Option<Arc<Peer>>, stream: Stream) -> Self {
        let state = CellState {
            stream,
            node: None,
            connected_at: SystemTime::now(),
            group: None,
            last_nack: None,
            last_latency: None,
            synced: 0,
        };
        Self { id, service, peer, waker: AtomicWaker::new(), state: Mutex::new(state) }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, CellState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None` before the first request.
    pub(super) fn status(&self) -> Option<ClientStatus> {
        let state = self.lock();
        let node = state.node.as_ref()?;
        let mut status = ClientStatus::new(self.id, node, self.service, self.peer.clone());
        status.connected_at = state.connected_at;
        status.group = state.group.as_ref().map(|group| group.name().clone());
        status.sync = state.sync();
        status.types = ResourceType::ALL.map(|resource_type| {
            let subscription = state.stream.subscription(resource_type);
            (
                resource_type,
                subscription.map_or_else(TypeStatus::default, |subscription| subscription.status()),
            )
        });
        status.last_nack = state.last_nack.as_deref().cloned();
        Some(status)
    }
}

impl CellState {
    pub(super) fn newest(&self) -> Option<Arc<Published>> {
        self.group.as_ref().and_then(|group| group.newest())
    }

    pub(super) fn sync(&self) -> SyncState {
        match self.newest() {
            Some(newest) if self.stream.refuses(&newest.snapshot) => SyncState::Nacked,
            Some(newest) if self.stream.in_sync(&newest.snapshot) => SyncState::InSync,
            _ => SyncState::Pending,
        }
    }

    /// How long the client has kept the server waiting: for the ACK that is due, or else for the last one.
    pub(super) fn slowness(&self, now: Instant) -> Option<Duration> {
        let subscriptions = ResourceType::ALL.into_iter().filter_map(|t| self.stream.subscription(t));
        let in_flight = subscriptions.filter_map(|subscription| subscription.in_flight.as_ref());
        let waiting = in_flight.map(|sent| now.saturating_duration_since(sent.caused_at)).max();
        waiting.max(self.last_latency)
    }
}
