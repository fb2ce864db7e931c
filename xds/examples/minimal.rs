//! A whole xDS server: one cluster with one endpoint, for every proxy that connects.
//!
//! `cargo run --example minimal -- 127.0.0.1:18000 127.0.0.1:8080`: where to listen, where the endpoint is.

use std::error::Error;
use std::net::SocketAddr;

use clairvoy_xds::{ServerOptions, SnapshotBuilder, XdsServer};
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

const CLUSTER: &str = "backend";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let listen: SocketAddr = arguments.next().as_deref().unwrap_or("127.0.0.1:18000").parse()?;
    let endpoint: SocketAddr = arguments.next().as_deref().unwrap_or("127.0.0.1:8080").parse()?;

    let mut builder = SnapshotBuilder::new();
    builder.cluster(cluster()).assignment(assignment(endpoint));
    let snapshot = builder.build()?;

    let server = XdsServer::new(ServerOptions::single_group("all"));
    server.publish("all", snapshot);
    tonic::transport::Server::builder().add_service(server.service()).serve(listen).await?;
    Ok(())
}

fn cluster() -> Cluster {
    let ads = ConfigSource {
        resource_api_version: ApiVersion::V3 as i32,
        config_source_specifier: Some(ConfigSourceSpecifier::Ads(AggregatedConfigSource {})),
        ..Default::default()
    };
    Cluster {
        name: CLUSTER.into(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds as i32)),
        eds_cluster_config: Some(EdsClusterConfig { eds_config: Some(ads), ..Default::default() }),
        ..Default::default()
    }
}

fn assignment(endpoint: SocketAddr) -> ClusterLoadAssignment {
    let address = SocketAddress {
        address: endpoint.ip().to_string(),
        port_specifier: Some(PortSpecifier::PortValue(endpoint.port().into())),
        ..Default::default()
    };
    let endpoint = Endpoint {
        address: Some(Address { address: Some(AddressKind::SocketAddress(address)) }),
        ..Default::default()
    };
    let endpoint =
        LbEndpoint { host_identifier: Some(HostIdentifier::Endpoint(endpoint)), ..Default::default() };
    ClusterLoadAssignment {
        cluster_name: CLUSTER.into(),
        endpoints: vec![LocalityLbEndpoints { lb_endpoints: vec![endpoint], ..Default::default() }],
        ..Default::default()
    }
}
