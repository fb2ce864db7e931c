//! The delta protocol over a real connection. Tests are named after what they show.

#![expect(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by a panic")]

#[path = "support/fixtures.rs"]
mod fixtures;
#[path = "support/harness.rs"]
mod harness;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clairvoy_xds::ResourceType::{Cluster, ClusterLoadAssignment, Listener, RouteConfiguration};
use clairvoy_xds::{ClientEventKind, Metrics, ServerOptions, SnapshotBuilder, SyncState, XdsServer};
use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use prometheus_client::registry::Registry;
use tonic::Code;

use self::harness::{Client, eventually, names, request, serve, snapshot};

fn server() -> XdsServer {
    XdsServer::new(ServerOptions::single_group("all"))
}

/// A client that has everything, as a proxy asks for it.
async fn settled(server: &XdsServer, address: std::net::SocketAddr, clusters: &[&str]) -> Client {
    let mut client = Client::with_clusters(address).await;
    client.expect_acked(Cluster).await;
    client.subscribe(ClusterLoadAssignment, clusters).await;
    client.expect_acked(ClusterLoadAssignment).await;
    client.subscribe(Listener, &[]).await;
    client.expect_acked(Listener).await;
    client.subscribe(RouteConfiguration, &["routes"]).await;
    client.expect_acked(RouteConfiguration).await;
    eventually("in sync", || server.clients().iter().any(|client| client.sync == SyncState::InSync)).await;
    client
}

#[tokio::test]
async fn d2_change_sends_only_changes() {
    let server = server();
    server.publish("all", snapshot(&[("a", 1, 1), ("b", 1, 1)], &["a"]));
    let mut client = settled(&server, serve(&server).await, &["a", "b"]).await;

    server.publish("all", snapshot(&[("a", 1, 1), ("b", 1, 2)], &["a"]));
    let response = client.expect_acked(ClusterLoadAssignment).await;
    assert_eq!(names(&response), ["b"]);
    server.publish("all", snapshot(&[("a", 1, 1)], &["a"]));
    let response = client.expect_acked(Cluster).await;
    assert!(response.resources.is_empty());
    assert_eq!(response.removed_resources, ["b"]);
    let response = client.expect_acked(ClusterLoadAssignment).await;
    assert_eq!(response.removed_resources, ["b"]);
    client.expect_nothing().await;
}

#[tokio::test]
async fn d6_a_client_that_comes_back_gets_only_what_changed() {
    let server = server();
    let address = serve(&server).await;
    server.publish("all", snapshot(&[("a", 1, 1), ("b", 1, 1)], &[]));
    let mut client = Client::with_clusters(address).await;
    let first = client.expect_acked(Cluster).await;
    drop(client);
    eventually("gone", || server.clients().is_empty()).await;

    server.publish("all", snapshot(&[("a", 1, 1), ("b", 2, 1)], &[]));
    let versions = first.resources.into_iter().map(|resource| (resource.name, resource.version));
    let request = DeltaDiscoveryRequest {
        initial_resource_versions: versions.collect(),
        response_nonce: first.nonce,
        ..request(Cluster, &[])
    };
    let mut client = Client::open(address, request).await.unwrap();
    assert_eq!(names(&client.expect_acked(Cluster).await), ["b"]);
}

#[tokio::test]
async fn d8_nack_is_remembered_and_seen() {
    let server = server();
    server.publish("all", snapshot(&[("a", 1, 1)], &["a"]));
    let mut client = settled(&server, serve(&server).await, &["a"]).await;
    let mut events = server.events();

    server.publish("all", snapshot(&[("a", 1, 2)], &["a"]));
    let response = client.expect(ClusterLoadAssignment).await;
    client.nack(&response, "no such thing").await;
    client.expect_nothing().await;
    let [status] = &server.clients()[..] else { panic!("one client") };
    assert_eq!(status.sync, SyncState::Nacked);
    let nack = status.last_nack.as_ref().unwrap();
    assert_eq!((nack.resource_type, &nack.resources[..]), (ClusterLoadAssignment, &["a".to_owned()][..]));
    assert_eq!(nack.message, "no such thing");
    assert!(matches!(events.recv().await.unwrap().kind, ClientEventKind::Nacked(seen) if seen == *nack));

    server.publish("all", snapshot(&[("a", 1, 3)], &["a"]));
    assert_eq!(names(&client.expect_acked(ClusterLoadAssignment).await), ["a"]);
    eventually("healed", || server.clients()[0].sync == SyncState::InSync).await;
    assert!(matches!(events.recv().await.unwrap().kind, ClientEventKind::Acked { .. }));
}

#[tokio::test]
async fn d11_the_same_state_sends_nothing() {
    let server = server();
    server.publish("all", snapshot(&[("a", 1, 1)], &["a"]));
    let mut client = settled(&server, serve(&server).await, &["a"]).await;
    server.publish("all", snapshot(&[("a", 1, 1)], &["a"]));
    client.expect_nothing().await;
    assert_eq!(server.clients()[0].sync, SyncState::InSync);
}

#[tokio::test]
async fn o2_the_old_cluster_goes_last() {
    let server = server();
    server.publish("all", snapshot(&[("a", 1, 1)], &["a"]));
    let mut client = settled(&server, serve(&server).await, &["a"]).await;

    server.publish("all", snapshot(&[("b", 1, 1)], &["b"]));
    let added = client.expect_acked(Cluster).await;
    assert_eq!((names(&added), added.removed_resources.len()), (vec!["b"], 0));
    client.subscribe(ClusterLoadAssignment, &["b"]).await;
    let mut seen = Vec::new();
    for _ in 0..2 {
        let response = client.next().await.unwrap().unwrap();
        assert!(response.removed_resources.is_empty());
        seen.extend(names(&response).into_iter().map(str::to_owned));
        client.ack(&response).await;
    }
    seen.sort();
    assert_eq!(seen, ["b", "routes"]);
    assert_eq!(client.expect_acked(Cluster).await.removed_resources, ["a"]);
}

#[tokio::test]
async fn w1_a_changed_cluster_brings_its_endpoints() {
    let server = server();
    server.publish("all", snapshot(&[("a", 1, 1), ("b", 1, 1)], &["a"]));
    let mut client = settled(&server, serve(&server).await, &["a", "b"]).await;
    server.publish("all", snapshot(&[("a", 2, 1), ("b", 1, 1)], &["a"]));
    let cluster = client.expect(Cluster).await;
    assert_eq!(names(&client.expect_acked(ClusterLoadAssignment).await), ["a"]);
    client.ack(&cluster).await;
    client.expect_nothing().await;
}

#[tokio::test]
async fn f3_a_slow_client_ends_with_the_newest_state() {
    let server = server();
    server.publish("all", snapshot(&[("a", 1, 1)], &["a"]));
    let mut client = settled(&server, serve(&server).await, &["a"]).await;
    for port in 2..60 {
        server.publish("all", snapshot(&[("a", 1, port)], &["a"]));
    }
    let mut responses = 0;
    while server.clients()[0].sync != SyncState::InSync {
        client.expect_acked(ClusterLoadAssignment).await;
        responses += 1;
        let (acks, sent) = (server.clients()[0].acks(), server.clients()[0].types[1].1.responses_sent);
        eventually("the ACK arrives", || {
            let client = &server.clients()[0];
            client.acks() > acks
                || client.types[1].1.responses_sent > sent
                || client.sync == SyncState::InSync
        })
        .await;
    }
    assert!(responses <= 3, "{responses} responses");
}

#[tokio::test]
async fn f11_clients_wait_for_the_first_state_of_their_group() {
    let server = server();
    let mut client = Client::with_clusters(serve(&server).await).await;
    client.expect_nothing().await;
    assert_eq!(server.clients()[0].sync, SyncState::Pending);
    server.publish("all", snapshot(&[("a", 1, 1)], &[]));
    assert_eq!(names(&client.expect(Cluster).await), ["a"]);
}

#[tokio::test]
async fn nodes_follow_their_group() {
    let admitted = Arc::new(AtomicBool::new(false));
    let seen = admitted.clone();
    let options =
        ServerOptions::new(move |node| seen.load(Ordering::Relaxed).then(|| node.cluster.as_str().into()));
    let server = XdsServer::new(options);
    server.publish("edge", snapshot(&[("a", 1, 1)], &[]));
    let mut client = Client::with_clusters(serve(&server).await).await;
    client.expect_nothing().await;
    admitted.store(true, Ordering::Relaxed);
    server.regroup();
    assert_eq!(names(&client.expect(Cluster).await), ["a"]);
    assert_eq!(server.clients()[0].group.as_deref(), Some("edge"));
}

#[tokio::test]
async fn a_client_keeps_what_it_has_when_the_snapshot_of_its_group_is_withdrawn() {
    let server = server();
    server.publish("all", snapshot(&[("a", 1, 1)], &["a"]));
    let mut client = settled(&server, serve(&server).await, &["a"]).await;
    assert!(server.withdraw("all"));
    assert!(server.newest("all").is_none());
    assert!(!server.withdraw("all"));
    client.expect_nothing().await;
    assert_eq!(server.clients()[0].sync, SyncState::Pending);

    server.publish("all", snapshot(&[("a", 1, 2)], &["a"]));
    let response = client.expect_acked(ClusterLoadAssignment).await;
    assert_eq!((names(&response), response.removed_resources.len()), (vec!["a"], 0));
    eventually("in sync", || server.clients()[0].sync == SyncState::InSync).await;
}

#[tokio::test]
async fn t1_a_request_without_a_type_ends_its_stream_only() {
    let server = server();
    let address = serve(&server).await;
    let mut other = Client::with_clusters(address).await;
    let mut client = Client::open(address, DeltaDiscoveryRequest::default()).await.unwrap();
    assert_eq!(client.next().await.unwrap_err().code(), Code::InvalidArgument);
    server.publish("all", snapshot(&[("a", 1, 1)], &[]));
    other.expect(Cluster).await;
}

#[tokio::test]
async fn t6_half_close_ends_the_stream_with_ok() {
    let server = server();
    let client = Client::with_clusters(serve(&server).await).await;
    eventually("connected", || server.clients().len() == 1).await;
    assert!(client.finish().await.unwrap().is_none());
    eventually("gone", || server.clients().is_empty()).await;
}

#[tokio::test]
async fn t7_requests_beyond_4_mib_are_taken() {
    let server = server();
    server.publish("all", snapshot(&[("a", 1, 1)], &[]));
    let versions = (0..60_000).map(|i| (format!("{i:064}"), "0".repeat(32)));
    let first =
        DeltaDiscoveryRequest { initial_resource_versions: versions.collect(), ..request(Cluster, &[]) };
    assert!(prost::Message::encoded_len(&first) > 4 << 20);
    let mut client = Client::open(serve(&server).await, first).await.unwrap();
    assert_eq!(names(&client.expect(Cluster).await), ["a"]);
}

#[tokio::test]
async fn t10_streams_beyond_the_limit_are_refused() {
    let mut options = ServerOptions::single_group("all");
    options.max_streams = 1;
    let server = XdsServer::new(options);
    let address = serve(&server).await;
    let first = Client::with_clusters(address).await;
    let refused = Client::open(address, request(Cluster, &[])).await.err().unwrap();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    first.finish().await.unwrap();
    eventually("gone", || server.clients().is_empty()).await;
    Client::open(address, request(Cluster, &[])).await.unwrap();
}

#[tokio::test]
async fn t12_shutdown_sends_clients_elsewhere() {
    let server = server();
    let address = serve(&server).await;
    let mut client = Client::with_clusters(address).await;
    eventually("connected", || server.clients().len() == 1).await;
    server.shutdown();
    assert_eq!(client.next().await.unwrap_err().code(), Code::Unavailable);
    let refused = Client::open(address, request(Cluster, &[])).await.err().unwrap();
    assert_eq!(refused.code(), Code::Unavailable);
}

#[tokio::test]
async fn f7_metrics_count_what_happens() {
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let server = XdsServer::with_metrics(ServerOptions::single_group("all"), metrics);
    let mut builder = SnapshotBuilder::new();
    builder.cluster(fixtures::cluster("a", 1)).assignment(fixtures::assignment("a", 1));
    server.publish("all", builder.build().unwrap());
    let mut client = Client::with_clusters(serve(&server).await).await;
    client.expect_acked(Cluster).await;
    eventually("acked", || server.clients()[0].acks() == 1).await;
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    for line in [
        "xds_streams{variant=\"delta\"} 1",
        "xds_publishes_total 1",
        "xds_responses_total{type=\"CDS\"} 1",
        "xds_resources_total{type=\"CDS\"} 1",
        "xds_acks_total{type=\"CDS\"} 1",
        "xds_publish_to_ack_seconds_count 1",
    ] {
        assert!(text.lines().any(|seen| seen == line), "{line} is missing in\n{text}");
    }
}
