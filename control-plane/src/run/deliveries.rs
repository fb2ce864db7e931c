//! Which Envoys took what was decided, and after what time: summed up for each decision, however many Envoys there are.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use clairvoy_xds::{Delivery, Receipt};

use crate::store::{AcknowledgementRow, Refusal};

/// Answers are waited for so long; what comes later is not counted.
const WATCHED: TimeDelta = TimeDelta::seconds(10);
/// Publications that are watched at a time; beyond, the oldest is closed.
const MOST_WATCHED: usize = 64;
/// Refusals that are kept with their reasons, of each decision.
const MOST_REFUSALS: usize = 8;

/// What was published lately, until its Envoys have answered.
#[derive(Debug, Default)]
pub(super) struct Deliveries {
    watched: VecDeque<Publication>,
}

#[derive(Debug)]
struct Publication {
    at: DateTime<Utc>,
    /// Decisions about shares that came with it, each with its model.
    decisions: Vec<(Uuid, String)>,
    /// Endpoints that it changed, of each group of Envoys.
    deliveries: Vec<Delivery>,
}

impl Deliveries {
    /// Watches what was published with decisions. Returns what became of the one that this takes the place of.
    pub(super) fn watch(
        &mut self,
        decisions: Vec<(Uuid, String)>,
        deliveries: Vec<Delivery>,
        now: DateTime<Utc>,
    ) -> Vec<AcknowledgementRow> {
        if decisions.is_empty() || deliveries.is_empty() {
            return Vec::new();
        }
        self.watched.push_back(Publication { at: now, decisions, deliveries });
        let oldest = if self.watched.len() > MOST_WATCHED { self.watched.pop_front() } else { None };
        oldest.iter().flat_map(Publication::rows).collect()
    }

    /// Returns what became of those whose Envoys have answered, or had the time to.
    pub(super) fn settle(&mut self, now: DateTime<Utc>) -> Vec<AcknowledgementRow> {
        let mut rows = Vec::new();
        self.watched.retain(|publication| {
            let is_over = publication.is_settled() || now - publication.at >= WATCHED;
            if is_over {
                rows.extend(publication.rows());
            }
            !is_over
        });
        rows
    }

    /// Returns what became of all that is watched, as far as it is known.
    pub(super) fn close(&mut self) -> Vec<AcknowledgementRow> {
        self.watched.drain(..).flat_map(|publication| publication.rows().collect::<Vec<_>>()).collect()
    }
}

impl Publication {
    fn is_settled(&self) -> bool {
        self.deliveries.iter().all(Delivery::is_settled)
    }

    /// A row for each decision that told any Envoys something new.
    fn rows(&self) -> impl Iterator<Item = AcknowledgementRow> {
        self.decisions.iter().filter_map(|(decision, model)| {
            // The assignment of what goes by predictions has the model's name.
            let of_model: Vec<&Delivery> =
                self.deliveries.iter().filter(|delivery| delivery.changes(model)).collect();
            let published_at = of_model.iter().map(|delivery| delivery.at()).min()?;
            let receipts = of_model.into_iter().map(|delivery| delivery.receipt(model));
            Some(summed_up(*decision, published_at.into(), receipts))
        })
    }
}

/// Sums up what the Envoys of all groups said.
fn summed_up(
    decision_id: Uuid,
    published_at: DateTime<Utc>,
    receipts: impl Iterator<Item = Receipt>,
) -> AcknowledgementRow {
    let mut all = Receipt::default();
    for receipt in receipts {
        all.clients += receipt.clients;
        all.accepted += receipt.accepted;
        all.left += receipt.left;
        all.first = all.first.into_iter().chain(receipt.first).min();
        all.last = all.last.max(receipt.last);
        all.refused.extend(receipt.refused);
    }
    let count = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
    let refusal =
        |(node, reason): &(Arc<str>, String)| Refusal { node: node.to_string(), reason: reason.clone() };
    AcknowledgementRow {
        decision_id,
        published_at,
        envoys: count(all.clients),
        accepted: count(all.accepted),
        refused: count(all.refused.len()),
        gone: count(all.left),
        first_seconds: all.first.as_ref().map(Duration::as_secs_f64),
        last_seconds: all.last.as_ref().map(Duration::as_secs_f64),
        refusals: all.refused.iter().take(MOST_REFUSALS).map(refusal).collect(),
    }
}

#[cfg(test)]
mod tests;
