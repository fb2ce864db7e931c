//! What the autoscaler stand-in did, for the journal and the summary.

use std::net::SocketAddr;

use crate::autoscaler::{Progress, ReplicaPlan};

/// Steps taken so far.
#[derive(Debug, Default, Clone)]
pub(super) struct ScalingLog {
    /// Servers added, in the order of their registration.
    pub(super) added: Vec<SocketAddr>,
    /// Servers drained and stopped.
    pub(super) removed: usize,
    /// Plans acted on because of what was forecast, not of what came: current demand needed fewer replicas.
    pub(super) ahead_of_demand: Vec<ReplicaPlan>,
}

impl ScalingLog {
    /// Notes a step; returns it as a line to show.
    pub(super) fn note(&mut self, progress: &Progress) -> String {
        match progress {
            Progress::WebhookVerified { plan } => {
                if plan.needed_forecast > plan.needed_now && plan.replicas > plan.needed_now {
                    self.ahead_of_demand.push(plan.clone());
                }
                format!(
                    "webhook verified: {} to {} replicas (needed now {}, in {:.0} s {})",
                    plan.pool, plan.replicas, plan.needed_now, plan.horizon_seconds, plan.needed_forecast
                )
            }
            Progress::WebhookRefused { why } => format!("webhook refused: {why}"),
            Progress::Launching { pool } => format!("a server for {pool} is starting"),
            Progress::Registered { pool, backend, after } => {
                self.added.push(*backend);
                format!("new server {backend} in {pool} after {:.0} s", after.as_secs_f64())
            }
            Progress::Draining { pool, backend } => format!("{backend} of {pool} is draining"),
            Progress::Stopped { pool, backend } => {
                self.removed += 1;
                format!("{backend} of {pool} was idle and stopped")
            }
            Progress::Failed { pool, error } => format!("scaling {pool}: {error}"),
        }
    }
}
