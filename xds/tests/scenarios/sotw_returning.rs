//! Versions of the state-of-the-world variant, and clients that come back: S13 and S14.

use clairvoy_xds::ResourceType::{Cluster, ClusterLoadAssignment, Listener};
use envoy_types::pb::envoy::service::discovery::v3::DiscoveryRequest;

use crate::harness::{Sotw, serve, server, snapshot, sotw_names as names, sotw_request as request};

type Client = crate::harness::Client<Sotw>;

fn returning(first: DiscoveryRequest, version: &str) -> DiscoveryRequest {
    DiscoveryRequest { version_info: version.into(), ..first }
}

#[tokio::test]
async fn s13_what_changed_meanwhile_is_sent() {
    let server = server();
    server.publish("all", snapshot(&[("a", 1, 1), ("b", 1, 1)], &[]));
    let address = serve(&server).await;
    let mut client = Client::with_clusters(address).await;
    let clusters = client.expect_acked(Cluster).await.version_info;
    client.subscribe(ClusterLoadAssignment, &["a"]).await;
    let endpoints = client.expect_acked(ClusterLoadAssignment).await.version_info;
    drop(client);

    server.publish("all", snapshot(&[("a", 1, 2), ("c", 1, 1)], &[]));
    let mut client = Client::open(address, returning(request(Cluster, &[]), &clusters)).await.unwrap();
    assert_eq!(names(&client.expect_acked(Cluster).await), ["a", "c"]);
    client.send(returning(request(ClusterLoadAssignment, &["a", "c"]), &endpoints)).await;
    assert_eq!(names(&client.expect_acked(ClusterLoadAssignment).await), ["a", "c"]);
}

#[tokio::test]
async fn s13_new_names_are_sent_though_the_version_is_the_same() {
    let server = server();
    server.publish("all", snapshot(&[("a", 1, 1), ("b", 1, 1)], &[]));
    let address = serve(&server).await;
    for t in [Cluster, ClusterLoadAssignment] {
        let mut client = Client::open(address, request(t, &["a"])).await.unwrap();
        let version = client.expect_acked(t).await.version_info;
        let again = returning(request(t, &["a", "b"]), &version);
        let mut client = Client::open(address, again).await.unwrap();
        assert!(names(&client.expect_acked(t).await).contains(&"b".to_owned()));
    }
    // A wildcard with a name is no pure wildcard.
    let mut client = Client::with_clusters(address).await;
    let version = client.expect_acked(Cluster).await.version_info;
    let again = returning(request(Cluster, &["*", "a"]), &version);
    let mut client = Client::open(address, again).await.unwrap();
    assert_eq!(names(&client.expect_acked(Cluster).await), ["a", "b"]);
}

#[tokio::test]
async fn s13_a_wildcard_with_the_current_version_is_up_to_date() {
    let server = server();
    server.publish("all", snapshot(&[("a", 1, 1)], &[]));
    let address = serve(&server).await;
    for t in [Cluster, Listener] {
        let mut client = Client::open(address, request(t, &[])).await.unwrap();
        let version = client.expect_acked(t).await.version_info;
        let mut client = Client::open(address, returning(request(t, &[]), &version)).await.unwrap();
        client.expect_nothing().await;
    }
    let mut client = Client::with_clusters(address).await;
    let version = client.expect_acked(Cluster).await.version_info;
    // On an aggregated stream a removal would wait for the listeners and routes that such a client asks for next.
    let again = returning(request(Cluster, &[]), &version);
    let mut client = Client::open_service(address, Some(Cluster), again).await.unwrap();
    client.expect_nothing().await;
    server.publish("all", snapshot(&[("a", 1, 1), ("b", 1, 1)], &[]));
    assert_eq!(names(&client.expect_acked(Cluster).await), ["a", "b"]);
    server.publish("all", snapshot(&[("b", 1, 1)], &[]));
    assert_eq!(names(&client.expect_acked(Cluster).await), ["b"]);
}

#[tokio::test]
async fn s14_the_version_changes_exactly_with_the_content() {
    let server = server();
    server.publish("all", snapshot(&[("a", 1, 1), ("b", 1, 1)], &[]));
    let mut client = Client::with_clusters(serve(&server).await).await;
    let first = client.expect_acked(Cluster).await.version_info;
    server.publish("all", snapshot(&[("a", 1, 1), ("b", 1, 1)], &[]));
    server.publish("all", snapshot(&[("a", 1, 1), ("b", 1, 2)], &[]));
    client.expect_nothing().await;
    server.publish("all", snapshot(&[("a", 2, 1), ("b", 1, 1)], &[]));
    let second = client.expect_acked(Cluster).await.version_info;
    assert_ne!(second, first);
    server.publish("all", snapshot(&[("a", 1, 1), ("b", 1, 1)], &[]));
    assert_eq!(client.expect_acked(Cluster).await.version_info, first, "as other servers give it");
}

#[tokio::test]
async fn s14_the_version_is_that_of_what_the_client_has() {
    let server = server();
    let t = ClusterLoadAssignment;
    server.publish("all", snapshot(&[("a", 1, 1), ("b", 1, 1), ("c", 1, 1)], &[]));
    let address = serve(&server).await;
    let mut client = Client::open(address, request(t, &["a", "b"])).await.unwrap();
    let first = client.expect_acked(t).await.version_info;
    server.publish("all", snapshot(&[("a", 1, 1), ("b", 1, 2), ("c", 1, 9)], &[]));
    let partial = client.expect_acked(t).await;
    assert_eq!(names(&partial), ["b"]);
    assert_ne!(partial.version_info, first);
    let mut other = Client::open(address, request(t, &["a", "b"])).await.unwrap();
    assert_eq!(other.expect_acked(t).await.version_info, partial.version_info, "the same content");
    server.publish("all", snapshot(&[("a", 1, 1), ("b", 1, 1), ("c", 1, 9)], &[]));
    assert_eq!(client.expect_acked(t).await.version_info, first);
}
