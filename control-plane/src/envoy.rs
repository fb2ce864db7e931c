//! Envoy: what the proxies themselves tell, made into plain values.
//!
//! ```text
//! load reports ─► NodeLoad    requests per model and group since the last report, requests in progress per backend
//!              └► OrcaTally   what backends say of themselves in their answers; goes on as pushed telemetry
//! access logs ──► Sampler ──► Tally ─► LogSummary    first bytes, durations, errors, tokens, lanes and requests without a
//!                             Losses ──┘             backend, once a second
//! ```
//!
//! Everything but [`Collector`] is pure. A proxy is heard only about the gateway that it belongs to, and what it says is
//! believed within bounds: of time, of size, of number.

mod clusters;
mod collect;
mod entry;
mod groups;
mod lanes;
mod load;
mod log_summary;
mod losses;
mod metrics;
mod orca;
mod outcomes;
mod reading;
mod sampler;
mod tally;
mod zone_group;

pub use clusters::{Part, model_of_cluster, predictive_key, static_cluster};
pub use collect::{Collector, EnvoyNews};
pub use entry::{BODY_TAG, Exchange, ROUTE_TAG, Refused};
pub use groups::GroupLoad;
pub use lanes::{Lane, LaneCounts, LaneLog, lane_route, refusal_route, shed_key};
pub use load::{EndpointLoad, ModelLoad, NodeLoad, node_of, reporter};
pub use log_summary::{BackendLog, FirstBytes, LogSummary, Responses, Tokens};
pub use losses::Losses;
pub use metrics::EnvoyMetrics;
pub use orca::{OrcaReading, OrcaTally};
pub use outcomes::{ComparedSince, Promises};
pub use reading::Reading;
pub use sampler::Sampler;
pub use tally::Tally;
pub use zone_group::{canary_group, parts_of_group, zone_group};

use crate::config::{Config, Gateway};

/// The gateway to which Envoys of a `node.cluster` belong: the one that names it, else the one that names none.
pub fn gateway_of(config: &Config, node_cluster: &str) -> Option<Gateway> {
    let gateways = config.gateways();
    let named = gateways.iter().find(|gateway| gateway.node_cluster.as_deref() == Some(node_cluster));
    named.or_else(|| gateways.iter().find(|gateway| gateway.node_cluster.is_none())).cloned()
}

/// The same, but none that the names in the Envoy's certificate do not open.
pub fn gateway_for(config: &Config, node_cluster: &str, identities: &[String]) -> Option<Gateway> {
    gateway_of(config, node_cluster).filter(|gateway| config.listen.opens(&gateway.name, identities))
}

#[cfg(test)]
mod hostile_tests;
