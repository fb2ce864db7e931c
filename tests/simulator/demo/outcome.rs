//! Everything that the summary tells and the checks judge.

use crate::autoscaler::WebhookCounts;
use crate::player::{Failures, ModelStatistics};

use super::{api::Demand, evidence::Row, observations::Observations, scaling_log::ScalingLog};

/// What happened, from the first request to the last answer.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) seconds: f64,
    pub(super) proxies_expected: usize,
    pub(super) observations: Observations,
    pub(super) load: Vec<(String, ModelStatistics)>,
    pub(super) webhooks: WebhookCounts,
    pub(super) scaling: ScalingLog,
    pub(super) forecasts: Vec<ModelForecasts>,
    pub(super) slowed_traffic: SlowedTraffic,
}

/// Forecasts of one model beside its demand.
#[derive(Debug)]
pub(super) struct ModelForecasts {
    pub(super) model: String,
    pub(super) lead_seconds: f64,
    pub(super) rows: Vec<Row>,
}

/// Part of its model's requests that the slowed server took, counted at the servers.
#[derive(Debug, Default)]
pub(super) struct SlowedTraffic {
    /// In the ten seconds before it became slow.
    pub(super) before: Option<f64>,
    /// In the ten seconds before it was well again.
    pub(super) at_the_end: Option<f64>,
}

impl ModelForecasts {
    pub(super) fn new(demand: &Demand, begin_unix_s: f64) -> Self {
        Self {
            model: demand.model.clone(),
            lead_seconds: demand.lead_seconds,
            rows: super::evidence::rows(demand, begin_unix_s),
        }
    }
}

impl Outcome {
    pub(super) fn proxies_in_sync(&self) -> usize {
        self.observations.proxies_in_sync()
    }

    pub(super) fn sent(&self) -> u64 {
        self.load.iter().map(|(_, statistics)| statistics.sent).sum()
    }

    pub(super) fn completed(&self) -> u64 {
        self.load.iter().map(|(_, statistics)| statistics.completed).sum()
    }

    /// Requests whose answers had not ended when everything stopped.
    pub(super) fn unfinished(&self) -> u64 {
        self.load.iter().map(|(_, statistics)| statistics.in_flight()).sum()
    }

    pub(super) fn over_the_cap(&self) -> u64 {
        self.load.iter().map(|(_, statistics)| statistics.over_the_cap).sum()
    }

    pub(super) fn failures(&self) -> Failures {
        let mut all = Failures::default();
        self.load.iter().for_each(|(_, statistics)| all.add(&statistics.failures));
        all
    }

    pub(super) fn webhooks_refused(&self) -> u64 {
        self.webhooks.forged + self.webhooks.stale + self.webhooks.malformed
    }
}
