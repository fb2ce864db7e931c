//! What a resource names: clusters, assignments, route configurations.
//!
//! Followed are: routes, weighted clusters and mirrors of route configurations, also of those inside a
//! listener; TCP proxies; members of aggregate clusters. Clusters that HTTP filters, access logs, headers
//! or plugins choose are not.

use std::collections::BTreeSet;

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType};
use envoy_types::pb::envoy::config::core::v3::ConfigSource;
use envoy_types::pb::envoy::config::core::v3::config_source::ConfigSourceSpecifier;
use envoy_types::pb::envoy::config::listener::v3::filter::ConfigType;
use envoy_types::pb::envoy::config::listener::v3::{FilterChain, Listener};
use envoy_types::pb::envoy::config::route::v3::route::Action;
use envoy_types::pb::envoy::config::route::v3::route_action::{ClusterSpecifier, RequestMirrorPolicy};
use envoy_types::pb::envoy::config::route::v3::{RouteAction, RouteConfiguration};
use envoy_types::pb::envoy::extensions::clusters::aggregate::v3::ClusterConfig;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::RouteSpecifier;
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy;
use envoy_types::pb::google::protobuf::Any;
use prost::Name;

use super::fault::Fault;
use super::weights;
use crate::resource_type::ResourceType;

/// The names in one resource, and the faults met while they were collected.
#[derive(Debug, Default)]
pub(super) struct References {
    pub(super) clusters: BTreeSet<String>,
    pub(super) route_configurations: BTreeSet<String>,
    pub(super) assignment: Option<String>,
    pub(super) faults: Vec<Fault>,
}

impl References {
    pub(super) fn of_cluster(cluster: &Cluster) -> Self {
        let mut found = Self::default();
        match &cluster.cluster_discovery_type {
            Some(ClusterDiscoveryType::Type(kind)) if *kind == DiscoveryType::Eds as i32 => {
                found.assignment = assignment_name(cluster);
            }
            Some(ClusterDiscoveryType::ClusterType(custom)) => {
                let config = custom.typed_config.as_ref();
                let aggregate = found.unpack::<ClusterConfig>(ResourceType::Cluster, &cluster.name, config);
                found.clusters.extend(aggregate.unwrap_or_default().clusters);
            }
            _ => {}
        }
        found
    }

    pub(super) fn of_listener(listener: &Listener) -> Self {
        let mut found = Self::default();
        let filters = listener.filter_chains.iter().chain(&listener.default_filter_chain).flat_map(filters);
        let api = listener.api_listener.as_ref().and_then(|api| api.api_listener.as_ref());
        for config in filters.chain(api) {
            found.add_network_filter(&listener.name, config);
        }
        found
    }

    pub(super) fn of_route_configuration(config: &RouteConfiguration) -> Self {
        let mut found = Self::default();
        found.add_routes(ResourceType::RouteConfiguration, &config.name, config);
        found
    }

    fn add_network_filter(&mut self, listener: &str, config: &Any) {
        let kind = ResourceType::Listener;
        if let Some(manager) = self.unpack::<HttpConnectionManager>(kind, listener, Some(config)) {
            match manager.route_specifier {
                Some(RouteSpecifier::Rds(rds)) if from_this_server(rds.config_source.as_ref()) => {
                    self.route_configurations.insert(rds.route_config_name);
                }
                Some(RouteSpecifier::RouteConfig(routes)) => self.add_routes(kind, listener, &routes),
                _ => {}
            }
        }
        if let Some(proxy) = self.unpack::<TcpProxy>(kind, listener, Some(config)) {
            match proxy.cluster_specifier {
                Some(tcp_proxy::ClusterSpecifier::Cluster(name)) => {
                    self.clusters.insert(name);
                }
                Some(tcp_proxy::ClusterSpecifier::WeightedClusters(weighted)) => {
                    self.clusters.extend(weighted.clusters.into_iter().map(|cluster| cluster.name));
                }
                None => {}
            }
        }
    }

    fn add_routes(&mut self, resource_type: ResourceType, resource: &str, config: &RouteConfiguration) {
        self.add_mirrors(&config.request_mirror_policies);
        for host in &config.virtual_hosts {
            self.add_mirrors(&host.request_mirror_policies);
            for route in &host.routes {
                if let Some(Action::Route(action)) = &route.action {
                    self.add_route_action(resource_type, resource, action);
                }
            }
        }
    }

    fn add_route_action(&mut self, resource_type: ResourceType, resource: &str, action: &RouteAction) {
        self.add_mirrors(&action.request_mirror_policies);
        match &action.cluster_specifier {
            Some(ClusterSpecifier::Cluster(name)) => {
                self.clusters.insert(name.clone());
            }
            Some(ClusterSpecifier::WeightedClusters(weighted)) => {
                let named = weighted.clusters.iter().filter(|cluster| !cluster.name.is_empty());
                self.clusters.extend(named.map(|cluster| cluster.name.clone()));
                self.faults.extend(weights::of_weighted_clusters(resource_type, resource, weighted));
            }
            _ => {}
        }
    }

    fn add_mirrors(&mut self, policies: &[RequestMirrorPolicy]) {
        let named = policies.iter().filter(|policy| !policy.cluster.is_empty());
        self.clusters.extend(named.map(|policy| policy.cluster.clone()));
    }

    /// Decodes `any` if it holds an `M`. Bytes that are no `M` become a fault.
    fn unpack<M: Name + Default>(
        &mut self,
        resource_type: ResourceType,
        resource: &str,
        any: Option<&Any>,
    ) -> Option<M> {
        let any = any.filter(|any| any.type_url == M::type_url())?;
        match M::decode(any.value.as_slice()) {
            Ok(message) => Some(message),
            Err(error) => {
                self.faults.push(Fault::Undecodable {
                    resource_type,
                    resource: resource.to_owned(),
                    type_url: any.type_url.clone(),
                    reason: error.to_string(),
                });
                None
            }
        }
    }
}

fn filters(chain: &FilterChain) -> impl Iterator<Item = &Any> {
    chain.filters.iter().filter_map(|filter| match &filter.config_type {
        Some(ConfigType::TypedConfig(config)) => Some(config),
        _ => None,
    })
}

fn assignment_name(cluster: &Cluster) -> Option<String> {
    let config = cluster.eds_cluster_config.as_ref();
    if !from_this_server(config.and_then(|config| config.eds_config.as_ref())) {
        return None;
    }
    let service = config.map(|config| config.service_name.clone()).filter(|name| !name.is_empty());
    Some(service.unwrap_or_else(|| cluster.name.clone()))
}

fn from_this_server(source: Option<&ConfigSource>) -> bool {
    let specifier = source.and_then(|source| source.config_source_specifier.as_ref());
    matches!(specifier, Some(ConfigSourceSpecifier::Ads(_) | ConfigSourceSpecifier::Self_(_)))
}
