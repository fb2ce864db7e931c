use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the Envoys of one zone are told of a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ZoneView {
    /// The zone, as `region/zone`.
    pub zone: String,
    /// Its connected Envoys.
    pub envoys: u32,
    /// The part of the model's requests that is taken to arrive there, 0 to 1.
    pub demand_share: f64,
    /// Mean round-trip time to the backends that its requests go to, by the configured times, milliseconds.
    pub rtt_ms: f64,
    /// The same if they went by the shares of the fleet.
    pub fleet_rtt_ms: f64,
    /// The shares of the groups for its Envoys.
    pub shares: Vec<ZoneShareView>,
}

/// The share of a group for the Envoys of one zone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ZoneShareView {
    /// The group.
    pub group: String,
    /// Share of the zone's requests, 0 to 1.
    pub share: f64,
}
