//! What is looked up when metrics are read, and costs the streams nothing.

use std::time::{Duration, Instant};

use super::Shared;
use crate::metrics::Observed;
use crate::resource_type::{PerType, ResourceType};

/// Clients named as the slowest.
const SLOWEST: usize = 5;

impl Observed for Shared {
    fn pending(&self) -> PerType<u64> {
        let mut pending = PerType::<u64>::default();
        for cell in self.clients.all() {
            let state = cell.lock();
            for resource_type in ResourceType::ALL {
                let subscription = state.stream.subscription(resource_type);
                let waits = subscription.is_some_and(|subscription| subscription.in_flight.is_some());
                pending[resource_type] += u64::from(waits);
            }
        }
        pending
    }

    fn slowest(&self) -> Vec<(String, Duration)> {
        let now = Instant::now();
        let mut clients: Vec<(String, Duration)> = Vec::new();
        for cell in self.clients.all() {
            let state = cell.lock();
            let (Some(node), Some(slowness)) = (&state.node, state.slowness(now)) else { continue };
            let at = clients.partition_point(|(_, other)| *other >= slowness);
            // One node can have several streams.
            if at < SLOWEST && clients[..at].iter().all(|(id, _)| *id != node.id) {
                clients.retain(|(id, _)| *id != node.id);
                clients.insert(at, (node.id.clone(), slowness));
                clients.truncate(SLOWEST);
            }
        }
        clients
    }

    fn quarantined(&self) -> u64 {
        self.groups.all().iter().map(|group| group.quarantined().len() as u64).sum()
    }
}
