use std::fmt;

use serde::{Deserialize, Serialize};

use super::ShedState;

/// Why nothing is refused whatever comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShedCause {
    /// It is turned off.
    Off,
    /// Telemetry is not fresh, or no Envoy is there.
    Stale,
    /// Nobody knows what the backends can serve.
    UnknownCapacity,
    /// No access log has told which requests are batch.
    UnknownLanes,
    /// No backend tells how many requests it has.
    UnknownQueue,
}

impl fmt::Display for ShedCause {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Off => "shedding is turned off",
            Self::Stale => "telemetry is not fresh, or no Envoy is connected",
            Self::UnknownCapacity => "the capacity is not known",
            Self::UnknownLanes => "no access log has told the lanes of requests",
            Self::UnknownQueue => "no backend tells how many requests it has",
        })
    }
}

/// How the refused parts came about; requests/s where nothing else is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ShedTerms {
    /// Why nothing is refused, whatever comes.
    pub cause: Option<ShedCause>,
    /// All that was offered, refused or not.
    pub offered_rps: f64,
    /// The batch requests among it.
    pub offered_batch_rps: f64,
    /// What will be offered when a decision has taken effect.
    pub ahead_rps: f64,
    /// What serves those that wait within the drain time.
    pub waiting_rps: f64,
    /// What the backends serve with full batches.
    pub capacity_rps: f64,
    /// What will be offered and what serves those that wait, in parts of the capacity.
    pub load: f64,
    /// One standard deviation of chance in the load.
    pub noise: f64,
    /// Whether the backends show that they are busy.
    pub shows: bool,
    /// Whether refusals tell how many batch requests come.
    pub is_told: bool,
    /// What should be let in.
    pub aim_rps: f64,
    /// What is offered above that.
    pub excess_rps: f64,
    /// Part of the batch requests that makes up for it, before the ramp, 0 to 1.
    pub wanted_batch: f64,
    /// Part of the interactive requests, likewise.
    pub wanted_interactive: f64,
}

pub(super) fn reason(terms: &ShedTerms, state: &ShedState) -> String {
    if let Some(cause) = terms.cause {
        return cause.to_string();
    }
    let mut text = format!("{:.1} requests/s come", terms.offered_rps);
    if terms.ahead_rps > terms.offered_rps {
        text += &format!(" ({:.1} soon)", terms.ahead_rps);
    }
    if terms.waiting_rps > 0.05 * terms.capacity_rps {
        text += &format!(", and {:.1} to serve those that wait", terms.waiting_rps);
    }
    text += &format!(": {:.0} % of the {:.1} that can be served", 100.0 * terms.load, terms.capacity_rps);
    if state.is_on {
        text += &format!("; {:.1} are let in", terms.aim_rps.min(terms.offered_rps));
    }
    text
}
