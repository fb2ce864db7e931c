//! What a resource names, and what other resources have to know of it.
//!
//! Clusters are found wherever a message of the Envoy API names one: in routes, filters, access logs,
//! tracers, tunnels, mirrors and aggregate clusters, packed or not. Not found are those that are chosen
//! while a request is served: by headers, by scripts and by plugins.

mod sites;
mod walk;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType};
use envoy_types::pb::envoy::config::core::v3::ConfigSource;
use envoy_types::pb::envoy::config::core::v3::config_source::ConfigSourceSpecifier;
use envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use envoy_types::pb::envoy::service::runtime::v3::Runtime;
use prost::Name;

use super::checks::assignment as endpoints;
use super::checks::runtime::{self, RuntimeValue, Shares};
use super::fault::Fault;
use super::weights;
use crate::resource_type::ResourceType;

/// The names in one resource, and what is checked together with other resources.
#[derive(Debug, Default)]
pub(super) struct References {
    pub(super) clusters: BTreeSet<Arc<str>>,
    pub(super) route_configurations: BTreeSet<Arc<str>>,
    pub(super) secrets: BTreeSet<Arc<str>>,
    /// The assignment that a cluster asks for.
    pub(super) assignment: Option<Arc<str>>,
    /// The assignment and the route configurations that a client asks a server for that is named, which may be
    /// this one.
    pub(super) assignment_by_name: Option<Arc<str>>,
    pub(super) routes_by_name: BTreeSet<Arc<str>>,
    /// True for a cluster whose localities share its requests by their weights.
    pub(super) locality_weighted: bool,
    /// True for an assignment without any endpoint.
    pub(super) no_endpoints: bool,
    /// Localities of an assignment that have no weight beside others that have one.
    pub(super) unweighted_localities: Vec<String>,
    /// Shares of routes that keys of a runtime layer may replace.
    pub(super) shares: BTreeSet<Shares>,
    /// The keys of a runtime layer.
    pub(super) runtime: BTreeMap<String, RuntimeValue>,
}

/// The references of a resource, and the faults that it has by itself.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) references: References,
    pub(super) faults: Vec<Fault>,
}

impl Findings {
    pub(super) fn of_cluster(cluster: &Cluster) -> Self {
        let resource_type = ResourceType::Cluster;
        let mut found = Self::of_message(resource_type, &cluster.name, cluster);
        if let Some((source, name)) = assignment_name(cluster) {
            match source {
                Source::ThisServer => found.references.assignment = Some(name),
                Source::Named => found.references.assignment_by_name = Some(name),
                Source::Elsewhere => {}
            }
        }
        if let Some(inline) = &cluster.load_assignment {
            found.faults.extend(weights::of_assignment(resource_type, &cluster.name, inline));
        }
        found
    }

    pub(super) fn of_assignment(assignment: &ClusterLoadAssignment) -> Self {
        let resource_type = ResourceType::ClusterLoadAssignment;
        let name = &assignment.cluster_name;
        let mut faults = weights::of_assignment(resource_type, name, assignment);
        faults.extend(endpoints::check(assignment));
        let references = References {
            no_endpoints: endpoints::is_empty(assignment),
            unweighted_localities: weights::unweighted_localities(assignment),
            ..References::default()
        };
        Self { references, faults }
    }

    pub(super) fn of_runtime(layer: &Runtime) -> Self {
        let references = References { runtime: runtime::flatten(layer), ..References::default() };
        Self { references, faults: Vec::new() }
    }

    /// What a message and those packed in it name: all there is to a listener or a route configuration.
    pub(super) fn of_message<M: Name>(resource_type: ResourceType, name: &str, message: &M) -> Self {
        let mut collector = sites::Collector::new(resource_type, name);
        walk::walk(&M::full_name(), &message.encode_to_vec(), &mut collector);
        collector.findings
    }
}

/// The name under which a cluster asks for endpoints, and whom.
fn assignment_name(cluster: &Cluster) -> Option<(Source, Arc<str>)> {
    let eds = ClusterDiscoveryType::Type(DiscoveryType::Eds as i32);
    if cluster.cluster_discovery_type.as_ref() != Some(&eds) {
        return None;
    }
    let config = cluster.eds_cluster_config.as_ref();
    let source = Source::of(config.and_then(|config| config.eds_config.as_ref()));
    let service = config.map(|config| config.service_name.as_str()).filter(|name| !name.is_empty());
    Some((source, service.unwrap_or(&cluster.name).into()))
}

/// Where a client asks for a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// Here, on the stream of all types or where the resource came from that names it.
    ThisServer,
    /// At a server that is a cluster of the client: here or elsewhere.
    Named,
    /// In a file, or nowhere.
    Elsewhere,
}

impl Source {
    pub(super) fn of(source: Option<&ConfigSource>) -> Self {
        match source.and_then(|source| source.config_source_specifier.as_ref()) {
            Some(ConfigSourceSpecifier::Ads(_) | ConfigSourceSpecifier::Self_(_)) => Self::ThisServer,
            Some(ConfigSourceSpecifier::ApiConfigSource(_)) => Self::Named,
            _ => Self::Elsewhere,
        }
    }
}
