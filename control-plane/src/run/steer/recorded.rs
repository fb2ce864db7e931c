//! Decisions of policies that go by no prediction: what is said of them is what their records say.

use std::net::SocketAddr;

use serde::Deserialize;

use crate::config::Policy;
use crate::store::DecisionRow;
use crate::view::Change;

use super::PublishedGroup;
use super::explain::{Part, part_of};

/// A decision about shares as its record has it.
#[derive(Clone, Debug)]
pub(crate) struct Recorded {
    /// The policy that decided.
    pub(crate) policy: Policy,
    groups: Vec<PublishedGroup>,
    changes: Vec<Change>,
}

#[derive(Deserialize)]
struct Inputs {
    #[serde(default)]
    policy: Policy,
    /// None in records of older versions.
    groups: Option<Vec<PublishedGroup>>,
}

/// Reads a decision of a policy that goes by no prediction; none where it is of the law, or of no policy.
///
/// # Errors
/// Says what the record lacks.
pub(super) fn recorded(row: &DecisionRow) -> Result<Option<Recorded>, String> {
    let Ok(Inputs { policy, groups }) = Inputs::deserialize(&row.inputs) else { return Ok(None) };
    if policy == Policy::Predictive {
        return Ok(None);
    }
    let groups = groups.ok_or("its record is of an older version of Clairvoy, and has no weights")?;
    let changes = Vec::<Change>::deserialize(&row.changes).unwrap_or_default();
    Ok(Some(Recorded { policy, groups, changes }))
}

impl Recorded {
    /// The name of its policy in the configuration.
    pub(crate) fn policy_name(&self) -> String {
        let name = serde_json::to_value(self.policy).unwrap_or_default();
        name.as_str().unwrap_or_default().to_owned()
    }

    /// The place of a backend; none when it was not in the model.
    pub(crate) fn part(&self, backend: SocketAddr) -> Option<Part<'_>> {
        part_of(&self.groups, backend)
    }

    /// The part of the model's requests that its weights give a backend, 0 to 1; none while it drains.
    pub(crate) fn expected(&self, backend: SocketAddr) -> Option<f64> {
        let group = self.groups.iter().find(|group| group.members.get(&backend) == Some(&false))?;
        let own = self.groups.iter().flat_map(|group| group.endpoint_weights.values());
        let of_endpoints: f64 = own.copied().map(f64::from).sum();
        if of_endpoints > 0.0 {
            let weight = group.endpoint_weights.get(&backend).copied()?;
            return Some(f64::from(weight) / of_endpoints);
        }
        let of_groups: f64 = self.groups.iter().map(|group| f64::from(group.weight)).sum();
        let takes = group.members.values().filter(|draining| !**draining).count();
        Some(f64::from(group.weight) / of_groups.max(1.0) / takes as f64)
    }

    /// Why a backend's share was changed; none where it was hardly.
    pub(crate) fn reason(&self, backend: SocketAddr) -> Option<&str> {
        let target = backend.to_string();
        let change = self.changes.iter().find(|change| change.target == target)?;
        Some(&change.reason)
    }
}
