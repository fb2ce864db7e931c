use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::control::Input;

/// What the core took in from one tick to the next, in order; it ends with the tick, or with the process.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Page {
    /// From when the times of samples count.
    pub(crate) since: DateTime<Utc>,
    /// The backends of the samples, by number.
    pub(crate) backends: Vec<String>,
    /// What was taken in.
    pub(crate) marks: Vec<Mark>,
    /// Whether something else moved the core, too, or the learner missed something.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) broken: bool,
    /// Whether the process stopped after it, in order: nothing is missing behind it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) last: bool,
}

/// One thing that the core took in.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Mark {
    /// A sample: number of the backend, its time, and the time at which it was taken in, both in microseconds since the
    /// page began. The rest is in the telemetry.
    #[serde(rename = "s")]
    Sample(u32, i64, i64),
    /// So many of the learner's oldest findings that were not taken before.
    #[serde(rename = "learned")]
    Learned {
        waits: u32,
        forecasts: u32,
        #[serde(default, skip_serializing_if = "is_zero")]
        signs: u32,
    },
    /// Anything else.
    #[serde(rename = "input")]
    Input(Input),
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn is_zero(count: &u32) -> bool {
    *count == 0
}

impl Page {
    pub(super) fn since(now: DateTime<Utc>) -> Self {
        Self { since: now, backends: Vec::new(), marks: Vec::new(), broken: false, last: false }
    }
}
