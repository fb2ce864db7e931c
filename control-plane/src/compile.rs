//! Compile: what should be true of the traffic, as Envoy resources.
//!
//! Pure: the same [`Intent`] gives the same messages, so that replicas agree on resource versions without talking.
//! Everything that could vary in its encoding (protobuf maps) is avoided, and all lists are sorted.

mod access_log;
mod bootstrap;
mod cluster;
mod endpoints;
mod errors;
mod health;
mod lanes;
mod listener;
mod policy;
mod proto;
mod routes;
mod runtime;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;

use envoy_types::pb::envoy::config::{
    cluster::v3::Cluster, endpoint::v3::ClusterLoadAssignment, listener::v3::Listener,
    route::v3::RouteConfiguration,
};
use envoy_types::pb::envoy::service::runtime::v3::Runtime;

use crate::config::{Config, Gateway, Model, ModelBalance, OutlierDetection, Span, Timeouts};
use crate::decide::Zone;

pub use access_log::{AccessLogIntent, BearerToken};
pub use bootstrap::{
    BootstrapOptions, ClusterChoice, Format, MergeError, MergeOptions, Merged, NodeOptions, Serve,
    SyntaxError, Variant, XDS_CLUSTER, XdsAddress, XdsTls, bootstrap, merge,
};
pub use lanes::LanesIntent;
pub use runtime::{RUNTIME_LAYER, RUNTIME_TTL};

/// What one gateway's Envoys should do.
#[derive(Clone, Debug)]
pub struct Intent {
    /// The listener that they open.
    pub gateway: Gateway,
    /// The models that they route to, sorted by name.
    pub models: Vec<ModelIntent>,
    /// The log of the listener's requests; none: they are not logged.
    pub access_log: Option<AccessLogIntent>,
}

/// One model: two Envoy clusters with the same endpoints, one with shares by predictions and one with shares by capacity,
/// and the routes that lead to them.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelIntent {
    /// The name in the `model` field of requests, and of the cluster with shares by predictions.
    pub name: String,
    /// Time limits of its route.
    pub timeouts: Timeouts,
    /// How Envoys see for themselves who does not serve.
    pub health: HealthIntent,
    /// How its requests are spread over its endpoints.
    pub balance: ModelBalance,
    /// Metrics of ORCA that Envoys report of its backends, sorted; none: they report none.
    pub load_metrics: Vec<String>,
    /// Which of its requests can wait, and what is refused.
    pub lanes: LanesIntent,
    /// Percent of its requests that take the first cluster as long as somebody stands by it, 0 to 100, where routes ask the
    /// runtime layer. The others take the static twin, and so do all within seconds after the control plane is gone.
    pub predictive_percent: u32,
    /// The Envoys in which that applies, where these are not all: those with a number below this one. The others take the
    /// static twin.
    pub steered_proxies: Option<u32>,
    /// Its endpoints in groups of equal predicted speed.
    pub groups: Vec<GroupIntent>,
    /// The same endpoints in groups with shares by capacity.
    pub static_groups: Vec<GroupIntent>,
    /// Groups of both clusters that take requests only while none of the others can.
    pub spare_groups: Vec<GroupIntent>,
    /// The part of the requests that these take meanwhile, 0 to 1: they take all while none of the others can, and keep a part
    /// while the others come back.
    pub spare_part: f64,
    /// What the Envoys of some zones are told instead.
    pub views: Vec<ViewIntent>,
}

impl ModelIntent {
    /// Whether its requests go by capacity shares when nobody stands by ours. Where Envoy balances by itself they need not.
    fn falls_back(&self) -> bool {
        self.balance.policy.has_groups()
    }
}

/// How Envoys see for themselves which endpoints of a model do not serve.
#[derive(Clone, Debug, PartialEq)]
pub struct HealthIntent {
    /// By requests of their own; none: by none. Only while predictions steer: the static twin has none.
    pub checks: Option<CheckIntent>,
    /// By clients' requests that fail.
    pub outlier_detection: OutlierDetection,
    /// Longest wait for a connection.
    pub connect_timeout: Span,
}

/// Requests by which Envoys check endpoints.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckIntent {
    /// What is asked for.
    pub path: String,
    /// Time between two checks.
    pub interval: Span,
    /// Longest wait for an answer.
    pub timeout: Span,
    /// Failures in a row after which an endpoint gets nothing.
    pub unhealthy_threshold: u32,
    /// Good answers in a row after which it gets requests again.
    pub healthy_threshold: u32,
}

impl HealthIntent {
    /// What is configured for a model.
    pub fn of(model: &Model, config: &Config) -> Self {
        // A configuration without a path was refused.
        let check = |path: String| {
            let health = model.health.as_ref()?;
            Some(CheckIntent {
                path,
                interval: health.interval,
                timeout: health.timeout(&model.slo),
                unhealthy_threshold: health.unhealthy_threshold,
                healthy_threshold: health.healthy_threshold,
            })
        };
        Self {
            checks: config.health_path(model).ok().and_then(check),
            outlier_detection: model.outlier_detection.clone(),
            connect_timeout: model.connect_timeout(),
        }
    }
}

/// The shares by predictions for the Envoys of one zone.
#[derive(Clone, Debug, PartialEq)]
pub struct ViewIntent {
    /// The zone.
    pub zone: Zone,
    /// The weight of each of the model's `groups`, in their order, each at least 1.
    pub weights: Vec<u32>,
}

/// Backends of equal predicted speed in one zone: one Envoy locality.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupIntent {
    /// Region of the locality.
    pub region: String,
    /// Zone of the locality.
    pub zone: String,
    /// Name of the group; becomes the locality's `sub_zone`.
    pub name: String,
    /// Whether Envoys check its endpoints, where they check any of the model's.
    pub is_checked: bool,
    /// Share of the model's traffic in ten-thousandths, at least 1.
    pub weight: u32,
    /// The endpoints, sorted by address.
    pub endpoints: Vec<EndpointIntent>,
}

/// One backend.
#[derive(Clone, Debug, PartialEq)]
pub struct EndpointIntent {
    /// Address of the serving process.
    pub address: SocketAddr,
    /// True while it takes no new requests and finishes its streams.
    pub draining: bool,
    /// Its weight among those of its group; 1 for all where they are equal.
    pub weight: u32,
}

/// The resources of one gateway.
#[derive(Clone, Debug)]
pub struct Resources {
    /// One listener.
    pub listener: Listener,
    /// Its routes.
    pub routes: RouteConfiguration,
    /// Two clusters a model.
    pub clusters: Vec<Cluster>,
    /// The assignment of each cluster.
    pub assignments: Vec<ClusterLoadAssignment>,
    /// The runtime layer that tells which models' requests go by predictions. It is to have a TTL of [`RUNTIME_TTL`].
    pub runtime: Runtime,
}

/// Compiles what the Envoys of a zone have instead of the assignments of the same names that [`compile`] makes. All other
/// resources are the same for all zones of a gateway.
pub fn compile_zone(models: &[ModelIntent], zone: &Zone) -> Vec<ClusterLoadAssignment> {
    models.iter().filter_map(|model| endpoints::view(model, zone)).collect()
}

/// Compiles the runtime layer of the Envoys that are steered with shares of proxies of this many percent and more. All other
/// resources are those of the other Envoys.
pub fn compile_canary(models: &[ModelIntent], percent: u32) -> Runtime {
    runtime::layer(models, Some(percent))
}

/// Compiles the resources of one gateway.
pub fn compile(intent: &Intent) -> Resources {
    Resources {
        listener: listener::listener(&intent.gateway, intent.access_log.as_ref()),
        routes: routes::routes(&intent.gateway, &intent.models),
        clusters: intent.models.iter().flat_map(cluster::clusters).collect(),
        assignments: intent.models.iter().flat_map(endpoints::assignments).collect(),
        runtime: runtime::layer(&intent.models, None),
    }
}
