//! Resources that both Envoy and gRPC take: HTTP over clusters with endpoints from the server.

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, DiscoveryType, EdsClusterConfig,
};
use envoy_types::pb::envoy::config::core::v3::address::Address as AddressKind;
use envoy_types::pb::envoy::config::core::v3::config_source::ConfigSourceSpecifier;
use envoy_types::pb::envoy::config::core::v3::socket_address::PortSpecifier;
use envoy_types::pb::envoy::config::core::v3::{
    Address, AggregatedConfigSource, ApiVersion, ConfigSource, Locality, SocketAddress,
};
use envoy_types::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use envoy_types::pb::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints,
};
use envoy_types::pb::envoy::config::route::v3::route::Action;
use envoy_types::pb::envoy::config::route::v3::route_action::ClusterSpecifier;
use envoy_types::pb::envoy::config::route::v3::route_match::PathSpecifier;
use envoy_types::pb::envoy::config::route::v3::weighted_cluster::ClusterWeight;
use envoy_types::pb::envoy::config::route::v3::{
    Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost, WeightedCluster,
};
use envoy_types::pb::envoy::extensions::filters::http::router::v3::Router;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::RouteSpecifier;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, HttpFilter, Rds, http_filter,
};
use envoy_types::pb::google::protobuf::UInt32Value;
use envoy_types::util::pack_any;

pub(crate) const LISTENER: &str = "front";
pub(crate) const ROUTES: &str = "routes";

/// The stream that the resource itself came from.
pub(crate) fn ads() -> ConfigSource {
    ConfigSource {
        resource_api_version: ApiVersion::V3 as i32,
        config_source_specifier: Some(ConfigSourceSpecifier::Ads(AggregatedConfigSource {})),
        ..Default::default()
    }
}

/// A cluster that takes its endpoints from `source`.
pub(crate) fn cluster(name: &str, source: &ConfigSource) -> Cluster {
    Cluster {
        name: name.into(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds as i32)),
        eds_cluster_config: Some(EdsClusterConfig { eds_config: Some(source.clone()), ..Default::default() }),
        ..Default::default()
    }
}

/// Zones, each with its weight and the ports of its endpoints on the loopback address.
pub(crate) fn assignment(cluster: &str, zones: &[(&str, u32, &[u16])]) -> ClusterLoadAssignment {
    let endpoint = |port: &u16| LbEndpoint {
        host_identifier: Some(HostIdentifier::Endpoint(Endpoint {
            address: Some(loopback(*port)),
            ..Default::default()
        })),
        ..Default::default()
    };
    let zone = |(zone, weight, ports): &(&str, u32, &[u16])| LocalityLbEndpoints {
        locality: Some(Locality { zone: (*zone).into(), ..Default::default() }),
        lb_endpoints: ports.iter().map(endpoint).collect(),
        load_balancing_weight: Some(UInt32Value { value: *weight }),
        ..Default::default()
    };
    ClusterLoadAssignment {
        cluster_name: cluster.into(),
        endpoints: zones.iter().map(zone).collect(),
        ..Default::default()
    }
}

/// Sends everything to these clusters, by their weights.
pub(crate) fn routes(clusters: &[(&str, u32)]) -> RouteConfiguration {
    let specifier = match clusters {
        [(cluster, _)] => ClusterSpecifier::Cluster((*cluster).into()),
        _ => ClusterSpecifier::WeightedClusters(WeightedCluster {
            clusters: clusters.iter().map(weighted).collect(),
            ..Default::default()
        }),
    };
    let route = Route {
        r#match: Some(RouteMatch {
            path_specifier: Some(PathSpecifier::Prefix("/".into())),
            ..Default::default()
        }),
        action: Some(Action::Route(RouteAction { cluster_specifier: Some(specifier), ..Default::default() })),
        ..Default::default()
    };
    RouteConfiguration {
        name: ROUTES.into(),
        virtual_hosts: vec![VirtualHost {
            name: ROUTES.into(),
            domains: vec!["*".into()],
            routes: vec![route],
            ..Default::default()
        }],
        ..Default::default()
    }
}

fn weighted((name, weight): &(&str, u32)) -> ClusterWeight {
    ClusterWeight { name: (*name).into(), weight: Some(UInt32Value { value: *weight }), ..Default::default() }
}

/// Takes [`ROUTES`] from `source`.
pub(crate) fn manager(source: &ConfigSource) -> HttpConnectionManager {
    HttpConnectionManager {
        stat_prefix: LISTENER.into(),
        route_specifier: Some(RouteSpecifier::Rds(Rds {
            config_source: Some(source.clone()),
            route_config_name: ROUTES.into(),
        })),
        http_filters: vec![HttpFilter {
            name: "router".into(),
            config_type: Some(http_filter::ConfigType::TypedConfig(pack_any(Router::default()))),
            ..Default::default()
        }],
        ..Default::default()
    }
}

pub(crate) fn loopback(port: u16) -> Address {
    Address {
        address: Some(AddressKind::SocketAddress(SocketAddress {
            address: "127.0.0.1".into(),
            port_specifier: Some(PortSpecifier::PortValue(port.into())),
            ..Default::default()
        })),
    }
}
