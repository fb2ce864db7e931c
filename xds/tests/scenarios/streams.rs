//! Streams and requests: T2 to T13.

use std::collections::BTreeSet;

use bytes::Bytes;
use clairvoy_xds::ResourceType::{Cluster, ClusterLoadAssignment};
use clairvoy_xds::{ServerOptions, SnapshotBuilder, XdsServer};
use envoy_types::pb::envoy::config::core::v3::Node;
use tonic::Code;

use crate::fixtures;
use crate::harness::{
    Client, Delta, RawClient, Sotw, Variant, connect, eventually, serve, server, settled, snapshot,
};
use crate::metrics::measured;

const UNKNOWN: &str = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig";

#[tokio::test]
async fn t2_delta_unknown_types_are_answered_as_removed() {
    let server = server();
    server.publish("all", snapshot(&[("a", 1, 1)], &[]));
    let first = Delta::with_type_url(Delta::request(Cluster, &["layer"]), UNKNOWN);
    let mut client = Client::<Delta>::open(serve(&server).await, first).await.unwrap();
    client.subscribe(Cluster, &[]).await;
    let answer = client.expect_any().await;
    assert_eq!((&*answer.type_url, &answer.removed_resources[..]), (UNKNOWN, &["layer".to_owned()][..]));
    client.ack(&answer).await;
    client.expect_acked(Cluster).await;
    client.expect_nothing().await;
}

#[tokio::test]
async fn t2_sotw_unknown_types_disturb_nothing() {
    let server = server();
    server.publish("all", snapshot(&[("a", 1, 1)], &[]));
    let first = Sotw::with_type_url(Sotw::request(Cluster, &["layer"]), UNKNOWN);
    let mut client = Client::<Sotw>::open(serve(&server).await, first).await.unwrap();
    client.subscribe(Cluster, &[]).await;
    client.expect_acked(Cluster).await;
    client.expect_nothing().await;
}

/// The node of the first request is kept; what later ones say of it counts for nothing.
async fn the_node_is_kept<V: Variant>() {
    let options = ServerOptions::new(|node| Some(node.cluster.as_str().into()));
    let server = XdsServer::new(options);
    server.publish("edge", snapshot(&[("a", 1, 1)], &[]));
    let mut client = Client::<V>::with_clusters(serve(&server).await).await;
    client.expect_acked(Cluster).await;
    client.subscribe(ClusterLoadAssignment, &["a"]).await;
    client.expect_acked(ClusterLoadAssignment).await;
    let other = Node { id: "other".into(), cluster: "other".into(), ..Default::default() };
    client.send(V::with_node(V::request(clairvoy_xds::ResourceType::Listener, &[]), Some(other))).await;
    client.expect_any().await;
    let [status] = &server.clients()[..] else { panic!("one client") };
    assert_eq!((&*status.node_id, status.group.as_deref()), ("proxy", Some("edge")));
}

#[tokio::test]
async fn t3_sotw_the_node_of_the_first_request_is_kept() {
    the_node_is_kept::<Sotw>().await;
}

#[tokio::test]
async fn t3_delta_the_node_of_the_first_request_is_kept() {
    the_node_is_kept::<Delta>().await;
}

/// No nonce comes twice, on one stream or on two; one of an earlier stream says nothing.
async fn nonces_differ<V: Variant>() {
    let server = server();
    server.publish("all", snapshot(&[("a", 1, 1)], &[]));
    let address = serve(&server).await;
    let mut nonces = BTreeSet::new();
    let mut last = String::new();
    for stream in 0..3 {
        let first = V::with_nonce(V::request(Cluster, &[]), &last, "unknown");
        let mut client = Client::<V>::open(address, first).await.unwrap();
        client.subscribe(ClusterLoadAssignment, &["a"]).await;
        for change in 1..4 {
            for _ in 0..2 {
                let response = client.expect_any().await;
                client.ack(&response).await;
                last = V::nonce(&response).to_owned();
                assert!(!last.is_empty() && nonces.insert(last.clone()), "{last}");
            }
            server.publish("all", snapshot(&[("a", stream * 10 + change + 1, 1)], &[]));
        }
    }
}

#[tokio::test]
async fn t4_sotw_nonces_differ() {
    nonces_differ::<Sotw>().await;
}

#[tokio::test]
async fn t4_delta_nonces_differ() {
    nonces_differ::<Delta>().await;
}

/// Bytes that are no request end their stream, and no other of the connection.
async fn garbage_ends_its_stream<V: Variant>() {
    let server = server();
    server.publish("all", snapshot(&[("a", 1, 1)], &[]));
    let channel = connect(serve(&server).await).await;
    let mut other = Client::<V>::open_on(channel.clone(), None, V::request(Cluster, &[])).await.unwrap();
    other.expect_acked(Cluster).await;
    let mut raw = RawClient::open(channel.clone(), V::path(None)).await.unwrap();
    raw.send(Bytes::from_static(&[0xff; 7])).await;
    assert_eq!(raw.next().await.unwrap_err().code(), Code::InvalidArgument);
    // A reset.
    let reset = Client::<V>::open_on(channel, None, V::request(Cluster, &[])).await.unwrap();
    eventually("connected", || server.clients().len() == 2).await;
    drop(reset);
    eventually("gone", || server.clients().len() == 1).await;
    server.publish("all", snapshot(&[("a", 2, 1)], &[]));
    other.expect_acked(Cluster).await;
}

#[tokio::test]
async fn t5_sotw_garbage_ends_its_stream_only() {
    garbage_ends_its_stream::<Sotw>().await;
}

#[tokio::test]
async fn t5_delta_garbage_ends_its_stream_only() {
    garbage_ends_its_stream::<Delta>().await;
}

async fn half_close_ends_the_stream<V: Variant>() {
    let server = server();
    let client = Client::<V>::with_clusters(serve(&server).await).await;
    eventually("connected", || server.clients().len() == 1).await;
    assert!(client.finish().await.unwrap().is_none());
    eventually("gone", || server.clients().is_empty()).await;
}

#[tokio::test]
async fn t6_sotw_half_close_ends_the_stream_with_ok() {
    half_close_ends_the_stream::<Sotw>().await;
}

#[tokio::test]
async fn t6_delta_half_close_ends_the_stream_with_ok() {
    half_close_ends_the_stream::<Delta>().await;
}

/// Names that make a request of more than 4 MiB.
async fn large_requests_are_taken<V: Variant>() {
    let server = server();
    server.publish("all", snapshot(&[("a", 1, 1)], &[]));
    let names: Vec<String> = (0..20_000).map(|i| format!("{i:0220}")).chain(["a".to_owned()]).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let first = V::request(ClusterLoadAssignment, &names);
    assert!(prost::Message::encoded_len(&first) > 4 << 20);
    let mut client = Client::<V>::open(serve(&server).await, first).await.unwrap();
    assert_eq!(V::names(&client.expect(ClusterLoadAssignment).await), ["a"]);
}

#[tokio::test]
async fn t7_sotw_requests_beyond_4_mib_are_taken() {
    large_requests_are_taken::<Sotw>().await;
}

#[tokio::test]
async fn t7_delta_requests_beyond_4_mib_are_taken() {
    large_requests_are_taken::<Delta>().await;
}

async fn large_responses_are_sent<V: Variant>() {
    let server = server();
    let mut cluster = fixtures::cluster("a", 1);
    cluster.alt_stat_name = "x".repeat(5 << 20);
    let mut builder = SnapshotBuilder::new();
    builder.cluster(cluster).assignment(fixtures::assignment("a", 1));
    server.publish("all", builder.build().unwrap());
    let mut client = Client::<V>::with_clusters(serve(&server).await).await;
    assert_eq!(V::names(&client.expect_acked(Cluster).await), ["a"]);
    eventually("acked", || server.clients()[0].acks() == 1).await;
}

#[tokio::test]
async fn t7_sotw_responses_beyond_4_mib_are_sent() {
    large_responses_are_sent::<Sotw>().await;
}

#[tokio::test]
async fn t7_delta_responses_beyond_4_mib_are_sent() {
    large_responses_are_sent::<Delta>().await;
}

#[tokio::test]
async fn t7_requests_have_a_limit() {
    let mut options = ServerOptions::single_group("all");
    options.max_request_bytes = 1000;
    options.max_names = 10;
    let server = XdsServer::new(options);
    let address = serve(&server).await;
    let long = "x".repeat(1000);
    let many = ["name"; 11];
    for wanted in [&[&*long][..], &many] {
        let first = Sotw::request(ClusterLoadAssignment, wanted);
        let mut client = Client::<Sotw>::open(address, first).await.unwrap();
        assert_eq!(client.next().await.unwrap_err().code(), Code::ResourceExhausted);
        let first = Delta::request(ClusterLoadAssignment, wanted);
        let mut client = Client::<Delta>::open(address, first).await.unwrap();
        assert_eq!(client.next().await.unwrap_err().code(), Code::ResourceExhausted);
    }
}

/// A proxy that connects again before its old connection is seen to be dead.
async fn one_node_can_have_two_streams<V: Variant>() {
    let server = server();
    server.publish("all", snapshot(&[("a", 1, 1)], &["a"]));
    let address = serve(&server).await;
    let old: Client<V> = settled(&server, address, &["a"]).await;
    let mut new: Client<V> = settled(&server, address, &["a"]).await;
    assert_eq!(server.clients().len(), 2);
    drop(old);
    eventually("one is gone", || server.clients().len() == 1).await;
    server.publish("all", snapshot(&[("a", 1, 2)], &["a"]));
    new.expect_acked(ClusterLoadAssignment).await;
    new.expect_nothing().await;
    assert_eq!(server.clients()[0].node_id, "proxy");
}

#[tokio::test]
async fn t9_sotw_one_node_can_have_two_streams() {
    one_node_can_have_two_streams::<Sotw>().await;
}

#[tokio::test]
async fn t9_delta_one_node_can_have_two_streams() {
    one_node_can_have_two_streams::<Delta>().await;
}

#[tokio::test]
async fn t10_streams_beyond_the_limit_are_refused() {
    let mut options = ServerOptions::single_group("all");
    options.max_streams = 1;
    let server = XdsServer::new(options);
    let address = serve(&server).await;
    let first = Client::<Delta>::with_clusters(address).await;
    let refused = Client::<Sotw>::open(address, Sotw::request(Cluster, &[])).await.err().unwrap();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    first.finish().await.unwrap();
    eventually("gone", || server.clients().is_empty()).await;
    Client::<Sotw>::open(address, Sotw::request(Cluster, &[])).await.unwrap();
}

async fn shutdown_sends_clients_elsewhere<V: Variant>() {
    let server = server();
    let address = serve(&server).await;
    let mut client = Client::<V>::with_clusters(address).await;
    eventually("connected", || server.clients().len() == 1).await;
    server.shutdown();
    assert_eq!(client.next().await.unwrap_err().code(), Code::Unavailable);
    let refused = Client::<V>::open(address, V::request(Cluster, &[])).await.err().unwrap();
    assert_eq!(refused.code(), Code::Unavailable);
}

#[tokio::test]
async fn t12_sotw_shutdown_sends_clients_elsewhere() {
    shutdown_sends_clients_elsewhere::<Sotw>().await;
}

#[tokio::test]
async fn t12_delta_shutdown_sends_clients_elsewhere() {
    shutdown_sends_clients_elsewhere::<Delta>().await;
}

/// Many streams opened and dropped in a row, and many at once, are answered and leave nothing behind.
async fn a_reconnect_storm_leaves_nothing<V: Variant>() {
    const STREAMS: usize = 300;
    let (server, metrics) = measured(ServerOptions::single_group("all"));
    server.publish("all", snapshot(&[("a", 1, 1), ("b", 1, 1)], &["a"]));
    let address = serve(&server).await;
    let channel = connect(address).await;
    let all = V::request(Cluster, &[]);
    for round in 0..STREAMS {
        // Every other one has a response in flight when it goes; some have a connection of their own.
        let channel = if round % 10 == 0 { connect(address).await } else { channel.clone() };
        let mut client = Client::<V>::open_on(channel, None, all.clone()).await.unwrap();
        if round % 2 == 0 {
            assert_eq!(V::names(&client.expect(Cluster).await), ["a", "b"]);
        }
    }
    let at_once = (0..STREAMS).map(|_| {
        let (channel, all) = (channel.clone(), all.clone());
        async move {
            let mut client = Client::<V>::open_on(channel, None, all).await.unwrap();
            assert_eq!(V::names(&client.expect_acked(Cluster).await), ["a", "b"]);
        }
    });
    futures::future::join_all(at_once).await;
    eventually("all are gone", || server.clients().is_empty()).await;
    eventually("and are counted no more", || {
        let seen = metrics.read();
        seen.sum("xds_streams") == 0.0
            && seen.sum("xds_pending_acks") == 0.0
            && seen.labels("xds_slowest_client_seconds").is_empty()
    })
    .await;
    let seen = metrics.read();
    assert_eq!(seen.value("xds_streams_rejected_total"), 0.0);
    assert_eq!(seen.value("xds_encoded_responses_total{type=\"CDS\"}"), 1.0, "encoded once for all");
    let mut client = Client::<V>::open_on(channel, None, all).await.unwrap();
    client.expect_acked(Cluster).await;
}

#[tokio::test]
async fn t13_sotw_a_reconnect_storm_leaves_nothing() {
    a_reconnect_storm_leaves_nothing::<Sotw>().await;
}

#[tokio::test]
async fn t13_delta_a_reconnect_storm_leaves_nothing() {
    a_reconnect_storm_leaves_nothing::<Delta>().await;
}
