//! States with one listener, and an Envoy that is given them.

use clairvoy_xds::{Snapshot, SnapshotBuilder};
use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::core::v3::api_config_source::ApiType;
use envoy_types::pb::envoy::config::core::v3::config_source::ConfigSourceSpecifier;
use envoy_types::pb::envoy::config::core::v3::grpc_service::{EnvoyGrpc, TargetSpecifier};
use envoy_types::pb::envoy::config::core::v3::{ApiConfigSource, ApiVersion, ConfigSource, GrpcService};
use envoy_types::pb::envoy::config::listener::v3::filter::ConfigType;
use envoy_types::pb::envoy::config::listener::v3::{Filter, FilterChain, Listener};
use envoy_types::pb::google::protobuf::Duration;
use envoy_types::util::pack_any;

use crate::http::Http;
use crate::proxy::{Envoy, XDS_CLUSTER};
use crate::resources;
use crate::served::{Subscription, Variant};
use crate::serving::{Serving, eventually};

/// Where resources of this subscription take others from.
pub(crate) fn source(subscription: Subscription) -> ConfigSource {
    if subscription.aggregated {
        return resources::ads();
    }
    let api_type = match subscription.variant {
        Variant::Delta => ApiType::DeltaGrpc,
        Variant::Sotw => ApiType::Grpc,
    };
    let service = EnvoyGrpc { cluster_name: XDS_CLUSTER.into(), ..Default::default() };
    let service =
        GrpcService { target_specifier: Some(TargetSpecifier::EnvoyGrpc(service)), ..Default::default() };
    let stream = ApiConfigSource {
        api_type: api_type as i32,
        transport_api_version: ApiVersion::V3 as i32,
        grpc_services: vec![service],
        ..Default::default()
    };
    ConfigSource {
        resource_api_version: ApiVersion::V3 as i32,
        config_source_specifier: Some(ConfigSourceSpecifier::ApiConfigSource(stream)),
        ..Default::default()
    }
}

pub(crate) fn cluster(subscription: Subscription, name: &str, connect_timeout_seconds: i64) -> Cluster {
    Cluster {
        connect_timeout: Some(Duration { seconds: connect_timeout_seconds, nanos: 0 }),
        ..resources::cluster(name, &source(subscription))
    }
}

/// Listens on a port that the system gives.
pub(crate) fn listener(subscription: Subscription) -> Listener {
    let manager = resources::manager(&source(subscription));
    Listener {
        name: resources::LISTENER.into(),
        address: Some(resources::loopback(0)),
        filter_chains: vec![FilterChain {
            filters: vec![Filter {
                name: "http".into(),
                config_type: Some(ConfigType::TypedConfig(pack_any(manager))),
            }],
            ..Default::default()
        }],
        ..Default::default()
    }
}

/// Adds clusters with one endpoint each.
pub(crate) fn add_clusters(
    builder: &mut SnapshotBuilder,
    subscription: Subscription,
    clusters: &[(&str, u16)],
) {
    builder.external_cluster(XDS_CLUSTER);
    for (name, port) in clusters {
        builder.cluster(cluster(subscription, name, 1));
        builder.assignment(resources::assignment(name, &[("z", 1, &[*port])]));
    }
}

/// Clusters with one endpoint each, and a listener that sends everything to one of them.
pub(crate) fn stack(subscription: Subscription, clusters: &[(&str, u16)], routed: &str) -> Snapshot {
    let mut builder = SnapshotBuilder::new();
    add_clusters(&mut builder, subscription, clusters);
    builder.listener(listener(subscription));
    builder.route_configuration(resources::routes(&[(routed, 1)]));
    builder.build().unwrap()
}

/// A server and an Envoy that it configures.
pub(crate) struct Site {
    pub(crate) serving: Serving,
    pub(crate) envoy: Envoy,
}

impl Site {
    /// Starts both, and waits until Envoy has the state.
    pub(crate) async fn start(subscription: Subscription, snapshot: Snapshot) -> Self {
        let serving = Serving::start(snapshot).await;
        let envoy = Envoy::start(serving.address, subscription).await;
        let site = Self { serving, envoy };
        eventually("Envoy has started", async || site.envoy.is_live().await).await;
        site.serving.in_sync("the first state is ACKed").await;
        site
    }

    pub(crate) async fn publish(&self, snapshot: Snapshot) {
        self.serving.publish(snapshot);
        self.serving.in_sync("the state is ACKed").await;
    }

    /// Waits until requests are answered, and returns the port of the listener.
    pub(crate) async fn serves(&self) -> u16 {
        let mut port = 0;
        eventually("requests are answered", async || {
            port = self.envoy.listener_port().await.unwrap_or_default();
            port != 0 && matches!(Http::get_once(port, "/").await, Ok((200, _)))
        })
        .await;
        port
    }
}
