use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::run::Input;
use crate::store::DecisionRow;
use crate::telemetry::Sample;

/// One row of an export, in the order in which it came about.
#[derive(Debug)]
pub struct Row(pub(super) Kind);

#[derive(Debug)]
pub(super) enum Kind {
    /// What the file is about; the first row.
    Scope(Scope),
    /// All that decisions depend on at this point, as JSON: `at`, `core`, `pending` and `learner`.
    Checkpoint(String),
    /// Telemetry, and when it was taken in.
    Sample(DateTime<Utc>, Box<Sample>),
    /// So many of the learner's oldest findings were taken in.
    Learned { waits: u32, forecasts: u32, signs: u32 },
    /// Anything else that was taken in.
    Input(Box<Input>),
    /// What was decided then.
    Decision(Box<DecisionRow>),
    /// From here on something is missing, until the next checkpoint.
    Gap(Gap),
}

/// What an export holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    /// Decisions from this time on count; rows before it only lead there.
    pub from: DateTime<Utc>,
    /// Decisions before this time count.
    pub to: DateTime<Utc>,
    /// The one model that it is about; all, if none.
    pub model: Option<String>,
    /// Whether the file has the ticks and the order of a controller. If not, a replay makes ticks of its own.
    pub ordered: bool,
    /// The program that wrote it.
    pub program: String,
}

/// Something that is missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Gap {
    pub(super) at: DateTime<Utc>,
    pub(super) why: String,
}

impl Row {
    /// The decision that was recorded, if it is one.
    #[must_use]
    pub fn decision(&self) -> Option<&DecisionRow> {
        match &self.0 {
            Kind::Decision(decision) => Some(decision),
            _ => None,
        }
    }
}
