use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::store::{
    AcknowledgementRow, BackendRow, CheckpointRow, DecisionRow, DemandRow, EventRow, ForecastRow, PageRow,
    Refusal, RegisteredState,
};

use super::super::control::{MEMBERSHIP, WEIGHTS};

const MIB: usize = 1024 * 1024;

/// What is written down besides telemetry.
#[derive(Clone, Debug)]
pub(crate) enum Entry {
    Decision(Box<DecisionRow>),
    Acknowledgements(Vec<AcknowledgementRow>),
    Forecasts(Vec<ForecastRow>),
    Demand { step_seconds: u32, rows: Vec<DemandRow> },
    ModelState { kind: &'static str, key: String, at: DateTime<Utc>, state: Value },
    Event(EventRow),
    Page(Box<PageRow>),
    Checkpoint(Box<CheckpointRow>),
    Backends(Vec<BackendRow>),
    Registered { pool: String, address: String, state: RegisteredState, at: DateTime<Utc> },
    Unregistered { pool: String, address: String },
}

/// An entry as it waits.
#[derive(Debug)]
pub(super) enum Item {
    /// With about as many bytes as it takes.
    Entry(Entry, usize),
    /// As text, which takes a fraction of the memory of a tree.
    Model { kind: &'static str, key: String, at: DateTime<Utc>, state: Box<str> },
}

/// What may wait while the database is away, in all 256 MiB: each kind of entry has its own share, and what is beyond it is
/// dropped, the newest first.
#[derive(Clone, Copy, Debug)]
pub(super) enum Share {
    /// Inputs and checkpoints for replay.
    Recorded,
    /// Models of backends and of demand.
    Learned,
    /// Decisions, forecasts, demand and events.
    Told,
    /// Who is registered and found, leases, and published weights.
    Promised,
}

impl Share {
    pub(super) const ALL: [Self; 4] = [Self::Recorded, Self::Learned, Self::Told, Self::Promised];

    pub(super) fn most_bytes(self) -> usize {
        match self {
            Self::Recorded | Self::Told => 64 * MIB,
            Self::Learned => 96 * MIB,
            Self::Promised => 32 * MIB,
        }
    }
}

impl Item {
    /// `None` when a state cannot be written as JSON.
    pub(super) fn new(entry: Entry) -> Option<Self> {
        match entry {
            Entry::ModelState { kind, key, at, state } => {
                let state = serde_json::to_string(&state).ok()?.into_boxed_str();
                Some(Self::Model { kind, key, at, state })
            }
            entry => {
                let bytes = size_of::<Self>() + entry.bytes();
                Some(Self::Entry(entry, bytes))
            }
        }
    }

    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Entry(_, bytes) => *bytes,
            Self::Model { key, state, .. } => size_of::<Self>() + 2 * key.len() + state.len(),
        }
    }

    pub(super) fn share(&self) -> Share {
        match self {
            Self::Model { kind: MEMBERSHIP | WEIGHTS, .. }
            | Self::Entry(Entry::Registered { .. } | Entry::Unregistered { .. }, _) => Share::Promised,
            Self::Model { .. } => Share::Learned,
            Self::Entry(Entry::Page(_) | Entry::Checkpoint(_), _) => Share::Recorded,
            Self::Entry(..) => Share::Told,
        }
    }
}

impl Entry {
    /// About as many bytes as it has on the heap.
    fn bytes(&self) -> usize {
        match self {
            Self::Decision(row) => {
                let texts = row.kind.len() + row.model.len() + row.summary.len();
                size_of::<DecisionRow>() + texts + value_bytes(&row.inputs) + value_bytes(&row.changes)
            }
            Self::Acknowledgements(rows) => {
                let refusals = |row: &AcknowledgementRow| -> usize {
                    let texts = row.refusals.iter().map(|refusal| refusal.node.len() + refusal.reason.len());
                    texts.map(|bytes| bytes + size_of::<Refusal>()).sum()
                };
                rows.iter().map(|row| size_of::<AcknowledgementRow>() + refusals(row)).sum()
            }
            Self::Forecasts(rows) => {
                rows.iter().map(|row| size_of::<ForecastRow>() + row.model.len() + row.expert.len()).sum()
            }
            Self::Demand { rows, .. } => {
                rows.iter().map(|row| size_of::<DemandRow>() + row.model.len()).sum()
            }
            Self::ModelState { key, state, .. } => key.len() + value_bytes(state),
            Self::Event(row) => row.message.len(),
            Self::Page(row) => size_of::<PageRow>() + row.page.len(),
            Self::Checkpoint(row) => {
                size_of::<CheckpointRow>() + row.core.len() + row.pending.len() + row.learner.len()
            }
            Self::Backends(rows) => {
                let texts = |row: &BackendRow| row.address.len() + row.pool.len() + row.model.len();
                rows.iter().map(|row| size_of::<BackendRow>() + texts(row)).sum()
            }
            // Their names are kept twice, as the key, too.
            Self::Registered { pool, address, .. } | Self::Unregistered { pool, address } => {
                2 * (pool.len() + address.len() + size_of::<String>())
            }
        }
    }
}

/// Bytes of a tree of JSON on the heap, beside those of its root.
fn value_bytes(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        Value::String(text) => text.len(),
        Value::Array(values) => values.iter().map(|value| size_of::<Value>() + value_bytes(value)).sum(),
        Value::Object(fields) => {
            let field = |(name, value): (&String, &Value)| {
                size_of::<String>() + size_of::<Value>() + name.len() + value_bytes(value)
            };
            fields.iter().map(field).sum()
        }
    }
}
