//! The messages of a resource that say more than the name of a cluster.

use envoy_types::pb::envoy::config::cluster::v3::cluster::{LeastRequestLbConfig, RingHashLbConfig};
use envoy_types::pb::envoy::config::core::v3::{ConfigSource, ExtensionConfigSource};
use envoy_types::pb::envoy::config::listener::v3::listener::FcdsConfig;
use envoy_types::pb::envoy::config::route::v3::{RateLimit, RetryPolicy, Vhds, WeightedCluster};
use envoy_types::pb::envoy::extensions::access_loggers::filters::process_ratelimit::v3::DynamicTokenBucket;
use envoy_types::pb::envoy::extensions::clusters::aggregate::v3::AggregateClusterResource;
use envoy_types::pb::envoy::extensions::filters::network::dubbo_proxy::v3::Drds;
use envoy_types::pb::envoy::extensions::filters::network::generic_proxy::v3::GenericRds;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::scoped_routes::ConfigSpecifier;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    Rds, ScopedRds, ScopedRoutes,
};
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy;
use envoy_types::pb::envoy::extensions::filters::network::thrift_proxy::v3::Trds;
use envoy_types::pb::envoy::extensions::load_balancing_policies::least_request::v3::LeastRequest;
use envoy_types::pb::envoy::extensions::load_balancing_policies::ring_hash::v3::RingHash;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::SdsSecretConfig;
use prost::Name;

use super::walk::Visitor;
use super::{Findings, Source};
use crate::resource_type::ResourceType;
use crate::snapshot::checks::messages;
use crate::snapshot::checks::runtime::Shares;
use crate::snapshot::fault::Fault;
use crate::snapshot::weights;

/// Collects the findings of one resource.
pub(super) struct Collector<'a> {
    resource_type: ResourceType,
    resource: &'a str,
    pub(super) findings: Findings,
}

impl<'a> Collector<'a> {
    pub(super) fn new(resource_type: ResourceType, resource: &'a str) -> Self {
        Self { resource_type, resource, findings: Findings::default() }
    }

    /// Decodes a message. Bytes that are no `M` become a fault.
    fn read<M: Name + Default>(&mut self, bytes: &[u8]) -> Option<M> {
        M::decode(bytes).map_err(|error| self.unreadable(&M::type_url(), error.to_string())).ok()
    }

    fn not_served<M: Name + Default>(
        &mut self,
        bytes: &[u8],
        source: impl Fn(&M) -> Option<&ConfigSource>,
        what: impl Fn(&M) -> String,
    ) {
        let Some(message) = self.read::<M>(bytes) else { return };
        if Source::of(source(&message)) == Source::ThisServer {
            let fault = Fault::NotServed {
                resource_type: self.resource_type,
                resource: self.resource.to_owned(),
                what: what(&message),
            };
            self.findings.faults.push(fault);
        }
    }

    fn add_route_configuration(&mut self, source: Option<&ConfigSource>, name: &str) {
        let references = &mut self.findings.references;
        match Source::of(source) {
            _ if name.is_empty() => {}
            Source::ThisServer => drop(references.route_configurations.insert(name.into())),
            Source::Named => drop(references.routes_by_name.insert(name.into())),
            Source::Elsewhere => {}
        }
    }

    fn add_scoped_routes(&mut self, routes: &ScopedRoutes) {
        let Some(ConfigSpecifier::ScopedRouteConfigurationsList(list)) = &routes.config_specifier else {
            return;
        };
        for scope in &list.scoped_route_configurations {
            self.add_route_configuration(routes.rds_config_source.as_ref(), &scope.route_configuration_name);
        }
    }

    fn add_secret(&mut self, secret: &SdsSecretConfig) {
        if Source::of(secret.sds_config.as_ref()) == Source::ThisServer && !secret.name.is_empty() {
            self.findings.references.secrets.insert(secret.name.as_str().into());
        }
    }

    fn add_weighted_clusters(&mut self, weighted: &WeightedCluster) {
        let fault = weights::of_weighted_clusters(self.resource_type, self.resource, weighted);
        self.findings.faults.extend(fault);
        self.findings.references.shares.extend(Shares::of(weighted));
    }

    fn add_policy_of_cluster(&mut self, message: &str, bytes: &[u8]) {
        let fault = match message {
            "envoy.config.cluster.v3.Cluster.LeastRequestLbConfig" => {
                let config = self.read::<LeastRequestLbConfig>(bytes);
                config.and_then(|config| messages::choice_count(self.resource, config.choice_count))
            }
            "envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest" => {
                let config = self.read::<LeastRequest>(bytes);
                config.and_then(|config| messages::choice_count(self.resource, config.choice_count))
            }
            "envoy.config.cluster.v3.Cluster.RingHashLbConfig" => {
                self.read::<RingHashLbConfig>(bytes).and_then(|config| {
                    messages::ring_size(self.resource, config.minimum_ring_size, config.maximum_ring_size)
                })
            }
            "envoy.extensions.load_balancing_policies.ring_hash.v3.RingHash" => {
                self.read::<RingHash>(bytes).and_then(|config| {
                    messages::ring_size(self.resource, config.minimum_ring_size, config.maximum_ring_size)
                })
            }
            "envoy.config.cluster.v3.Cluster.CommonLbConfig.LocalityWeightedLbConfig"
            | "envoy.extensions.load_balancing_policies.common.v3.LocalityLbConfig.LocalityWeightedLbConfig"
            | "envoy.extensions.load_balancing_policies.wrr_locality.v3.WrrLocality" => {
                self.findings.references.locality_weighted = true;
                None
            }
            _ => None,
        };
        self.findings.faults.extend(fault);
    }

    fn add_source(&mut self, message: &str, bytes: &[u8]) {
        match message {
            "envoy.config.core.v3.ExtensionConfigSource" => self.not_served::<ExtensionConfigSource>(
                bytes,
                |extension| extension.config_source.as_ref(),
                |extension| format!("extension configuration (ECDS) of {}", extension.type_urls.join(", ")),
            ),
            "envoy.config.route.v3.Vhds" => self.not_served::<Vhds>(
                bytes,
                |vhds| vhds.config_source.as_ref(),
                |_| "virtual hosts (VHDS)".to_owned(),
            ),
            "envoy.extensions.filters.network.http_connection_manager.v3.ScopedRds" => {
                self.not_served::<ScopedRds>(
                    bytes,
                    |scoped| scoped.scoped_rds_config_source.as_ref(),
                    |_| "scoped routes (SRDS)".to_owned(),
                );
            }
            "envoy.config.listener.v3.Listener.FcdsConfig" => self.not_served::<FcdsConfig>(
                bytes,
                |chains| chains.config_source.as_ref(),
                |chains| format!("filter chains (FCDS) {:?}", chains.name),
            ),
            "envoy.extensions.clusters.aggregate.v3.AggregateClusterResource" => {
                self.not_served::<AggregateClusterResource>(
                    bytes,
                    |members| members.config_source.as_ref(),
                    |members| format!("members of an aggregate cluster {:?}", members.resource_name),
                );
            }
            "envoy.extensions.access_loggers.filters.process_ratelimit.v3.DynamicTokenBucket" => {
                self.not_served::<DynamicTokenBucket>(
                    bytes,
                    |bucket| bucket.config_source.as_ref(),
                    |bucket| format!("token bucket {:?}", bucket.resource_name),
                );
            }
            "envoy.extensions.filters.network.dubbo_proxy.v3.Drds" => self.not_served::<Drds>(
                bytes,
                |routes| routes.config_source.as_ref(),
                |routes| format!("routes of Dubbo {:?}", routes.route_config_name),
            ),
            "envoy.extensions.filters.network.generic_proxy.v3.GenericRds" => self.not_served::<GenericRds>(
                bytes,
                |routes| routes.config_source.as_ref(),
                |routes| format!("routes of the generic proxy {:?}", routes.route_config_name),
            ),
            "envoy.extensions.filters.network.thrift_proxy.v3.Trds" => self.not_served::<Trds>(
                bytes,
                |routes| routes.config_source.as_ref(),
                |routes| format!("routes of Thrift {:?}", routes.route_config_name),
            ),
            _ => {}
        }
    }
}

impl Visitor for Collector<'_> {
    fn cluster(&mut self, name: &str) {
        self.findings.references.clusters.insert(name.into());
    }

    fn message(&mut self, within: &str, message: &str, bytes: &[u8]) {
        match message {
            "envoy.extensions.filters.network.http_connection_manager.v3.Rds" => {
                if let Some(rds) = self.read::<Rds>(bytes) {
                    self.add_route_configuration(rds.config_source.as_ref(), &rds.route_config_name);
                }
            }
            "envoy.extensions.filters.network.http_connection_manager.v3.ScopedRoutes" => {
                if let Some(routes) = self.read::<ScopedRoutes>(bytes) {
                    self.add_scoped_routes(&routes);
                }
            }
            "envoy.extensions.transport_sockets.tls.v3.SdsSecretConfig" => {
                if let Some(secret) = self.read::<SdsSecretConfig>(bytes) {
                    self.add_secret(&secret);
                }
            }
            "envoy.config.route.v3.WeightedCluster" => {
                if let Some(weighted) = self.read::<WeightedCluster>(bytes) {
                    self.add_weighted_clusters(&weighted);
                }
            }
            "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy.WeightedCluster" => {
                if let Some(weighted) = self.read::<tcp_proxy::WeightedCluster>(bytes) {
                    let faults =
                        weights::of_tcp_weighted_clusters(self.resource_type, self.resource, &weighted);
                    self.findings.faults.extend(faults);
                }
            }
            "envoy.config.route.v3.RetryPolicy" => {
                if let Some(policy) = self.read::<RetryPolicy>(bytes) {
                    let faults = messages::retry_conditions(self.resource_type, self.resource, &policy);
                    self.findings.faults.extend(faults);
                }
            }
            "envoy.config.route.v3.RateLimit" => {
                if let Some(limit) = self.read::<RateLimit>(bytes) {
                    let fault = messages::hits_addend(self.resource_type, self.resource, within, &limit);
                    self.findings.faults.extend(fault);
                }
            }
            _ if self.resource_type == ResourceType::Cluster => {
                self.add_policy_of_cluster(message, bytes);
                self.add_source(message, bytes);
            }
            _ => self.add_source(message, bytes),
        }
    }

    fn unreadable(&mut self, type_url: &str, reason: String) {
        self.findings.faults.push(Fault::Undecodable {
            resource_type: self.resource_type,
            resource: self.resource.to_owned(),
            type_url: type_url.to_owned(),
            reason,
        });
    }
}
