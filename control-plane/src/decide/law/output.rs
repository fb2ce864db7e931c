use std::collections::BTreeMap;
use std::net::SocketAddr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// How shares are handed to Envoy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// A weight for each group; inside, Envoy takes the backend with the fewest active requests.
    #[default]
    Groups,
    /// A weight for each endpoint of a group, too: each Envoy sees too few requests to compare.
    Endpoints,
}

/// A backend in a group of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Aside {
    /// Since when it has been like its class again.
    pub well_since: Option<DateTime<Utc>>,
    /// Whether it was sick or warmed up: then it has few requests or none because it was given none.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub by_verdict: bool,
}

/// What the law remembers from one evaluation to the next.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct WeightState {
    /// Smoothed share of each backend.
    pub shares: BTreeMap<SocketAddr, f64>,
    /// Expected share of each backend, by what was last published.
    pub published: BTreeMap<SocketAddr, f64>,
    /// Weight of each endpoint as last published, in parts of all, where endpoints have weights.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub published_weights: BTreeMap<SocketAddr, f64>,
    /// Backends in a group of their own.
    // Earlier versions saved a plain list as `alone`; it is passed over.
    #[serde(rename = "aside")]
    pub alone: BTreeMap<SocketAddr, Aside>,
    /// Since when others are so slow that they are to have one.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub slow_since: BTreeMap<SocketAddr, DateTime<Utc>>,
    /// The form of the weights.
    pub form: Form,
    /// Since when the other form would do better.
    pub other_form_since: Option<DateTime<Utc>>,
}

/// A bound that a wanted inflow met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Clamp {
    /// It gets that much to be seen again when it is well.
    Floor,
    /// It gets no more, lest prompts stampede to where it is empty.
    Ceiling,
    /// It gets no more while it is sick.
    Sick,
    /// It gets no more while it warms up.
    Warming,
}

/// How the share of one backend came about. Under a policy that goes by no level, only the shares are told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Terms {
    /// `N_i`: sequences that fit into its batch.
    pub places: f64,
    /// `mu_i`: requests/s at which it is full, at its present speed.
    pub capacity_rps: f64,
    /// `s_i`, as far as its telemetry is trusted.
    pub slowdown: f64,
    /// `n_i`: requests that it has now; none: unknown.
    pub in_flight: Option<f64>,
    /// `n_i(l)`: requests that it should have.
    pub target_in_flight: f64,
    /// So much higher the common level is for it because its requests are dear, seconds.
    #[serde(default)]
    pub surcharge_seconds: f64,
    /// `X_i(n_i(l))`: inflow that would hold it there, requests/s.
    pub holding_rps: f64,
    /// `(n_i(l) - n_i) / H`: inflow that leads it there, requests/s, as far as its telemetry is fresh.
    pub correction_rps: f64,
    /// The least inflow, requests/s.
    pub floor_rps: f64,
    /// The largest, requests/s.
    pub ceiling_rps: f64,
    /// The most that its verdict leaves it, requests/s; none where that sets no bound.
    #[serde(default)]
    pub cap_rps: Option<f64>,
    /// The bound that it met.
    pub clamp: Option<Clamp>,
    /// How much its telemetry is trusted, 0 to 1: the rest is its capacity share.
    pub trust: f64,
    /// `r_i`: the inflow that is wanted, requests/s.
    pub inflow_rps: f64,
    /// The share that is wanted.
    pub wanted_share: f64,
    /// The share after smoothing.
    pub smoothed_share: f64,
}

/// The share of one backend, with its reasons.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackendShare {
    /// The backend.
    pub address: SocketAddr,
    /// Its group.
    pub group: String,
    /// The part of the model's traffic that is expected there, 0 to 1: an equal part of its group's, or its own where
    /// endpoints have weights.
    pub share: f64,
    /// Its share if only (usual) capacity counted.
    pub capacity_share: f64,
    /// How it came about.
    pub terms: Terms,
    /// Its weight where endpoints have weights: all of a model add up to 100,000.
    pub weight: u32,
    /// What moved it, in words.
    pub reason: String,
}

/// The share of one group: what Envoy is told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupShare {
    /// The group's name.
    pub group: String,
    /// The pool of its backends.
    pub pool: String,
    /// Region and zone of the pool.
    pub zone: String,
    /// Its members, sorted.
    pub members: Vec<SocketAddr>,
    /// Share of the model's traffic, 0 to 1.
    pub share: f64,
}

/// One evaluation of the law for one model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WeightDecision {
    /// What to remember.
    pub state: WeightState,
    /// Shares by backend, sorted by address.
    pub backends: Vec<BackendShare>,
    /// Shares by group, sorted by name.
    pub groups: Vec<GroupShare>,
    /// `l`: cost of one more request, the same at all backends that are not at a bound, seconds; none without backends.
    pub level_seconds: Option<f64>,
    /// How shares are handed to Envoy.
    pub form: Form,
    /// Whether the change is worth publishing.
    pub publish: bool,
}
