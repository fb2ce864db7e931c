//! What a client waits for before it uses something new: W1 to W3.

use std::time::Duration;

use clairvoy_xds::ResourceType::{Cluster, ClusterLoadAssignment, Listener, RouteConfiguration};
use clairvoy_xds::{ServerOptions, XdsServer};
use envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment as Assignment;
use envoy_types::pb::envoy::service::discovery::v3::DiscoveryRequest;
use prost::Message;

use crate::fixtures;
use crate::harness::{
    Client, Delta, Sotw, Variant, builder, in_sync, serve, server, settled, snapshot, sotw_names,
    sotw_request,
};

/// A changed cluster brings its endpoints once more, a changed listener its routes.
async fn dependents_come_again<V: Variant>() {
    let server = server();
    server.publish("all", snapshot(&[("a", 1, 1), ("b", 1, 1)], &["a"]));
    let mut client: Client<V> = settled(&server, serve(&server).await, &["a", "b"]).await;
    server.publish("all", snapshot(&[("a", 2, 1), ("b", 1, 1)], &["a"]));
    let clusters = client.expect(Cluster).await;
    // The client accepts the clusters when it has the endpoints, not before.
    assert_eq!(V::names(&client.expect_acked(ClusterLoadAssignment).await), ["a"]);
    client.ack(&clusters).await;
    client.expect_nothing().await;

    let mut changed = clairvoy_xds::SnapshotBuilder::new();
    for (name, settings) in [("a", 2), ("b", 1)] {
        changed.cluster(fixtures::cluster(name, settings)).assignment(fixtures::assignment(name, 1));
    }
    changed.listener(fixtures::listener("front", 81, "routes"));
    changed.route_configuration(fixtures::routes("routes", ["a"]));
    server.publish("all", changed.build().unwrap());
    let listeners = client.expect(Listener).await;
    assert_eq!(V::names(&client.expect_acked(RouteConfiguration).await), ["routes"]);
    client.ack(&listeners).await;
    client.expect_nothing().await;
    in_sync(&server).await;
}

#[tokio::test]
async fn w1_sotw_what_a_changed_resource_names_comes_again() {
    dependents_come_again::<Sotw>().await;
}

#[tokio::test]
async fn w1_delta_what_a_changed_resource_names_comes_again() {
    dependents_come_again::<Delta>().await;
}

#[tokio::test]
async fn w1_sotw_a_request_that_looks_like_an_ack_is_served() {
    let server = server();
    let t = ClusterLoadAssignment;
    server.publish("all", snapshot(&[("a", 1, 1)], &["a"]));
    let mut client = Client::<Sotw>::with_clusters(serve(&server).await).await;
    client.expect_acked(Cluster).await;
    client.subscribe(t, &["a"]).await;
    let first = client.expect_acked(t).await;
    server.publish("all", snapshot(&[("a", 2, 1)], &["a"]));
    let clusters = client.expect(Cluster).await;
    // The same names, version and nonce as the ACK before, for a cluster that warms.
    let again = DiscoveryRequest {
        response_nonce: first.nonce,
        version_info: first.version_info,
        ..sotw_request(t, &["a"])
    };
    client.send(again).await;
    assert_eq!(sotw_names(&client.expect_acked(t).await), ["a"]);
    client.ack(&clusters).await;
    client.expect_nothing().await;
}

/// A cluster without endpoints has an assignment, and it is sent.
async fn empty_endpoints_are_sent<V: Variant>() {
    let server = server();
    let mut empty = builder(&[], &[]);
    empty.cluster(fixtures::cluster("a", 1));
    empty.assignment(Assignment { cluster_name: "a".into(), ..Default::default() });
    server.publish("all", empty.build().unwrap());
    let mut client: Client<V> = settled(&server, serve(&server).await, &["a"]).await;
    server.publish("all", snapshot(&[("a", 1, 1)], &[]));
    client.expect_acked(ClusterLoadAssignment).await;
    server.publish("all", snapshot(&[("a", 1, 0)], &[]));
    let response = client.expect_acked(ClusterLoadAssignment).await;
    let assignment = Assignment::decode(&*V::contents(&response)[0].value).unwrap();
    assert!(assignment.endpoints.iter().all(|locality| locality.lb_endpoints.is_empty()));
}

#[tokio::test]
async fn w2_sotw_empty_endpoints_are_sent() {
    empty_endpoints_are_sent::<Sotw>().await;
}

#[tokio::test]
async fn w2_delta_empty_endpoints_are_sent() {
    empty_endpoints_are_sent::<Delta>().await;
}

fn impatient() -> XdsServer {
    let mut options = ServerOptions::single_group("all");
    options.removal_hold = Duration::from_millis(200);
    XdsServer::new(options)
}

#[tokio::test]
async fn w3_delta_endpoints_of_an_unknown_cluster_are_told_as_removed() {
    let server = impatient();
    server.publish("all", snapshot(&[("a", 1, 1)], &[]));
    let mut client: Client<Delta> = settled(&server, serve(&server).await, &["a"]).await;
    client.subscribe(ClusterLoadAssignment, &["unknown"]).await;
    let response = client.expect_acked(ClusterLoadAssignment).await;
    assert_eq!(response.removed_resources, ["unknown"]);
}

#[tokio::test]
async fn w3_sotw_endpoints_of_an_unknown_cluster_are_empty_after_a_while() {
    let server = impatient();
    server.publish("all", snapshot(&[("a", 1, 1)], &[]));
    let mut client: Client<Sotw> = settled(&server, serve(&server).await, &["a"]).await;
    client.subscribe(ClusterLoadAssignment, &["a", "unknown"]).await;
    let response = client.expect_acked(ClusterLoadAssignment).await;
    let assignment = Assignment::decode(&*response.resources[0].value).unwrap();
    assert_eq!((&*assignment.cluster_name, assignment.endpoints.len()), ("unknown", 0));
    client.expect_nothing().await;
    server.publish("all", snapshot(&[("a", 1, 1), ("unknown", 1, 1)], &[]));
    client.expect_acked(Cluster).await;
    assert_eq!(sotw_names(&client.expect_acked(ClusterLoadAssignment).await), ["unknown"]);
}
