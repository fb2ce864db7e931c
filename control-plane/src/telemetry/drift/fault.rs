use std::fmt::{self, Write};

use prometheus_client::encoding::{EncodeLabelValue, LabelValueEncoder};
use serde::{Deserialize, Serialize};

use crate::telemetry::field::Field;

/// What is wrong with a backend's telemetry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TelemetryFault {
    /// Of what kind it is.
    pub kind: FaultKind,
    /// Which quantity it is about; none: all of them.
    pub field: Option<Field>,
    /// What was seen.
    pub detail: String,
}

/// Kinds of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// A metric that was there is gone.
    Vanished,
    /// A metric that the engine is known to export was never there.
    NeverSeen,
    /// A number stands still while others show that it should not.
    StandsStill,
    /// All numbers stand still while requests are there.
    Frozen,
    /// Values are dropped again and again.
    Implausible,
    /// More than the engine's limits allow.
    AboveLimit,
}

impl FaultKind {
    /// The kind's name in labels and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Vanished => "vanished",
            Self::NeverSeen => "never_seen",
            Self::StandsStill => "stands_still",
            Self::Frozen => "frozen",
            Self::Implausible => "implausible",
            Self::AboveLimit => "above_limit",
        }
    }
}

impl EncodeLabelValue for FaultKind {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        encoder.write_str(self.as_str())
    }
}

impl fmt::Display for TelemetryFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(field) = self.field {
            write!(f, "{field} ")?;
        }
        f.write_str(&self.detail)
    }
}

/// A fault that began or ended with a page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DriftEvent {
    /// It is new.
    Began(TelemetryFault),
    /// It is over.
    Ended(TelemetryFault),
}

impl fmt::Display for DriftEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Began(fault) => fault.fmt(f),
            Self::Ended(fault) => write!(f, "no longer: {fault}"),
        }
    }
}
