//! Whether a backend's telemetry still means what it meant: metrics that vanish, counters that stand still, values that
//! cannot be. Pure: fed with each page that was read, it tells what changed.

mod candidate;
mod families;
mod fault;
mod plausible;
mod presence;
mod still;

pub(crate) use families::{Findings, Inquiry, inquire};
pub use fault::{DriftEvent, FaultKind, TelemetryFault};

use std::sync::Arc;

use self::plausible::Plausible;
use self::presence::Presence;
use self::still::Still;
use super::field::{Field, FieldSet};
use super::limits::Limits;
use super::page::PageReading;

/// What is watched of one backend; about one kilobyte.
#[derive(Debug, Default)]
pub struct DriftWatch {
    presence: Presence,
    still: Still,
    plausible: Plausible,
    faults: Arc<[TelemetryFault]>,
}

/// One page as it was read, and what is known beside it.
#[derive(Clone, Copy, Debug)]
pub struct Observation<'a> {
    /// The page. Its counters must run since the engine started.
    pub page: &'a PageReading,
    /// Fields that the page's engine promises.
    pub promises: FieldSet,
    /// The engine's limits.
    pub limits: &'a Limits,
    /// True when the counters began anew with this page.
    pub restarted: bool,
    /// Fields that were not looked for, or whose own page could not be read: nothing follows from their absence.
    pub unasked: FieldSet,
}

impl DriftWatch {
    /// What should be looked for on the next page beside its values.
    pub(crate) fn inquiry(&self) -> Inquiry {
        self.presence.inquiry()
    }

    /// Says that the engine did not answer: it may be another one when it does again.
    pub(crate) fn interrupted(&mut self) {
        self.presence.interrupted();
    }

    /// Takes in a page, and returns what began and what ended with it.
    pub(crate) fn observe(&mut self, seen: &Observation<'_>, findings: Findings) -> Vec<DriftEvent> {
        let mut faults = Vec::new();
        let moved = self.still.observe(seen, &mut faults);
        self.presence.observe(seen, moved, findings, &mut faults);
        self.plausible.observe(seen, &mut faults);
        if *faults == *self.faults {
            return Vec::new();
        }
        let same =
            |one: &TelemetryFault, other: &TelemetryFault| one.kind == other.kind && one.field == other.field;
        let began = faults.iter().filter(|fault| !self.faults.iter().any(|held| same(held, fault)));
        let ended = self.faults.iter().filter(|held| !faults.iter().any(|fault| same(held, fault)));
        let events = began
            .map(|fault| DriftEvent::Began(fault.clone()))
            .chain(ended.map(|fault| DriftEvent::Ended(fault.clone())))
            .collect();
        self.faults = faults.into();
        events
    }

    /// What is wrong now.
    pub fn faults(&self) -> Arc<[TelemetryFault]> {
        Arc::clone(&self.faults)
    }
}

/// Fields of which one missing is told; those that come together are told by one.
const WATCHED: [Field; 17] = [
    Field::QueueDepth,
    Field::Running,
    Field::KvUsed,
    Field::KvTokensUsed,
    Field::KvTokens,
    Field::GpuUtilisation,
    Field::MaxRunning,
    Field::TokenBudget,
    Field::Blocks,
    Field::BlockSize,
    Field::TtftCount,
    Field::InterTokenCount,
    Field::QueueWaitCount,
    Field::Completed,
    Field::PromptTokens,
    Field::OutputTokens,
    Field::Iterations,
];

#[cfg(test)]
mod tests;
