use std::net::SocketAddr;

use anyhow::Context as _;
use chrono::{DateTime, Utc};
use serde_json::json;

use crate::decide::Zone;
use crate::run::{ExplainedZone, explain_zone};
use crate::store::{AcknowledgementRow, DecisionRow};

use super::Decisions;
use super::acknowledgement::acknowledged;

/// What the Envoys of one zone were told of a backend's group.
#[derive(Debug)]
pub(super) struct Zoned<'a> {
    zone: &'a Zone,
    /// The decision about it, and what came of it; none where no zone ever had shares of its own.
    decided: Option<(&'a DecisionRow, ExplainedZone)>,
    /// The weight of the group, and of all; none where the shares of the fleet held.
    weight: Option<(u32, u32)>,
    /// What Envoys said to the decision.
    told: Option<&'a AcknowledgementRow>,
}

impl<'a> Zoned<'a> {
    /// Makes the decision of a model again, of those that were in force.
    pub(super) fn find(
        zone: &'a Zone,
        backend: SocketAddr,
        model: &str,
        decisions: &'a Decisions,
    ) -> anyhow::Result<Self> {
        let decided = match decisions.zones.iter().find(|row| row.model == model) {
            Some(row) => {
                let explained = explain_zone(row, zone).map_err(anyhow::Error::msg);
                Some((row, explained.context("what zones were told cannot be made again")?))
            }
            None => None,
        };
        let weight = decided.as_ref().and_then(|(_, explained)| explained.weight(backend));
        let told = decided.as_ref().and_then(|(row, _)| decisions.acknowledgement(row));
        Ok(Self { zone, decided, weight, told })
    }

    pub(super) fn as_json(&self) -> serde_json::Value {
        let terms = self.decided.as_ref().and_then(|(_, explained)| explained.terms.as_ref());
        json!({
            "zone": self.zone,
            "decision": self.decided.as_ref().map(|(row, _)| row.id),
            "at": self.decided.as_ref().map(|(row, _)| row.at),
            "group_weight": self.weight.map(|(weight, _)| weight),
            "of_weight": self.weight.map(|(_, of)| of),
            "acknowledgement": self.told,
            "terms": terms,
        })
    }

    pub(super) fn as_text(&self, now: DateTime<Utc>) -> String {
        let zone = self.zone;
        let (Some((weight, of)), Some((row, explained))) = (self.weight, &self.decided) else {
            return format!("zone {zone}: goes by these shares, as the whole fleet");
        };
        let mut text = format!(
            "zone {zone}: weight {weight} of {of}, by decision {} of {}, {}",
            row.id,
            row.at.to_rfc3339(),
            acknowledged(row, self.told, now)
        );
        if let Some(terms) = &explained.terms {
            text.push_str(&format!(
                "\nzone {zone}: {:.1} % of the requests arrive there, at {} Envoys; mean round trip {:.2} ms, {:.2} ms by \
                 the shares of the fleet",
                100.0 * terms.demand_share,
                terms.envoys,
                terms.rtt_ms,
                terms.fleet_rtt_ms
            ));
        }
        text
    }
}
