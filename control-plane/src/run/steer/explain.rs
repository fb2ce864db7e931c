use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::config::Policy;
use crate::decide::{
    BackendShare, Form, Law, ModelInput, WeightDecision, WeightState, Zone, ZoneTerms, decide_weights,
    decide_zones,
};
use crate::store::DecisionRow;

use super::inputs::Place;
use super::recorded::{Recorded, recorded};
use super::zones::{ZonesRecord, all_told};
use super::{PublishedGroup, groups};

/// Of a decision that this program would not have made.
const OTHERWISE: &str = "made again it comes out otherwise: another version of Clairvoy made it";

/// What is known of a decision about shares.
#[derive(Clone, Debug)]
pub(crate) enum Explanation {
    /// The law decided, and is asked again.
    Again(Box<Explained>),
    /// Another policy did: what was recorded.
    Recorded(Recorded),
}

impl Explanation {
    /// Whether a backend was in the model.
    pub(crate) fn knows(&self, backend: SocketAddr) -> bool {
        match self {
            Self::Again(explained) => explained.part(backend).is_some(),
            Self::Recorded(recorded) => recorded.part(backend).is_some(),
        }
    }
}

/// A decision about shares, made again from its record.
#[derive(Clone, Debug)]
pub(crate) struct Explained {
    /// What the law saw.
    pub(crate) model: ModelInput,
    /// Its parameters.
    pub(crate) law: Law,
    decision: WeightDecision,
    groups: Vec<PublishedGroup>,
}

/// The part of one backend in what was published.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Part<'a> {
    /// Its share, and how it came about; none while it drains, and where nothing is made again.
    pub(crate) share: Option<&'a BackendShare>,
    /// Its group.
    pub(crate) group: &'a str,
    /// The group's weight, as Envoy was told, and that of all groups together.
    pub(crate) weight: u32,
    pub(crate) of: u32,
    /// Backends of the group that take requests.
    pub(crate) members: usize,
    /// Its own weight in the group, where endpoints have weights.
    pub(crate) own_weight: Option<u32>,
}

/// What is recorded of a decision about shares, and what it is made again from.
#[derive(Serialize, Deserialize)]
pub(super) struct Record<'a> {
    #[serde(default)]
    pub(super) policy: Policy,
    pub(super) law: Law,
    /// These two came out; they are for whoever reads the record.
    pub(super) level_seconds: Option<f64>,
    #[serde(default)]
    pub(super) form: Form,
    #[serde(flatten)]
    pub(super) model: Cow<'a, ModelInput>,
    pub(super) previous: Cow<'a, WeightState>,
    #[serde(default)]
    pub(super) draining: Cow<'a, BTreeMap<SocketAddr, Place>>,
    /// None in records of older versions.
    #[serde(default)]
    pub(super) groups: Option<Cow<'a, [PublishedGroup]>>,
}

/// Makes a decision about shares again, or reads it where no prediction went into it.
///
/// # Errors
/// Says why neither can be done, or that it comes out otherwise.
pub(crate) fn explain(row: &DecisionRow) -> Result<Explanation, String> {
    if let Some(recorded) = recorded(row)? {
        return Ok(Explanation::Recorded(recorded));
    }
    let record = Record::deserialize(&row.inputs)
        .map_err(|error| format!("its record is of another version of Clairvoy: {error}"))?;
    let decision = decide_weights(&record.model, &record.previous, &record.law, row.at);
    let again = groups(&decision, &record.draining);
    if record.groups.is_some_and(|published| *published != *again) {
        return Err(OTHERWISE.to_owned());
    }
    let explained = Explained { model: record.model.into_owned(), law: record.law, decision, groups: again };
    Ok(Explanation::Again(Box::new(explained)))
}

/// The place of a backend among the groups that were published; none when it is in none of them.
pub(super) fn part_of(groups: &[PublishedGroup], backend: SocketAddr) -> Option<Part<'_>> {
    let group = groups.iter().find(|group| group.members.contains_key(&backend))?;
    Some(Part {
        share: None,
        group: &group.name,
        weight: group.weight,
        of: groups.iter().map(|group| group.weight).sum(),
        members: group.members.values().filter(|draining| !**draining).count(),
        own_weight: group.endpoint_weights.get(&backend).copied(),
    })
}

impl Explained {
    /// The cost of one more request at the common level, seconds.
    pub(crate) fn level_seconds(&self) -> Option<f64> {
        self.decision.level_seconds
    }

    /// The part of a backend; none when it was not in the model.
    pub(crate) fn part(&self, backend: SocketAddr) -> Option<Part<'_>> {
        let share = self.decision.backends.iter().find(|share| share.address == backend);
        Some(Part { share, ..part_of(&self.groups, backend)? })
    }
}

/// What the Envoys of one zone were told, made again from its record.
#[derive(Clone, Debug)]
pub(crate) struct ExplainedZone {
    /// What came of it for the zone; none where it had the shares of the fleet.
    pub(crate) terms: Option<ZoneTerms>,
    groups: Vec<PublishedGroup>,
    weights: Option<Vec<u32>>,
}

/// What is recorded of a decision about zones.
#[derive(Deserialize)]
struct OfZones {
    zones: ZonesRecord,
    groups: Vec<PublishedGroup>,
}

/// Makes a decision about zones again.
///
/// # Errors
/// Says why it cannot be made again, or that any zone comes out otherwise.
pub(crate) fn explain_zone(row: &DecisionRow, zone: &Zone) -> Result<ExplainedZone, String> {
    let inputs = OfZones::deserialize(&row.inputs)
        .map_err(|error| format!("its record is of another version of Clairvoy: {error}"))?;
    let decision = decide_zones(&inputs.zones.input, &inputs.zones.previous);
    let mut again = all_told(&inputs.groups, &decision.state);
    if inputs.zones.told.is_some_and(|told| told != again) {
        return Err(OTHERWISE.to_owned());
    }
    Ok(ExplainedZone {
        weights: again.remove(zone),
        terms: decision.terms.into_iter().find(|terms| terms.zone == *zone),
        groups: inputs.groups,
    })
}

impl ExplainedZone {
    /// The weight of a backend's group, as the Envoys of the zone were told, and that of all groups together; none when the
    /// zone had the shares of the fleet.
    pub(crate) fn weight(&self, backend: SocketAddr) -> Option<(u32, u32)> {
        let weights = self.weights.as_ref()?;
        let at = self.groups.iter().position(|group| group.members.contains_key(&backend))?;
        Some((*weights.get(at)?, weights.iter().sum()))
    }
}
