use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::CanaryBy;
use crate::decide::MeasureTerms;

/// The canary of a model: how the steered part of its requests does beside the others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CanaryView {
    /// What is divided: `requests` or `proxies`.
    pub by: CanaryBy,
    /// The steered part, as configured, 0 to 1.
    pub share: f64,
    /// Blocks of outcomes that were looked at since it began.
    pub blocks: u64,
    /// What was seen in the last one, by measure.
    pub terms: Vec<MeasureTerms>,
    /// What it came to; none before the first block.
    pub reason: Option<String>,
    /// That predictions steer nothing any more, because the steered part did worse; none while they do.
    pub stepped_back: Option<SteppedBackView>,
}

/// A canary that has stepped back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SteppedBackView {
    /// When.
    pub at: DateTime<Utc>,
    /// The decision that has the evidence.
    pub decision: String,
    /// Why.
    pub reason: String,
}
