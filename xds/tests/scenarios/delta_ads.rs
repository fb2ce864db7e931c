//! The incremental variant on the aggregated service: D1 to D11.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clairvoy_xds::ResourceType::{Cluster, ClusterLoadAssignment, Listener, RouteConfiguration};
use clairvoy_xds::{ClientEventKind, ServerOptions, SyncState, XdsServer};
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};

use crate::harness::{Delta, eventually, in_sync, names, refusal, request, serve, server, snapshot, wants};

type Client = crate::harness::Client<Delta>;

async fn settled(server: &XdsServer, address: std::net::SocketAddr, clusters: &[&str]) -> Client {
    crate::harness::settled(server, address, clusters).await
}

fn removed(response: &DeltaDiscoveryResponse) -> &[String] {
    &response.removed_resources
}

/// What a client holds after a first response, as it says on the next stream.
fn held(response: DeltaDiscoveryResponse) -> impl Iterator<Item = (String, String)> {
    response.resources.into_iter().map(|resource| (resource.name, resource.version))
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
async fn d1_a_wildcard_lasts_until_the_star_is_unsubscribed() {
    for first in [&[][..], &["*"]] {
        for t in [Cluster, Listener] {
            let server = server();
            server.publish("all", snapshot(&[("a", 1, 1), ("b", 1, 1)], &[]));
            let mut client = Client::open(serve(&server).await, request(t, first)).await.unwrap();
            let all: Vec<_> = server.newest("all").unwrap().names(t).map(str::to_owned).collect();
            assert_eq!(names(&client.expect_acked(t).await), all);
        }
    }
    let server = server();
    server.publish("all", snapshot(&[("a", 1, 1), ("b", 1, 1)], &[]));
    let mut client = Client::with_clusters(serve(&server).await).await;
    client.expect_acked(Cluster).await;
    client.subscribe(Cluster, &["a"]).await;
    assert_eq!(names(&client.expect_acked(Cluster).await), ["a"]);
    server.publish("all", snapshot(&[("a", 1, 1), ("b", 2, 1)], &[]));
    assert_eq!(names(&client.expect_acked(Cluster).await), ["b"], "still a wildcard");

    client.unsubscribe(Cluster, &["*"]).await;
    client.subscribe(Cluster, &["a"]).await;
    assert_eq!(names(&client.expect_acked(Cluster).await), ["a"]);
    server.publish("all", snapshot(&[("a", 3, 1), ("b", 3, 1)], &[]));
    assert_eq!(names(&client.expect_acked(Cluster).await), ["a"], "no wildcard any more");
    client.unsubscribe(Cluster, &["a"]).await;
    client.subscribe(Cluster, &[]).await;
    wants(&server, Cluster, 0).await;
    server.publish("all", snapshot(&[("a", 4, 1)], &[]));
    client.expect_nothing().await;
}

#[tokio::test]
async fn d1_s12_no_names_of_other_types_mean_nothing() {
    let server = server();
    server.publish("all", snapshot(&[("a", 1, 1)], &[]));
    let address = serve(&server).await;
    for t in [ClusterLoadAssignment, RouteConfiguration] {
        let mut client = Client::open(address, request(t, &[])).await.unwrap();
        client.expect_nothing().await;
    }
}

#[tokio::test]
async fn d3_subscribed_names_are_sent_again() {
    let server = server();
    server.publish("all", snapshot(&[("a", 1, 1), ("b", 1, 1), ("c", 1, 1)], &[]));
    let mut client = settled(&server, serve(&server).await, &["a"]).await;
    client.subscribe(ClusterLoadAssignment, &["a", "a"]).await;
    assert_eq!(names(&client.expect_acked(ClusterLoadAssignment).await), ["a"]);
    // Many small requests without a nonce.
    for name in ["b", "c", "b"] {
        client.subscribe(ClusterLoadAssignment, &[name]).await;
    }
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < 2 {
        let response = client.expect_acked(ClusterLoadAssignment).await;
        seen.extend(names(&response).into_iter().map(str::to_owned));
    }
    in_sync(&server).await;
    server.publish("all", snapshot(&[("a", 1, 2), ("b", 1, 2), ("c", 1, 2)], &[]));
    while !seen.is_empty() {
        let response = client.expect_acked(ClusterLoadAssignment).await;
        names(&response).into_iter().for_each(|name| {
            seen.remove(name);
        });
    }
}

#[tokio::test]
async fn d4_unsubscribed_names_get_no_updates() {
    let server = server();
    server.publish("all", snapshot(&[("a", 1, 1), ("b", 1, 1)], &[]));
    let mut client = settled(&server, serve(&server).await, &["a", "b"]).await;
    client.unsubscribe(ClusterLoadAssignment, &["a", "never"]).await;
    wants(&server, ClusterLoadAssignment, 1).await;
    server.publish("all", snapshot(&[("a", 1, 2), ("b", 1, 2)], &[]));
    assert_eq!(names(&client.expect_acked(ClusterLoadAssignment).await), ["b"]);
    client.expect_nothing().await;
    client.subscribe(ClusterLoadAssignment, &["a"]).await;
    assert_eq!(names(&client.expect_acked(ClusterLoadAssignment).await), ["a"]);
}

#[tokio::test]
async fn d4_unsubscribing_under_a_wildcard_is_answered() {
    let server = server();
    server.publish("all", snapshot(&[("a", 1, 1)], &[]));
    let mut client = Client::with_clusters(serve(&server).await).await;
    client.expect_acked(Cluster).await;
    client.subscribe(Cluster, &["a", "gone"]).await;
    let response = client.expect_acked(Cluster).await;
    assert_eq!((names(&response), removed(&response)), (vec!["a"], &["gone".to_owned()][..]));
    client.unsubscribe(Cluster, &["a", "gone"]).await;
    let response = client.expect_acked(Cluster).await;
    assert_eq!((names(&response), removed(&response)), (vec!["a"], &["gone".to_owned()][..]));
    client.expect_nothing().await;
}

#[tokio::test]
async fn d5_a_name_that_is_not_there_is_remembered() {
    let server = server();
    server.publish("all", snapshot(&[("a", 1, 1)], &[]));
    let address = serve(&server).await;
    for t in [Cluster, ClusterLoadAssignment, Listener, RouteConfiguration] {
        let mut client = Client::open(address, request(t, &["not-there"])).await.unwrap();
        assert_eq!(removed(&client.expect_acked(t).await), ["not-there"]);
        client.expect_nothing().await;
    }
    let mut client = Client::open(address, request(Cluster, &["b"])).await.unwrap();
    assert_eq!(removed(&client.expect_acked(Cluster).await), ["b"]);
    server.publish("all", snapshot(&[("a", 1, 1), ("b", 1, 1)], &[]));
    assert_eq!(names(&client.expect_acked(Cluster).await), ["b"]);
    server.publish("all", snapshot(&[("a", 1, 1)], &[]));
    assert_eq!(removed(&client.expect_acked(Cluster).await), ["b"]);
    server.publish("all", snapshot(&[("a", 1, 1), ("b", 2, 1)], &[]));
    assert_eq!(names(&client.expect_acked(Cluster).await), ["b"]);
}

#[tokio::test]
async fn d6_what_went_while_a_client_was_away_is_told_as_removed() {
    let server = server();
    server.publish("all", snapshot(&[("b", 1, 1)], &[]));
    let address = serve(&server).await;
    for (t, names) in [(Cluster, &[][..]), (ClusterLoadAssignment, &["a"])] {
        let versions = [("a".to_owned(), "0".repeat(32))];
        let first = DeltaDiscoveryRequest { initial_resource_versions: versions.into(), ..request(t, names) };
        let mut client = Client::open_service(address, Some(t), first).await.unwrap();
        let mut all = Vec::new();
        while all.is_empty() {
            all.extend(client.expect_acked(t).await.removed_resources);
        }
        assert_eq!(all, ["a"], "{t}");
    }
    let versions = [("b".to_owned(), "unknown".to_owned())];
    let first =
        DeltaDiscoveryRequest { initial_resource_versions: versions.into(), ..request(Cluster, &["b"]) };
    let mut client = Client::open(address, first).await.unwrap();
    assert_eq!(names(&client.expect(Cluster).await), ["b"]);
}

#[tokio::test]
async fn d7_a_wildcard_without_news_is_answered_once() {
    let server = server();
    server.publish("all", snapshot(&[("a", 1, 1)], &[]));
    let address = serve(&server).await;
    for t in [Cluster, Listener] {
        let mut client = Client::open(address, request(t, &[])).await.unwrap();
        let versions = held(client.expect_acked(t).await).collect();
        let first = DeltaDiscoveryRequest { initial_resource_versions: versions, ..request(t, &[]) };
        let mut client = Client::open(address, first).await.unwrap();
        let response = client.expect_acked(t).await;
        assert!(response.resources.is_empty() && response.removed_resources.is_empty());
        client.expect_nothing().await;
    }
}

#[tokio::test]
async fn d8_other_resources_go_on_and_the_former_content_is_sent() {
    let server = server();
    server.publish("all", snapshot(&[("a", 1, 1), ("b", 1, 1)], &[]));
    let mut client = settled(&server, serve(&server).await, &["a", "b"]).await;
    server.publish("all", snapshot(&[("a", 1, 2), ("b", 1, 1)], &[]));
    let response = client.expect(ClusterLoadAssignment).await;
    client.nack(&response, "bad").await;
    server.publish("all", snapshot(&[("a", 1, 2), ("b", 1, 2)], &[]));
    assert_eq!(names(&client.expect_acked(ClusterLoadAssignment).await), ["b"]);
    server.publish("all", snapshot(&[("a", 1, 1), ("b", 1, 2)], &[]));
    assert_eq!(names(&client.expect_acked(ClusterLoadAssignment).await), ["a"]);
    in_sync(&server).await;
}

#[tokio::test]
async fn d8_s7_names_that_come_with_a_nack_count() {
    let server = server();
    server.publish("all", snapshot(&[("a", 1, 1), ("b", 1, 1)], &[]));
    let mut client = settled(&server, serve(&server).await, &["a"]).await;
    server.publish("all", snapshot(&[("a", 1, 2), ("b", 1, 1)], &[]));
    let response = client.expect(ClusterLoadAssignment).await;
    let request = DeltaDiscoveryRequest {
        response_nonce: response.nonce,
        error_detail: Some(refusal("bad")),
        ..request(ClusterLoadAssignment, &["b"])
    };
    client.send(request).await;
    assert_eq!(names(&client.expect_acked(ClusterLoadAssignment).await), ["b"]);
}

#[tokio::test]
async fn d9_names_count_whatever_the_nonce() {
    let server = server();
    server.publish("all", snapshot(&[("a", 1, 1), ("b", 1, 1)], &[]));
    let mut client = settled(&server, serve(&server).await, &["a"]).await;
    server.publish("all", snapshot(&[("a", 1, 2), ("b", 1, 1)], &[]));
    let response = client.expect(ClusterLoadAssignment).await;
    let old =
        DeltaDiscoveryRequest { response_nonce: "old".into(), ..request(ClusterLoadAssignment, &["b"]) };
    client.send(old).await;
    client.ack(&response).await;
    assert_eq!(names(&client.expect_acked(ClusterLoadAssignment).await), ["b"]);
}

#[tokio::test]
async fn d10_versions_are_the_same_on_every_server() {
    let server_a = server();
    let server_b = server();
    server_a.publish("all", snapshot(&[("a", 1, 1), ("b", 1, 1)], &["a"]));
    let mut client = settled(&server_a, serve(&server_a).await, &["a", "b"]).await;
    server_a.publish("all", snapshot(&[("a", 2, 1), ("b", 1, 1)], &["a"]));
    let changed = held(client.expect_acked(Cluster).await).next().unwrap().1;
    client.expect_acked(ClusterLoadAssignment).await;
    server_a.publish("all", snapshot(&[("a", 1, 1), ("b", 1, 1)], &["a"]));
    let first = held(client.expect_acked(Cluster).await).next().unwrap().1;
    assert_ne!(first, changed);

    server_b.publish("all", snapshot(&[("a", 1, 1), ("b", 1, 1)], &["a"]));
    let mut client = Client::with_clusters(serve(&server_b).await).await;
    let versions: std::collections::HashMap<_, _> = held(client.expect_acked(Cluster).await).collect();
    assert_eq!(versions["a"], first, "change and change back, and another server, give the same version");
}
