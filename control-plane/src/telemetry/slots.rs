use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use arc_swap::ArcSwap;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::metrics::TelemetryMetrics;

/// The scrapes that may be outstanding at once, shared out evenly among the pools: one whose servers hang keeps no slot
/// from another.
#[derive(Debug)]
pub(super) struct Slots {
    most: usize,
    pools: ArcSwap<HashMap<Arc<str>, Arc<Semaphore>>>,
    metrics: TelemetryMetrics,
}

/// A scrape's slot, free again when it is dropped.
#[derive(Debug)]
pub(super) struct Slot {
    _permit: OwnedSemaphorePermit,
    in_use: Gauge,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.in_use.dec();
    }
}

impl Slots {
    pub(super) fn new(most: usize, metrics: TelemetryMetrics) -> Self {
        Self { most: most.max(1), pools: ArcSwap::default(), metrics }
    }

    /// Shares the slots out among these pools. Scrapes under way end in the slots that they have.
    pub(super) fn share(&self, pools: &BTreeSet<Arc<str>>) {
        let held = self.pools.load();
        if held.len() == pools.len() && pools.iter().all(|pool| held.contains_key(pool)) {
            return;
        }
        let each = share(self.most, pools.len());
        let of_pool = |pool: &Arc<str>| (Arc::clone(pool), Arc::new(Semaphore::new(each)));
        self.metrics.forget_pools(held.keys().filter(|pool| !pools.contains(*pool)));
        self.pools.store(Arc::new(pools.iter().map(of_pool).collect()));
    }

    /// Waits for a slot of a pool; none when the pool is gone.
    pub(super) async fn acquire(&self, pool: &str) -> Option<Slot> {
        let slots = self.pools.load().get(pool).cloned()?;
        let permit = slots.acquire_owned().await.ok()?;
        let in_use = self.metrics.slots_in_use(pool);
        in_use.inc();
        Some(Slot { _permit: permit, in_use })
    }
}

/// What one of so many pools has.
fn share(most: usize, pools: usize) -> usize {
    (most / pools.max(1)).max(1)
}
