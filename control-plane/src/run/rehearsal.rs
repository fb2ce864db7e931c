use std::net::SocketAddr;
use std::sync::Arc;

use chrono::{DateTime, Utc};

use crate::config::Config;
use crate::decide::BackendShare;
use crate::telemetry::{Limits, Sample};

use super::control::{Core, Effect, Input};

/// The core alone, without anything that leaves the process: to find out what its seconds cost, and how it does in a world
/// whose clock is not the real one.
pub struct Rehearsal(Core);

/// A locality as Envoys would be told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RehearsedGroup {
    /// Its weight.
    pub weight: u32,
    /// Its endpoints that take requests, each with its own weight.
    pub endpoints: Vec<(SocketAddr, u32)>,
}

impl Rehearsal {
    /// A core that has just started.
    #[must_use]
    pub fn new(config: Config, now: DateTime<Utc>) -> Self {
        let mut core = Core::new(Arc::new(config), now);
        core.reconcile(now);
        Self(core)
    }

    /// Takes in how far a backend's engine goes.
    pub fn limit(&mut self, backend: SocketAddr, limits: Limits) {
        self.take(Input::Limits { backend, limits });
    }

    /// Takes in what a backend told.
    pub fn observe(&mut self, sample: Sample, now: DateTime<Utc>) {
        self.take(Input::Sample { at: now, sample: Box::new(sample) });
    }

    /// Takes in that a backend refused the connection.
    pub fn refused(&mut self, backend: SocketAddr) {
        self.take(Input::Failure { backend, refused: Some(true), message: "connection refused".to_owned() });
    }

    fn take(&mut self, input: Input) {
        // Only orders are refused.
        let _ = self.0.take(input);
        self.0.effects();
    }

    /// Decides about all models; returns how many decisions are recorded.
    pub fn tick(&mut self, now: DateTime<Utc>) -> usize {
        let _ = self.0.take(Input::Tick { at: now });
        self.0.effects().into_iter().filter(|effect| matches!(effect, Effect::Decided(_))).count()
    }

    /// What is published of a model.
    #[must_use]
    pub fn groups(&self, model: &str) -> Vec<RehearsedGroup> {
        let published = self.0.steering.get(model).map(|steering| steering.published.as_slice());
        published
            .unwrap_or_default()
            .iter()
            .map(|group| {
                let taking = group.members.iter().filter(|(_, draining)| !**draining);
                let weight = |address| group.endpoint_weights.get(address).copied().unwrap_or(1);
                let endpoints = taking.map(|(address, _)| (*address, weight(address))).collect();
                RehearsedGroup { weight: group.weight, endpoints }
            })
            .collect()
    }

    /// How the newest shares of a model came about.
    #[must_use]
    pub fn shares(&self, model: &str) -> &[BackendShare] {
        let latest = self.0.steering.get(model).and_then(|steering| steering.latest.as_ref());
        latest.map(|decision| decision.backends.as_slice()).unwrap_or_default()
    }
}
