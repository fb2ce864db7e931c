use uuid::Uuid;

use crate::telemetry::Sample;

/// What tells the database whether it has a batch already: who made it, and which of his it is. The database keeps the
/// greatest number of each writer, so the numbers of one writer must arrive in order, and never twice with other rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) struct BatchId {
    pub(in crate::store) writer: Uuid,
    pub(in crate::store) number: i64,
}

/// Samples that are written in one transaction.
#[derive(Debug, PartialEq)]
pub(in crate::store) struct Batch {
    pub(in crate::store) id: BatchId,
    pub(in crate::store) samples: Vec<Sample>,
}

/// Numbers the batches of one writer.
#[derive(Debug)]
pub(in crate::store) struct Ids {
    last: BatchId,
}

impl Ids {
    pub(in crate::store) fn new() -> Self {
        Self { last: BatchId { writer: Uuid::new_v4(), number: 0 } }
    }

    pub(in crate::store) fn next(&mut self) -> BatchId {
        self.last.number += 1;
        self.last
    }

    /// Starts again as another writer: what the one before left behind may arrive later than what comes now.
    pub(in crate::store) fn renew(&mut self) {
        *self = Self::new();
    }
}
