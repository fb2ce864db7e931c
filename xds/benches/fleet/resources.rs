//! The fleet's resources: clusters whose endpoints come over the same stream.

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, DiscoveryType, EdsClusterConfig,
};
use envoy_types::pb::envoy::config::core::v3::address::Address as AddressKind;
use envoy_types::pb::envoy::config::core::v3::config_source::ConfigSourceSpecifier;
use envoy_types::pb::envoy::config::core::v3::socket_address::PortSpecifier;
use envoy_types::pb::envoy::config::core::v3::{
    Address, AggregatedConfigSource, ApiVersion, ConfigSource, SocketAddress,
};
use envoy_types::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use envoy_types::pb::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints,
};
use envoy_types::pb::google::protobuf::{Duration, UInt32Value};

const NAME_START: &str = "cluster-";

/// Returns the name of a cluster by its number.
pub(crate) fn name(cluster: usize) -> String {
    format!("{NAME_START}{cluster:04}")
}

/// Returns the number of a cluster by its name.
pub(crate) fn number(name: &[u8]) -> Option<usize> {
    str::from_utf8(name.strip_prefix(NAME_START.as_bytes())?).ok()?.parse().ok()
}

/// Returns a cluster, which never changes.
pub(crate) fn cluster(cluster: usize) -> Cluster {
    let ads = ConfigSource {
        resource_api_version: ApiVersion::V3 as i32,
        config_source_specifier: Some(ConfigSourceSpecifier::Ads(AggregatedConfigSource {})),
        ..Default::default()
    };
    Cluster {
        name: name(cluster),
        connect_timeout: Some(Duration { seconds: 1, nanos: 0 }),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds as i32)),
        eds_cluster_config: Some(EdsClusterConfig { eds_config: Some(ads), ..Default::default() }),
        ..Default::default()
    }
}

/// Returns the endpoints of a cluster. Each generation, from 1, changes every weight; the weight of the first
/// endpoint is the generation itself, by which clients know it.
pub(crate) fn assignment(cluster: usize, endpoints: usize, generation: u32) -> ClusterLoadAssignment {
    let endpoint = |endpoint: usize| {
        let weight = match endpoint {
            0 => generation,
            _ => 1 + (generation * 7 + endpoint as u32 * 13) % 1000,
        };
        let address = SocketAddress {
            address: format!("10.{}.{}.{}", cluster / 250, cluster % 250, endpoint % 250 + 1),
            port_specifier: Some(PortSpecifier::PortValue(8080 + (endpoint / 250) as u32)),
            ..Default::default()
        };
        let endpoint = Endpoint {
            address: Some(Address { address: Some(AddressKind::SocketAddress(address)) }),
            ..Default::default()
        };
        LbEndpoint {
            host_identifier: Some(HostIdentifier::Endpoint(endpoint)),
            load_balancing_weight: Some(UInt32Value { value: weight }),
            ..Default::default()
        }
    };
    ClusterLoadAssignment {
        cluster_name: name(cluster),
        endpoints: vec![LocalityLbEndpoints {
            lb_endpoints: (0..endpoints).map(endpoint).collect(),
            ..Default::default()
        }],
        ..Default::default()
    }
}
