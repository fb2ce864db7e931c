use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Zone;

/// What the flows of one model are decided on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ZonesInput {
    /// Zones with Envoys.
    pub zones: Vec<NodeZone>,
    /// The groups and their weights as the law decided them.
    pub groups: Vec<GroupTotal>,
    /// Round-trip times that differ from the defaults.
    pub rtt: Vec<LatencyRule>,
    /// Between zones of one region, milliseconds.
    pub same_region_ms: f64,
    /// Between regions, milliseconds.
    pub other_region_ms: f64,
    /// Part of the requests that goes the cheapest way, 0 to 1; the rest goes by the shares of the fleet.
    pub preference: f64,
}

/// A zone with Envoys.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeZone {
    /// The zone.
    pub zone: Zone,
    /// Envoys that are connected.
    pub envoys: u32,
    /// Requests/s that they have for the model; none: unknown.
    pub requests_per_second: Option<f64>,
}

/// A group of backends, with its part of the whole fleet's requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupTotal {
    /// Its name.
    pub group: String,
    /// Where its backends are.
    pub zone: Zone,
    /// Its weight among all groups; 0 for one that is to get nothing.
    pub weight: u32,
}

/// The round-trip time between two places. It holds in both directions, unless the other one has a rule of its own; a rule
/// for zones goes before one for regions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LatencyRule {
    /// A zone as `region/zone`, or a whole region.
    pub from: String,
    /// A zone or a region.
    pub to: String,
    /// Milliseconds.
    pub ms: f64,
}

/// What is remembered of the flows of a model: those that were published.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ZonesState {
    /// By zone of Envoys.
    pub zones: BTreeMap<Zone, ZoneFlow>,
    /// The weights of the law that they add up to, by group.
    pub totals: BTreeMap<String, u32>,
    /// What they were decided on beside demand and totals, as a number, when they are as wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settled: Option<u64>,
}

/// The flows of one zone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ZoneFlow {
    /// The zone's part of the demand as it was seen of late, 0 to 1.
    pub seen: f64,
    /// The part that the flows are made for, which follows what is seen when that is off by enough.
    pub demand_share: f64,
    /// The part of the zone's requests that goes to each group, 0 to 1, together 1.
    pub shares: BTreeMap<String, f64>,
}

/// What one zone has of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ZoneTerms {
    /// The zone.
    pub zone: Zone,
    /// Its Envoys.
    pub envoys: u32,
    /// The part of the requests that is taken to arrive in it, 0 to 1.
    pub demand_share: f64,
    /// Mean round-trip time from its Envoys to the backends that they send to, milliseconds.
    pub rtt_ms: f64,
    /// The same if they went by the shares of the fleet.
    pub fleet_rtt_ms: f64,
}

/// One evaluation of the flows of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct ZonesDecision {
    /// The flows in force from now on, and what to remember.
    pub state: ZonesState,
    /// Whether they are other ones than before.
    pub publish: bool,
    /// What each zone has of them, sorted by zone.
    pub terms: Vec<ZoneTerms>,
}
