use std::sync::Arc;

use chrono::{DateTime, Utc};

use crate::config::Config;
use crate::telemetry::Sample;

use super::control::{Core, Effect, Input};

/// The core alone, without anything that leaves the process: to find out what its seconds cost.
pub struct Rehearsal(Core);

impl Rehearsal {
    /// A core that has just started.
    #[must_use]
    pub fn new(config: Config, now: DateTime<Utc>) -> Self {
        let mut core = Core::new(Arc::new(config), now);
        core.reconcile(now);
        Self(core)
    }

    /// Takes in what a backend told.
    pub fn observe(&mut self, sample: Sample, now: DateTime<Utc>) {
        // Only orders are refused.
        let _ = self.0.take(Input::Sample { at: now, sample: Box::new(sample) });
        self.0.effects();
    }

    /// Decides about all models; returns how many decisions are recorded.
    pub fn tick(&mut self, now: DateTime<Utc>) -> usize {
        let _ = self.0.take(Input::Tick { at: now });
        self.0.effects().into_iter().filter(|effect| matches!(effect, Effect::Decided(_))).count()
    }
}
