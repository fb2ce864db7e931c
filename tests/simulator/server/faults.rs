//! Faults that an experiment can switch on while the server runs.

use serde::{Deserialize, Serialize};

/// The faults in force. As JSON, a field left out is healthy, so `{}` heals.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// Factor on iteration times, above 0: a throttled GPU. 1 is healthy.
    pub slow_factor: f64,
    /// Part of the requests answered with status 500, 0 to 1.
    pub error_rate: f64,
    /// The engine stands still: requests are accepted and never answered, `/health` still says 200.
    pub hang: bool,
    /// `GET /health` is accepted and never answered.
    pub health_hang: bool,
    /// `GET /metrics` is accepted and never answered.
    pub metrics_hang: bool,
    /// `GET /metrics` shows NaN, negative and absurd values.
    pub metrics_garbage: bool,
    /// `GET /metrics` streams 100 MB.
    pub metrics_huge: bool,
    /// The server is killed: the port closes, connections are reset. There is no way back.
    pub die: bool,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            slow_factor: 1.0,
            error_rate: 0.0,
            hang: false,
            health_hang: false,
            metrics_hang: false,
            metrics_garbage: false,
            metrics_huge: false,
            die: false,
        }
    }
}

/// A fault whose value is out of range.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum InvalidFaults {
    /// Not a number above 0.
    #[error("slow_factor {0} is not a number above 0")]
    SlowFactor(f64),
    /// Not within 0 to 1.
    #[error("error_rate {0} is not within 0 to 1")]
    ErrorRate(f64),
}

impl Faults {
    pub(super) fn check(&self) -> Result<(), InvalidFaults> {
        if !(self.slow_factor.is_finite() && self.slow_factor > 0.0) {
            return Err(InvalidFaults::SlowFactor(self.slow_factor));
        }
        if !(0.0..=1.0).contains(&self.error_rate) {
            return Err(InvalidFaults::ErrorRate(self.error_rate));
        }
        Ok(())
    }
}
