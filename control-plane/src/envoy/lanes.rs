use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Exchange;

/// Models of which is told at once; of more there is nothing.
const MOST_MODELS: usize = 10_000;

/// Whether a request can wait.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Lane {
    /// Somebody waits for the answer.
    #[default]
    Interactive,
    /// It may be refused, and come again later.
    Batch,
}

impl Lane {
    /// Both, the one that is served first in front.
    pub const ALL: [Self; 2] = [Self::Interactive, Self::Batch];

    /// Its name in configuration, metrics and routes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Interactive => "interactive",
            Self::Batch => "batch",
        }
    }
}

/// Begins the names of routes that refuse batch requests.
const REFUSED: &str = "refused";

/// The name of a model's route for a lane; access logs tell it.
pub fn lane_route(lane: Lane, model: &str) -> String {
    format!("{}/{model}", lane.name())
}

/// The name of the route that refuses a model's batch requests.
pub fn refusal_route(model: &str) -> String {
    format!("{REFUSED}/{model}")
}

/// The key of Envoy's runtime by which batch requests for a model are refused. Without it none are.
pub fn shed_key(model: &str) -> String {
    format!("clairvoy.shed.batch.{model}")
}

/// What the name of a route says: the lane, the model, and whether it refuses. None: it is no route of ours.
pub(super) fn read_route(name: &str) -> Option<(Lane, &str, bool)> {
    let (kind, model) = name.split_once('/')?;
    match kind {
        REFUSED => Some((Lane::Batch, model, true)),
        _ => Lane::ALL.into_iter().find(|lane| lane.name() == kind).map(|lane| (lane, model, false)),
    }
}

/// Requests of one lane, counted once each: when they end, or as the first entry about them comes while they run. Counts are sums
/// of weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LaneCounts {
    /// That were sent on, or would have been had there been a backend.
    pub admitted: f64,
    /// That Envoy refused because it was told to.
    pub refused: f64,
    /// Those of the refused that a cluster dropped; a route refused the others.
    #[serde(default)]
    pub dropped: f64,
}

impl LaneCounts {
    /// Adds others.
    pub fn add(&mut self, others: Self) {
        self.admitted += others.admitted;
        self.refused += others.refused;
        self.dropped += others.dropped;
    }

    /// All of them.
    pub fn offered(&self) -> f64 {
        self.admitted + self.refused
    }
}

/// What access logs told of the lanes of one model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LaneLog {
    /// Of the lane `interactive`.
    pub interactive: LaneCounts,
    /// Of the lane `batch`.
    pub batch: LaneCounts,
}

impl LaneLog {
    /// The counts of a lane, to be changed.
    pub fn of(&mut self, lane: Lane) -> &mut LaneCounts {
        match lane {
            Lane::Interactive => &mut self.interactive,
            Lane::Batch => &mut self.batch,
        }
    }

    /// All requests.
    pub fn offered(&self) -> f64 {
        self.interactive.offered() + self.batch.offered()
    }

    /// All that were refused.
    pub fn refused(&self) -> f64 {
        self.interactive.refused + self.batch.refused
    }

    /// Adds others.
    pub fn add(&mut self, others: Self) {
        self.interactive.add(others.interactive);
        self.batch.add(others.batch);
    }

    /// The same, each for `factor` of them.
    #[must_use]
    pub fn scaled(self, factor: f64) -> Self {
        let scaled = |counts: LaneCounts| LaneCounts {
            admitted: factor * counts.admitted,
            refused: factor * counts.refused,
            dropped: factor * counts.dropped,
        };
        Self { interactive: scaled(self.interactive), batch: scaled(self.batch) }
    }
}

/// Adds an entry that stands for `weight` ones.
pub(super) fn count(lanes: &mut BTreeMap<String, LaneLog>, exchange: &Exchange, weight: f64) {
    let Some(lane) = exchange.lane.filter(|_| exchange.is_first) else { return };
    if !lanes.contains_key(&exchange.model) && lanes.len() >= MOST_MODELS {
        return;
    }
    let counts = lanes.entry(exchange.model.clone()).or_default().of(lane);
    *(if exchange.refused { &mut counts.refused } else { &mut counts.admitted }) += weight;
    if exchange.dropped {
        counts.dropped += weight;
    }
}

/// Adds what was told in the time after.
pub(super) fn append(lanes: &mut BTreeMap<String, LaneLog>, later: BTreeMap<String, LaneLog>) {
    for (model, log) in later {
        if lanes.contains_key(&model) || lanes.len() < MOST_MODELS {
            lanes.entry(model).or_default().add(log);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_routes_tell_lane_and_model() {
        for model in ["chat", "org/model:1", "refused/chat"] {
            assert_eq!(read_route(&lane_route(Lane::Batch, model)), Some((Lane::Batch, model, false)));
            assert_eq!(
                read_route(&lane_route(Lane::Interactive, model)),
                Some((Lane::Interactive, model, false))
            );
            assert_eq!(read_route(&refusal_route(model)), Some((Lane::Batch, model, true)));
        }
        assert_eq!((read_route(""), read_route("users-own/route")), (None, None));
    }
}
