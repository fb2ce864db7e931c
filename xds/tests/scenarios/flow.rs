//! Slow clients, bursts and locks: F1 to F4.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use clairvoy_xds::ResourceType::{Cluster, ClusterLoadAssignment};
use clairvoy_xds::{ServerOptions, Snapshot, SnapshotBuilder, SyncState, XdsServer};

use crate::fixtures;
use crate::harness::{
    Client, Delta, PATIENCE, Sotw, Variant, eventually, in_sync, serve, server, settled, snapshot,
};

/// One cluster of a mebibyte, and endpoints.
fn large(settings: u64) -> Snapshot {
    let mut cluster = fixtures::cluster("a", settings);
    cluster.alt_stat_name = "x".repeat(1 << 20);
    let mut builder = SnapshotBuilder::new();
    builder.cluster(cluster).assignment(fixtures::assignment("a", 1));
    builder.build().unwrap()
}

/// A client that stops reading costs others nothing, and little memory.
async fn a_client_that_stops_reading<V: Variant>() {
    const CHANGES: u64 = 30;
    let mut options = ServerOptions::single_group("all");
    // So that it is not the missing ACK that holds responses back.
    options.ack_timeout = Duration::from_millis(1);
    let server = XdsServer::new(options);
    server.publish("all", large(1));
    let address = serve(&server).await;
    let stuck = Client::<V>::with_clusters(address).await;
    let mut reader = Client::<V>::with_clusters(address).await;
    reader.expect_acked(Cluster).await;
    for settings in 2..2 + CHANGES {
        let started = Instant::now();
        server.publish("all", large(settings));
        assert!(started.elapsed() < Duration::from_secs(5), "publishing waits for nobody");
        reader.expect_acked(Cluster).await;
    }
    let sent = |settled: bool| {
        let clients = server.clients();
        let mut clients = clients.iter().filter(|client| (client.sync == SyncState::InSync) == settled);
        clients.next().map(|client| client.types[2].1.responses_sent)
    };
    eventually("the reader has everything", || sent(true).is_some()).await;
    let to_the_stuck = sent(false).expect("the other one waits");
    assert!(to_the_stuck <= 8, "{to_the_stuck} responses of a mebibyte each are buffered");
    drop(stuck);
    eventually("gone", || server.clients().len() == 1).await;
}

#[tokio::test]
async fn f1_sotw_a_client_that_stops_reading_delays_no_other() {
    a_client_that_stops_reading::<Sotw>().await;
}

#[tokio::test]
async fn f1_delta_a_client_that_stops_reading_delays_no_other() {
    a_client_that_stops_reading::<Delta>().await;
}

/// While an ACK is due changes are merged.
async fn one_in_flight<V: Variant>() {
    let server = server();
    server.publish("all", snapshot(&[("a", 1, 1)], &["a"]));
    let mut client: Client<V> = settled(&server, serve(&server).await, &["a"]).await;
    server.publish("all", snapshot(&[("a", 1, 2)], &["a"]));
    let first = client.expect(ClusterLoadAssignment).await;
    for port in 3..61 {
        server.publish("all", snapshot(&[("a", 1, port)], &["a"]));
    }
    client.expect_nothing().await;
    client.ack(&first).await;
    let second = client.expect_acked(ClusterLoadAssignment).await;
    let newest = snapshot(&[("a", 1, 60)], &["a"]);
    let mut other: Client<V> = {
        let fresh = crate::harness::server();
        fresh.publish("all", newest);
        let first = V::request(ClusterLoadAssignment, &["a"]);
        Client::open(serve(&fresh).await, first).await.unwrap()
    };
    assert_eq!(V::contents(&second), V::contents(&other.expect(ClusterLoadAssignment).await));
    client.expect_nothing().await;
    in_sync(&server).await;
}

#[tokio::test]
async fn f2_sotw_sixty_changes_make_two_responses() {
    one_in_flight::<Sotw>().await;
}

#[tokio::test]
async fn f2_delta_sixty_changes_make_two_responses() {
    one_in_flight::<Delta>().await;
}

async fn a_client_that_never_answers<V: Variant>() {
    let mut options = ServerOptions::single_group("all");
    options.ack_timeout = Duration::from_millis(200);
    let server = XdsServer::new(options);
    server.publish("all", snapshot(&[("a", 1, 1)], &[]));
    let mut client = Client::<V>::with_clusters(serve(&server).await).await;
    client.expect(Cluster).await;
    server.publish("all", snapshot(&[("a", 2, 1)], &[]));
    client.expect(Cluster).await;
}

#[tokio::test]
async fn f2_sotw_a_client_that_never_answers_is_served_after_the_limit() {
    a_client_that_never_answers::<Sotw>().await;
}

#[tokio::test]
async fn f2_delta_a_client_that_never_answers_is_served_after_the_limit() {
    a_client_that_never_answers::<Delta>().await;
}

/// After a burst a client has the newest state, by way of none that is older than the one before.
async fn newest_wins<V: Variant>() {
    let server = server();
    let states: Vec<Snapshot> = (2..100).map(|port| snapshot(&[("a", 1, port)], &["a"])).collect();
    server.publish("all", snapshot(&[("a", 1, 1)], &["a"]));
    let mut client: Client<V> = settled(&server, serve(&server).await, &["a"]).await;
    let mut seen = Vec::new();
    for state in &states {
        server.publish("all", state.clone());
        tokio::task::yield_now().await;
    }
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while server.clients()[0].sync != SyncState::InSync {
        assert!(tokio::time::Instant::now() < deadline);
        let next = tokio::time::timeout(Duration::from_millis(20), client.expect(ClusterLoadAssignment));
        if let Ok(response) = next.await {
            client.ack(&response).await;
            seen.push(port_in(&V::contents(&response)[0].value));
        }
    }
    assert!(seen.is_sorted() && seen.last() == Some(&99), "{seen:?}");
    assert!(seen.len() < 30, "{} responses", seen.len());
}

fn port_in(assignment: &[u8]) -> u16 {
    use envoy_types::pb::envoy::config::core::v3::address::Address;
    use envoy_types::pb::envoy::config::core::v3::socket_address::PortSpecifier;
    use envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
    use envoy_types::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
    let assignment: ClusterLoadAssignment = prost::Message::decode(assignment).unwrap();
    let Some(HostIdentifier::Endpoint(endpoint)) =
        assignment.endpoints[0].lb_endpoints[0].host_identifier.clone()
    else {
        panic!("no endpoint")
    };
    let Some(Address::SocketAddress(socket)) = endpoint.address.unwrap().address else { panic!("no socket") };
    let Some(PortSpecifier::PortValue(port)) = socket.port_specifier else { panic!("no port") };
    port.try_into().unwrap()
}

#[tokio::test]
async fn f3_sotw_the_newest_state_wins() {
    newest_wins::<Sotw>().await;
}

#[tokio::test]
async fn f3_delta_the_newest_state_wins() {
    newest_wins::<Delta>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f4_publishers_streams_and_onlookers_do_not_wait_for_each_other() {
    let server = server();
    let address = serve(&server).await;
    server.publish("all", snapshot(&[("a", 1, 1)], &["a"]));
    let running = Arc::new(AtomicUsize::new(4));
    let publishers: Vec<_> = (0..4_u16)
        .map(|publisher| {
            let (server, running) = (server.clone(), running.clone());
            std::thread::spawn(move || {
                for i in 0..50 {
                    let port = 10 + i * 4 + publisher;
                    server.publish("all", snapshot(&[("a", (i % 3 + 1).into(), port)], &["a"]));
                    server.regroup();
                    assert!(server.clients().len() <= 8);
                }
                running.fetch_sub(1, Ordering::Release);
            })
        })
        .collect();
    let clients = (0..8).map(|i| {
        let (server, running) = (server.clone(), running.clone());
        async move {
            if i % 2 == 0 {
                drive::<Sotw>(&server, address, &running).await
            } else {
                drive::<Delta>(&server, address, &running).await
            }
        }
    });
    tokio::time::timeout(3 * PATIENCE, futures::future::join_all(clients)).await.expect("no deadlock");
    for publisher in publishers {
        publisher.join().unwrap();
    }
}

/// Follows everything until the publishers are done and the client is in sync.
async fn drive<V: Variant>(server: &XdsServer, address: std::net::SocketAddr, running: &AtomicUsize) {
    let mut client = Client::<V>::with_clusters(address).await;
    client.subscribe(ClusterLoadAssignment, &["a"]).await;
    let all_in_sync = || server.clients().iter().all(|client| client.sync == SyncState::InSync);
    while running.load(Ordering::Acquire) > 0 || !all_in_sync() {
        let next = tokio::time::timeout(Duration::from_millis(20), client.expect_any());
        if let Ok(response) = next.await {
            client.ack(&response).await;
        }
    }
}
