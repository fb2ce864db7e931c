//! What becomes of endpoints that are published.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clairvoy_xds::ResourceType::ClusterLoadAssignment;
use clairvoy_xds::{Delivery, ServerOptions, XdsServer};

use crate::harness::{Client, Delta, Sotw, Variant, eventually, serve, server, settled, snapshot};

async fn every_client_counts_once<V: Variant>() {
    let server = server();
    let first = server.publish("all", snapshot(&[("a", 1, 1), ("b", 1, 1)], &["a"])).unwrap();
    let address = serve(&server).await;
    let mut clients: Vec<Client<V>> = Vec::new();
    for _ in 0..4 {
        clients.push(settled(&server, address, &["a", "b"]).await);
    }
    let receipt = first.receipt("a");
    assert_eq!((receipt.clients, receipt.accepted), (4, 4), "the first state is for whoever comes");
    assert!(server.publish("all", snapshot(&[("a", 1, 1), ("b", 1, 1)], &["a"])).is_none());
    assert!(server.publish("all", snapshot(&[("a", 1, 1), ("b", 1, 1)], &["b"])).is_none(), "no endpoints");
    for client in &mut clients {
        client.expect_acked(clairvoy_xds::ResourceType::RouteConfiguration).await;
    }

    let delivery = server.publish("all", snapshot(&[("a", 1, 2), ("b", 1, 1)], &["b"])).unwrap();
    assert!(delivery.changes("a") && !delivery.changes("b") && !delivery.changes("c"));
    assert_eq!((delivery.receipt("a").clients, delivery.receipt("a").accepted), (4, 0));
    // One that comes later is sent the same, and is not counted.
    let _late: Client<V> = late(&server, address).await;
    clients[0].expect_acked(ClusterLoadAssignment).await;
    clients[1].expect_acked(ClusterLoadAssignment).await;
    eventually("two have it", || delivery.receipt("a").accepted == 2).await;
    assert!(!delivery.is_settled());
    let response = clients[2].expect(ClusterLoadAssignment).await;
    clients[2].nack(&response, "no such port").await;
    eventually("one refuses it", || delivery.receipt("a").refused.len() == 1).await;
    drop(clients.pop());
    eventually("one has gone", || delivery.is_settled()).await;

    let receipt = delivery.receipt("a");
    assert_eq!((receipt.clients, receipt.accepted, receipt.left), (4, 2, 1));
    assert_eq!((&*receipt.refused[0].0, &*receipt.refused[0].1), ("proxy", "no such port"));
    assert!(receipt.first <= receipt.last && receipt.last < Some(Duration::from_secs(20)), "{receipt:?}");
    let other = delivery.receipt("b");
    assert_eq!((other.accepted, other.refused.len()), (3, 0), "the one that refuses a has b");
}

async fn a_client_that_is_brought_into_another_group_counts_there<V: Variant>() {
    let is_moved = Arc::new(AtomicBool::new(false));
    let seen = is_moved.clone();
    let group = move || if seen.load(Ordering::Relaxed) { "zone" } else { "all" };
    let server = XdsServer::new(ServerOptions::new(move |_| Some(group().into())));
    for group in ["all", "zone"] {
        server.publish(group, snapshot(&[("a", 1, 1)], &["a"]));
    }
    let mut client: Client<V> = settled(&server, serve(&server).await, &["a"]).await;
    let counts = |delivery: &Delivery| {
        let receipt = delivery.receipt("a");
        (receipt.clients, receipt.accepted, receipt.left)
    };

    let left = server.publish("all", snapshot(&[("a", 1, 2)], &["a"])).unwrap();
    let joined = server.publish("zone", snapshot(&[("a", 1, 3)], &["a"])).unwrap();
    assert_eq!((counts(&left), counts(&joined)), ((1, 0, 0), (0, 0, 0)));
    let response = client.expect(ClusterLoadAssignment).await;
    is_moved.store(true, Ordering::Relaxed);
    server.regroup();
    eventually("it has moved", || server.clients()[0].group.as_deref() == Some("zone")).await;
    assert_eq!((counts(&left), counts(&joined)), ((0, 0, 0), (1, 0, 0)));
    client.ack(&response).await;
    client.expect_acked(ClusterLoadAssignment).await;
    eventually("it has it", || joined.is_settled()).await;
    assert_eq!((counts(&left), counts(&joined)), ((0, 0, 0), (1, 1, 0)));

    // What it is to have in the next group, it has.
    let back = server.publish("all", snapshot(&[("a", 1, 3)], &["a"])).unwrap();
    is_moved.store(false, Ordering::Relaxed);
    server.regroup();
    eventually("it has moved back", || counts(&back) == (1, 1, 0)).await;
    assert_eq!(counts(&joined), (0, 0, 0));
}

async fn late<V: Variant>(server: &XdsServer, address: std::net::SocketAddr) -> Client<V> {
    use clairvoy_xds::ResourceType::Cluster;
    let before = server.clients().len();
    let mut client = Client::<V>::open(address, V::request(Cluster, &[])).await.unwrap();
    client.expect_acked(Cluster).await;
    client.subscribe(ClusterLoadAssignment, &["a", "b"]).await;
    client.expect_acked(ClusterLoadAssignment).await;
    eventually("it is there", || server.clients().len() > before).await;
    client
}

#[tokio::test]
async fn every_client_counts_once_delta() {
    every_client_counts_once::<Delta>().await;
}

#[tokio::test]
async fn every_client_counts_once_sotw() {
    every_client_counts_once::<Sotw>().await;
}

#[tokio::test]
async fn a_client_that_is_brought_into_another_group_counts_there_delta() {
    a_client_that_is_brought_into_another_group_counts_there::<Delta>().await;
}

#[tokio::test]
async fn a_client_that_is_brought_into_another_group_counts_there_sotw() {
    a_client_that_is_brought_into_another_group_counts_there::<Sotw>().await;
}
