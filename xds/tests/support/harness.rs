//! A server on a port of the loopback interface, and clients that say what a test tells them.

mod client;
mod raw;
mod variant;

pub(crate) use self::client::Client;
pub(crate) use self::raw::RawClient;
pub(crate) use self::variant::{Delta, Sotw, Variant, names, refusal, request, sotw_names, sotw_request};

use std::net::SocketAddr;
use std::time::Duration;

use clairvoy_xds::ResourceType::{Cluster, ClusterLoadAssignment, Listener, RouteConfiguration};
use clairvoy_xds::{ResourceType, ServerOptions, Snapshot, SnapshotBuilder, SyncState, XdsServer};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Channel;

use super::fixtures;

/// How long a test waits for what must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// How long a test waits for what must not come.
const QUIET: Duration = Duration::from_millis(150);

/// A server with one group, `all`.
pub(crate) fn server() -> XdsServer {
    XdsServer::new(ServerOptions::single_group("all"))
}

pub(crate) async fn serve(server: &XdsServer) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = tonic::transport::Server::builder().add_routes(server.routes());
    tokio::spawn(router.serve_with_incoming(TcpListenerStream::new(listener)));
    address
}

pub(crate) async fn connect(address: SocketAddr) -> Channel {
    Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap()
}

/// Clusters with the versions of their settings and the ports of their endpoints, and a listener with a
/// route to each of `routed`.
pub(crate) fn snapshot(clusters: &[(&str, u64, u16)], routed: &[&str]) -> Snapshot {
    builder(clusters, routed).build().unwrap()
}

pub(crate) fn builder(clusters: &[(&str, u64, u16)], routed: &[&str]) -> SnapshotBuilder {
    let mut builder = SnapshotBuilder::new();
    builder.allow_empty_assignments();
    for (name, settings, port) in clusters {
        builder.cluster(fixtures::cluster(name, *settings)).assignment(fixtures::assignment(name, *port));
    }
    builder.listener(fixtures::listener("front", 80, "routes"));
    builder.route_configuration(fixtures::routes("routes", routed.iter().copied()));
    builder
}

/// A client that has everything, as a proxy asks for it.
pub(crate) async fn settled<V: Variant>(
    server: &XdsServer,
    address: SocketAddr,
    clusters: &[&str],
) -> Client<V> {
    let mut client = Client::<V>::open(address, V::request(Cluster, &[])).await.unwrap();
    client.expect_acked(Cluster).await;
    client.subscribe(ClusterLoadAssignment, clusters).await;
    client.expect_acked(ClusterLoadAssignment).await;
    client.subscribe(Listener, &[]).await;
    client.expect_acked(Listener).await;
    client.subscribe(RouteConfiguration, &["routes"]).await;
    client.expect_acked(RouteConfiguration).await;
    in_sync(server).await;
    client
}

/// Waits until every client has everything.
pub(crate) async fn in_sync(server: &XdsServer) {
    let all = || server.clients().iter().all(|client| client.sync == SyncState::InSync);
    eventually("all clients are in sync", all).await;
}

/// Waits until the only client is known to want so many names of a type, and no wildcard.
pub(crate) async fn wants(server: &XdsServer, resource_type: ResourceType, names: usize) {
    let has_asked = || {
        let clients = server.clients();
        let of_type = clients[0].types.iter().find(|(t, _)| *t == resource_type);
        of_type.is_some_and(|(_, status)| status.names == names && !status.wildcard)
    };
    eventually("the request is taken in", has_asked).await;
}

/// Accepts everything until all clients are in sync.
pub(crate) async fn settle<V: Variant>(server: &XdsServer, clients: &mut [Client<V>]) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !server.clients().iter().all(|client| client.sync == SyncState::InSync) {
        assert!(tokio::time::Instant::now() < deadline, "all clients are in sync");
        for client in clients.iter_mut() {
            let next = tokio::time::timeout(Duration::from_millis(20), client.expect_any());
            if let Ok(response) = next.await {
                client.ack(&response).await;
            }
        }
    }
}

/// Polls until the condition holds.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
