use garde::Validate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Span;

/// How traffic is shared out. The defaults lie on a plateau; few need to change them.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields, default)]
#[garde(allow_unvalidated)]
pub struct Balance {
    /// Time within which a backend with more or fewer requests than the common level gives it is led back to it
    /// (default 6 s, at least 2.4 s).
    pub correction_time: Span,
    /// Part of the way to the wanted shares that is gone each second, 0 to 1 (default 0.6).
    #[garde(range(min = 0.01, max = 1.0))]
    pub smoothing: f64,
    /// Least part of its capacity share that every ready backend keeps (default 0.02). Up to a tenth of it where less would mean
    /// less than a request in ten seconds, so that its state stays known.
    #[garde(range(min = 0.0, max = 1.0))]
    pub floor: f64,
    /// Part of the traffic that has to move before new weights are published (default 0.02).
    #[garde(range(min = 0.0, max = 0.5))]
    pub dead_band: f64,
    /// How long a backend that leaves finishes its streams as DRAINING before it is removed (default 30 s).
    pub drain_time: Span,
}

impl Default for Balance {
    fn default() -> Self {
        Self {
            correction_time: Span::seconds(6),
            smoothing: 0.6,
            floor: 0.02,
            dead_band: 0.02,
            drain_time: Span::seconds(30),
        }
    }
}
