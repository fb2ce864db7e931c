use serde::{Deserialize, Serialize};

/// Parameters of shedding.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShedLaw {
    /// Whether anything is refused.
    pub enabled: bool,
    /// Load at which it begins, in parts of the capacity.
    pub begin_utilisation: f64,
    /// Load that is left.
    pub target_utilisation: f64,
    /// Most by which the refused part of a lane grows in a second.
    pub ramp_per_second: f64,
    /// Time over which requests are counted, seconds.
    pub window_seconds: f64,
    /// How far behind the clock that time ends, seconds.
    pub lag_seconds: f64,
    /// Time that a decision takes to work: what is forecast for then counts, seconds.
    pub lead_seconds: f64,
    /// Time in which those that wait should be served, seconds.
    pub drain_seconds: f64,
}

impl Default for ShedLaw {
    fn default() -> Self {
        Self {
            enabled: true,
            begin_utilisation: 0.95,
            target_utilisation: 0.85,
            ramp_per_second: 0.2,
            window_seconds: 10.0,
            lag_seconds: 1.5,
            lead_seconds: 15.0,
            drain_seconds: 20.0,
        }
    }
}

impl ShedLaw {
    /// The same with every parameter where it makes sense.
    pub(super) fn within_bounds(&self) -> Self {
        let usual = Self::default();
        let within = |value: f64, usual: f64, least: f64, most: f64| {
            if value.is_finite() { value.clamp(least, most) } else { usual }
        };
        let begin = within(self.begin_utilisation, usual.begin_utilisation, 0.01, 10.0);
        Self {
            enabled: self.enabled,
            begin_utilisation: begin,
            target_utilisation: within(self.target_utilisation, usual.target_utilisation, 0.01, begin),
            ramp_per_second: within(self.ramp_per_second, usual.ramp_per_second, 1e-3, 1.0),
            window_seconds: within(self.window_seconds, usual.window_seconds, 1.0, 600.0),
            lag_seconds: within(self.lag_seconds, usual.lag_seconds, 0.0, 60.0),
            lead_seconds: within(self.lead_seconds, usual.lead_seconds, 0.0, 600.0),
            drain_seconds: within(self.drain_seconds, usual.drain_seconds, 1.0, 3600.0),
        }
    }
}
