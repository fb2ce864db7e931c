//! Bursts of changes, merged at the source: F5.

use std::time::{Duration, Instant};

use clairvoy_xds::ResourceType::{self, Cluster, ClusterLoadAssignment};
use clairvoy_xds::{ServerOptions, SyncState, XdsServer};

use crate::harness::{Client, Delta, PATIENCE, Sotw, Variant, eventually, serve, settled, snapshot};

fn paced(time: Duration) -> XdsServer {
    let mut options = ServerOptions::single_group("all");
    options.pace = (time, time);
    XdsServer::new(options)
}

fn sent(server: &XdsServer, resource_type: ResourceType) -> u64 {
    let clients = server.clients();
    let of_type = clients[0].types.iter().find(|(t, _)| *t == resource_type);
    of_type.map_or(0, |(_, status)| status.responses_sent)
}

/// A client that answers at once is sent few of many states, and the newest one.
async fn a_burst_is_merged<V: Variant>() {
    const CHANGES: u16 = 60;
    let server = paced(Duration::from_millis(500));
    server.publish("all", snapshot(&[("a", 1, 1)], &["a"]));
    let mut client: Client<V> = settled(&server, serve(&server).await, &["a"]).await;
    let before = sent(&server, ClusterLoadAssignment);
    let burst = {
        let server = server.clone();
        tokio::spawn(async move {
            for port in 2..2 + CHANGES {
                server.publish("all", snapshot(&[("a", 1, port)], &["a"]));
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
    };
    let deadline = Instant::now() + PATIENCE;
    while !burst.is_finished() || server.clients()[0].sync != SyncState::InSync {
        assert!(Instant::now() < deadline, "in sync");
        let next = tokio::time::timeout(Duration::from_millis(20), client.expect_any());
        if let Ok(response) = next.await {
            client.ack(&response).await;
        }
    }
    let responses = sent(&server, ClusterLoadAssignment) - before;
    assert!((1..=12).contains(&responses), "{responses} responses for {CHANGES} changes");
}

#[tokio::test]
async fn f5_sotw_a_burst_is_merged() {
    a_burst_is_merged::<Sotw>().await;
}

#[tokio::test]
async fn f5_delta_a_burst_is_merged() {
    a_burst_is_merged::<Delta>().await;
}

/// While clusters have to wait for the end of the pause, endpoints go at once.
async fn endpoints_do_not_wait<V: Variant>() {
    const PACE: Duration = Duration::from_secs(4);
    let server = paced(PACE);
    server.publish("all", snapshot(&[("a", 1, 1)], &["a"]));
    let published = Instant::now();
    let mut client: Client<V> = settled(&server, serve(&server).await, &["a"]).await;
    // The first state was one of endpoints, too.
    eventually("it is quiet", || published.elapsed() > PACE).await;

    server.publish("all", snapshot(&[("a", 2, 1)], &["a"]));
    let burst = Instant::now();
    client.expect_acked(Cluster).await;
    client.expect_acked(ClusterLoadAssignment).await;
    eventually("in sync", || server.clients()[0].sync == SyncState::InSync).await;
    let before = sent(&server, Cluster);
    for settings in 3..30 {
        server.publish("all", snapshot(&[("a", settings, 1)], &["a"]));
    }
    client.expect_nothing().await;
    assert_eq!(sent(&server, Cluster), before, "clusters wait");
    server.publish("all", snapshot(&[("a", 29, 7)], &["a"]));
    // The newest state is sent whole.
    client.expect_acked(Cluster).await;
    client.expect_acked(ClusterLoadAssignment).await;
    assert!(burst.elapsed() < PACE, "{:?}", burst.elapsed());
    eventually("in sync", || server.clients()[0].sync == SyncState::InSync).await;
}

#[tokio::test]
async fn f5_sotw_endpoints_do_not_wait_for_clusters() {
    endpoints_do_not_wait::<Sotw>().await;
}

#[tokio::test]
async fn f5_delta_endpoints_do_not_wait_for_clusters() {
    endpoints_do_not_wait::<Delta>().await;
}
