use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use clairvoy_forecaster::AnomalyKind;

use super::super::{Mix, Profile};

/// Parameters of the law. The defaults lie on a plateau: within it, they hardly matter.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Law {
    /// `H`: time within which a backend off its target level is led back to it, seconds. Below 2.4 times the time between
    /// decisions it oscillates.
    pub correction_seconds: f64,
    /// `q`: how steeply a level's cost rises as the batch fills, 0 to below 1.
    pub barrier: f64,
    /// `P`: price of a second of waiting outside the batch, in seconds inside. Below 20 it does harm.
    pub waiting_price: f64,
    /// Least part of its capacity share that a backend keeps.
    pub floor: f64,
    /// Most that a backend gets, in parts of its capacity (above the fleet's capacity: of its part in it).
    pub ceiling: f64,
    /// Part of the way to the wanted shares that is gone with each evaluation, 0 to 1.
    pub smoothing: f64,
    /// Part of the traffic that has to move before new weights are published.
    pub dead_band: f64,
    /// Most of the traffic that moves with one evaluation, but for what leaves failing backends.
    pub largest_step: f64,
    /// Telemetry that has to have been seen before anything but capacity decides, seconds.
    pub window_seconds: f64,
    /// Requests in flight per endpoint and Envoy below which endpoints get weights of their own.
    pub form_at: f64,
    /// How far cheaper backends go first, 0 to 1.
    #[serde(default)]
    pub cost_weight: f64,
    /// Part of their capacity up to which they do: what keeps the objective. Without regard to cost they may have more.
    #[serde(default = "usual_fill")]
    pub fill: f64,
}

fn usual_fill() -> f64 {
    0.7
}

impl Default for Law {
    fn default() -> Self {
        Self {
            correction_seconds: 6.0,
            barrier: 0.7,
            waiting_price: 20.0,
            floor: 0.02,
            ceiling: 1.5,
            smoothing: 0.6,
            dead_band: 0.02,
            largest_step: 0.1,
            window_seconds: 5.0,
            form_at: 0.5,
            cost_weight: 0.0,
            fill: usual_fill(),
        }
    }
}

impl Law {
    /// The same with every parameter where the law holds.
    pub(super) fn within_bounds(&self) -> Self {
        let usual = Self::default();
        let within = |value: f64, usual: f64, least: f64, most: f64| {
            if value.is_finite() { value.clamp(least, most) } else { usual }
        };
        Self {
            correction_seconds: within(self.correction_seconds, usual.correction_seconds, 1e-3, 1e6),
            barrier: within(self.barrier, usual.barrier, 0.0, 0.95),
            waiting_price: within(self.waiting_price, usual.waiting_price, 1.0, 1e6),
            floor: within(self.floor, usual.floor, 1e-6, 1.0),
            ceiling: within(self.ceiling, usual.ceiling, 1.0, 1e6),
            smoothing: within(self.smoothing, usual.smoothing, 1e-3, 1.0),
            dead_band: within(self.dead_band, usual.dead_band, 0.0, 1.0),
            largest_step: within(self.largest_step, usual.largest_step, 1e-3, 1.0),
            window_seconds: within(self.window_seconds, usual.window_seconds, 0.0, 1e6),
            form_at: within(self.form_at, usual.form_at, 0.0, 1e6),
            cost_weight: within(self.cost_weight, usual.cost_weight, 0.0, 1.0),
            fill: within(self.fill, usual.fill, 0.05, 1.0),
        }
    }
}

/// Whether a backend is like its class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It is, as far as is known.
    #[default]
    Usual,
    /// It has just started: it is given a part of its share, which grows.
    Warming,
    /// It does not serve as it should: it is given what shows whether it is well again.
    Sick,
}

impl Verdict {
    /// Its name, as it is shown.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Usual => "usual",
            Self::Warming => "warming",
            Self::Sick => "sick",
        }
    }
}

/// What the law sees of one backend.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackendInput {
    /// Its address.
    pub address: SocketAddr,
    /// Its pool; backends of a pool are of one kind and in one place.
    pub pool: String,
    /// Region and zone of its pool.
    pub zone: String,
    /// What its iterations cost at its usual speed.
    pub profile: Option<Profile>,
    /// Requests/s that it serves at its usual speed, where there is no profile; none: unknown.
    pub capacity_rps: Option<f64>,
    /// The most requests/s that it was seen to serve while none waited; none: it was never seen so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_ease_rps: Option<f64>,
    /// How many times longer than usual its iterations take; 1 as usual.
    pub slowdown: f64,
    /// Requests in its batch and before it, at its newest sample.
    pub in_flight: Option<f64>,
    /// Age of that sample, seconds; none without any.
    pub age_seconds: Option<f64>,
    /// Whether it is like its class.
    pub verdict: Verdict,
    /// How far it has warmed up since it started, 0 to 1.
    #[serde(default = "wholly")]
    pub warmed: f64,
    /// What the verdict goes by, where it goes by more than the time since its start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sign: Option<AnomalyKind>,
    /// What it costs, in any currency; none: not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price_per_hour: Option<f64>,
}

fn wholly() -> f64 {
    1.0
}

/// What the law sees of one model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelInput {
    /// Requests/s that are to be shared out.
    #[serde(rename = "demand_rps")]
    pub arrivals_rps: f64,
    /// What they are like.
    pub mix: Mix,
    /// Envoys among which they arrive.
    pub envoys: usize,
    /// Part of them that goes by predictions, 0 to 1: the rest is no active request of the cluster that these weights are for.
    #[serde(default = "whole")]
    pub steered_part: f64,
    /// For how long this process has taken telemetry in, seconds.
    pub observed_seconds: f64,
    /// The backends that take requests.
    pub backends: Vec<BackendInput>,
}

fn whole() -> f64 {
    1.0
}

impl ModelInput {
    /// As many Envoys as the requests in flight are spread over, with those that predictions do not steer taken off.
    pub(super) fn envoys_in_parts(&self) -> f64 {
        let part = if self.steered_part.is_finite() { self.steered_part.clamp(0.01, 1.0) } else { 1.0 };
        self.envoys.max(1) as f64 / part
    }
}
