//! What has to wait for what: O1 to O6.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clairvoy_xds::ResourceType::{self, Cluster, ClusterLoadAssignment, Listener, RouteConfiguration};
use clairvoy_xds::{ServerOptions, SnapshotBuilder, XdsServer};
use envoy_types::pb::envoy::config::cluster::v3::Cluster as ClusterConfig;
use prost::Message;

use crate::fixtures;
use crate::harness::{
    Client, Delta, Sotw, Variant, eventually, in_sync, serve, server, settle, settled, snapshot, sotw_names,
};

/// A route to a new cluster comes after the cluster and its endpoints.
async fn added<V: Variant>() {
    let server = server();
    server.publish("all", snapshot(&[("a", 1, 1)], &["a"]));
    let mut client: Client<V> = settled(&server, serve(&server).await, &["a"]).await;
    server.publish("all", snapshot(&[("a", 1, 1), ("b", 1, 1)], &["a", "b"]));
    let clusters = client.expect(Cluster).await;
    client.expect_nothing().await;
    // As proxies do: the names of the new cluster first, then the ACK.
    client.subscribe(ClusterLoadAssignment, &["a", "b"]).await;
    client.ack(&clusters).await;
    let endpoints = client.expect_acked(ClusterLoadAssignment).await;
    assert!(V::names(&endpoints).contains(&"b".to_owned()));
    let routes = client.expect_acked(RouteConfiguration).await;
    assert_eq!(V::names(&routes), ["routes"]);
    client.expect_nothing().await;
    in_sync(&server).await;
}

#[tokio::test]
async fn o1_sotw_a_route_comes_after_its_clusters_and_endpoints() {
    added::<Sotw>().await;
}

#[tokio::test]
async fn o1_delta_a_route_comes_after_its_clusters_and_endpoints() {
    added::<Delta>().await;
}

#[tokio::test]
async fn o2_sotw_the_old_cluster_goes_last() {
    let server = server();
    server.publish("all", snapshot(&[("a", 1, 1)], &["a"]));
    let mut client: Client<Sotw> = settled(&server, serve(&server).await, &["a"]).await;
    server.publish("all", snapshot(&[("b", 1, 1)], &["b"]));
    let added = client.expect(Cluster).await;
    assert_eq!(sotw_names(&added), ["a", "b"], "the route still names the old one");
    client.subscribe(ClusterLoadAssignment, &["a", "b"]).await;
    client.ack(&added).await;
    assert_eq!(sotw_names(&client.expect_acked(ClusterLoadAssignment).await), ["b"]);
    let routes = client.expect(RouteConfiguration).await;
    client.expect_nothing().await;
    client.ack(&routes).await;
    assert_eq!(sotw_names(&client.expect_acked(Cluster).await), ["b"]);
    client.subscribe(ClusterLoadAssignment, &["b"]).await;
    client.expect_nothing().await;
    in_sync(&server).await;
}

#[tokio::test]
async fn o2_delta_the_old_cluster_goes_last() {
    let server = server();
    server.publish("all", snapshot(&[("a", 1, 1)], &["a"]));
    let mut client: Client<Delta> = settled(&server, serve(&server).await, &["a"]).await;
    server.publish("all", snapshot(&[("b", 1, 1)], &["b"]));
    let added = client.expect_acked(Cluster).await;
    assert_eq!((Delta::names(&added), added.removed_resources.len()), (vec!["b".to_owned()], 0));
    client.subscribe(ClusterLoadAssignment, &["b"]).await;
    let mut seen = BTreeSet::new();
    for _ in 0..2 {
        let response = client.expect_any().await;
        assert!(response.removed_resources.is_empty());
        seen.extend(Delta::names(&response));
        client.ack(&response).await;
    }
    assert_eq!(seen, ["b".to_owned(), "routes".to_owned()].into());
    assert_eq!(client.expect_acked(Cluster).await.removed_resources, ["a"]);
}

/// A cluster that has gone, as both variants tell it.
trait Removal: Variant {
    fn has_gone(response: &Self::Response, name: &str) -> bool;
}

impl Removal for Sotw {
    fn has_gone(response: &Self::Response, name: &str) -> bool {
        !Self::names(response).contains(&name.to_owned())
    }
}

impl Removal for Delta {
    fn has_gone(response: &Self::Response, name: &str) -> bool {
        response.removed_resources.contains(&name.to_owned())
    }
}

/// Brings a client to where the new routes are sent and the old cluster is still there.
async fn moved<V: Removal>(server: &XdsServer) -> (Client<V>, V::Response) {
    server.publish("all", snapshot(&[("a", 1, 1), ("b", 1, 1)], &["a"]));
    let mut client: Client<V> = settled(server, serve(server).await, &["a", "b"]).await;
    server.publish("all", snapshot(&[("b", 1, 1)], &["b"]));
    let routes = client.expect(RouteConfiguration).await;
    (client, routes)
}

async fn held_for_the_ack<V: Removal>() {
    let server = server();
    let (mut client, routes) = moved::<V>(&server).await;
    client.expect_nothing().await;
    client.ack(&routes).await;
    assert!(V::has_gone(&client.expect_acked(Cluster).await, "a"));
}

#[tokio::test]
async fn o3_sotw_a_removal_waits_for_the_ack_of_the_routes() {
    held_for_the_ack::<Sotw>().await;
}

#[tokio::test]
async fn o3_delta_a_removal_waits_for_the_ack_of_the_routes() {
    held_for_the_ack::<Delta>().await;
}

async fn held_no_longer_than_the_limit<V: Removal>() {
    let mut options = ServerOptions::single_group("all");
    options.removal_hold = Duration::from_millis(300);
    let server = XdsServer::new(options);
    let (mut client, _) = moved::<V>(&server).await;
    assert!(V::has_gone(&client.expect_acked(Cluster).await, "a"));
}

#[tokio::test]
async fn o3_sotw_a_removal_waits_no_longer_than_the_limit() {
    held_no_longer_than_the_limit::<Sotw>().await;
}

#[tokio::test]
async fn o3_delta_a_removal_waits_no_longer_than_the_limit() {
    held_no_longer_than_the_limit::<Delta>().await;
}

async fn held_after_a_nack<V: Removal>() {
    let mut options = ServerOptions::single_group("all");
    options.removal_hold = Duration::from_millis(50);
    let server = XdsServer::new(options);
    let (mut client, routes) = moved::<V>(&server).await;
    client.nack(&routes, "bad").await;
    client.expect_nothing().await;
    server.publish("all", snapshot(&[("b", 1, 1)], &[]));
    client.expect_acked(RouteConfiguration).await;
    assert!(V::has_gone(&client.expect_acked(Cluster).await, "a"));
}

#[tokio::test]
async fn o3_sotw_a_removal_is_held_after_a_nack() {
    held_after_a_nack::<Sotw>().await;
}

#[tokio::test]
async fn o3_delta_a_removal_is_held_after_a_nack() {
    held_after_a_nack::<Delta>().await;
}

/// All orders of some types.
fn orders(types: &[ResourceType]) -> Vec<Vec<ResourceType>> {
    let Some((first, rest)) = types.split_first() else { return vec![Vec::new()] };
    let with = |order: Vec<ResourceType>| {
        (0..=order.len()).map(move |at| [&order[..at], &[*first], &order[at..]].concat())
    };
    orders(rest).into_iter().flat_map(with).collect()
}

/// Everything arrives in whatever order a client subscribes.
async fn whole_stack<V: Variant>() {
    let server = server();
    let address = serve(&server).await;
    let all = orders(&[Cluster, ClusterLoadAssignment, Listener, RouteConfiguration]);
    assert_eq!(all.len(), 24);
    for (i, order) in all.iter().enumerate() {
        // Every other client is there before the state.
        if i % 2 == 0 {
            server.publish("all", snapshot(&[("a", 1, 1)], &["a"]));
        } else {
            server.withdraw("all");
        }
        let wanted = |t| match t {
            ClusterLoadAssignment => &["a"][..],
            RouteConfiguration => &["routes"],
            _ => &[],
        };
        let first = V::request(order[0], wanted(order[0]));
        let mut client = Client::<V>::open(address, first).await.unwrap();
        for t in &order[1..] {
            client.subscribe(*t, wanted(*t)).await;
        }
        server.publish("all", snapshot(&[("a", 1, 1)], &["a"]));
        let mut missing: BTreeSet<&str> = order.iter().map(|t| t.type_url()).collect();
        while !missing.is_empty() {
            let response = client.expect_any().await;
            missing.remove(V::type_url(&response));
            client.ack(&response).await;
        }
        settle(&server, &mut [client]).await;
        eventually("gone", || server.clients().is_empty()).await;
    }
}

#[tokio::test]
async fn o4_sotw_the_whole_stack_arrives_in_any_order() {
    whole_stack::<Sotw>().await;
}

#[tokio::test]
async fn o4_delta_the_whole_stack_arrives_in_any_order() {
    whole_stack::<Delta>().await;
}

/// Every response has clusters of one state, while states change under way.
async fn atomic<V: Variant>() {
    let server = server();
    let names = ["a", "b", "c", "d"];
    let state = move |settings| snapshot(&names.map(|name| (name, settings, 1)), &[]);
    server.publish("all", state(1));
    let mut client = Client::<V>::with_clusters(serve(&server).await).await;
    let done = Arc::new(AtomicBool::new(false));
    let publisher = {
        let (server, done) = (server.clone(), done.clone());
        std::thread::spawn(move || {
            for settings in 2..500 {
                server.publish("all", state(settings));
            }
            done.store(true, Ordering::Release);
        })
    };
    let mut last = None;
    loop {
        let was_done = done.load(Ordering::Acquire);
        let response = client.expect_acked(Cluster).await;
        let timeouts: BTreeSet<i32> = V::contents(&response)
            .iter()
            .map(|any| ClusterConfig::decode(&*any.value).unwrap().connect_timeout.unwrap().nanos)
            .collect();
        assert_eq!((timeouts.len(), V::names(&response).len()), (1, 4), "{timeouts:?}");
        assert!(last < timeouts.first().copied(), "an older state after a newer one");
        last = timeouts.first().copied();
        if last == Some(499 * 1_000_000) {
            break;
        }
        assert!(!was_done || last < Some(499 * 1_000_000));
    }
    publisher.join().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn o5_sotw_a_response_is_of_one_state() {
    atomic::<Sotw>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn o5_delta_a_response_is_of_one_state() {
    atomic::<Delta>().await;
}

/// One client that never answers delays no other.
async fn per_stream<V: Removal>() {
    let server = server();
    let (mut silent, _) = moved::<V>(&server).await;
    silent.expect_nothing().await;
    let address = serve(&server).await;
    let mut client = Client::<V>::with_clusters(address).await;
    assert_eq!(V::names(&client.expect_acked(Cluster).await), ["b"]);
    for settings in 2..5 {
        server.publish("all", snapshot(&[("b", settings, 1)], &["b"]));
        client.expect_acked(Cluster).await;
    }
    silent.expect(Cluster).await;
}

#[tokio::test]
async fn o6_sotw_one_client_delays_no_other() {
    per_stream::<Sotw>().await;
}

#[tokio::test]
async fn o6_delta_one_client_delays_no_other() {
    per_stream::<Delta>().await;
}

#[tokio::test]
async fn o3_a_client_that_only_wants_clusters_need_not_wait() {
    let server = server();
    let mut builder = SnapshotBuilder::new();
    builder.cluster(fixtures::cluster("a", 1)).assignment(fixtures::assignment("a", 1));
    server.publish("all", builder.build().unwrap());
    let mut client = Client::<Delta>::with_clusters(serve(&server).await).await;
    client.expect_acked(Cluster).await;
    server.publish("all", SnapshotBuilder::new().build().unwrap());
    assert_eq!(client.expect_acked(Cluster).await.removed_resources, ["a"]);
    eventually("in sync", || server.clients()[0].nacks() == 0).await;
}
