//! Responses that many streams share: everything but the nonce, encoded once.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::Resource;
use crate::stream::NameSet;
use crate::version::Version;

/// Responses kept for one table, and their bytes in all: as long as a snapshot is the newest, most streams
/// need one of very few.
const MAX_BATCHES: usize = 32;
const MAX_BYTES: usize = 8 << 20;

/// The two forms of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Variant {
    /// Incremental: only what changed, removals by name.
    Delta,
    /// State of the world: what is missing from a response is removed.
    Sotw,
}

/// What a shared response depends on, besides the table that it brings a client to.
#[derive(Clone, Debug)]
pub(crate) struct BatchKey {
    pub(crate) variant: Variant,
    /// The fingerprint of the table that the client has; `None` for one that has nothing.
    pub(crate) base: Option<Version>,
    /// The names that it wants; `None` for all.
    pub(crate) names: Option<Arc<NameSet>>,
}

impl PartialEq for BatchKey {
    fn eq(&self, other: &Self) -> bool {
        // Equal sets are one.
        let same_names = match (&self.names, &other.names) {
            (None, None) => true,
            (Some(own), Some(others)) => Arc::ptr_eq(own, others),
            _ => false,
        };
        same_names && self.variant == other.variant && self.base == other.base
    }
}

/// A response but for its nonce.
#[derive(Debug)]
pub(crate) struct Batch {
    /// Resources that the client does not have yet, sorted by name.
    pub(crate) resources: Vec<Arc<Resource>>,
    /// Names that the client is told, or finds out, to be gone.
    pub(crate) removed: Vec<Arc<str>>,
    /// The encoded message without the field of the nonce.
    pub(crate) body: Bytes,
}

/// The newest of the shared responses to one table.
#[derive(Debug, Default)]
pub(super) struct Batches {
    batches: VecDeque<(BatchKey, Arc<Batch>)>,
    bytes: usize,
}

impl Batches {
    pub(super) fn get(&self, key: &BatchKey) -> Option<Arc<Batch>> {
        self.batches.iter().find(|(of, _)| of == key).map(|(_, batch)| batch.clone())
    }

    pub(super) fn insert(&mut self, key: BatchKey, batch: Arc<Batch>) {
        let bytes = batch.body.len();
        if bytes > MAX_BYTES {
            return;
        }
        while self.batches.len() == MAX_BATCHES || self.bytes + bytes > MAX_BYTES {
            let Some((_, oldest)) = self.batches.pop_front() else { break };
            self.bytes -= oldest.body.len();
        }
        self.bytes += bytes;
        self.batches.push_back((key, batch));
    }
}
