//! The state-of-the-world variant: S1 to S12, on the aggregated service and on that of the type.

use clairvoy_xds::ResourceType::{
    self, Cluster, ClusterLoadAssignment, Listener, RouteConfiguration, Runtime, Secret,
};
use envoy_types::pb::envoy::service::discovery::v3::DiscoveryRequest;

use crate::harness::{
    Sotw, eventually, in_sync, refusal, serve, server, snapshot, sotw_names as names,
    sotw_request as request, wants,
};

type Client = crate::harness::Client<Sotw>;

/// The aggregated service and that of the type.
fn services(t: ResourceType) -> [Option<ResourceType>; 2] {
    [None, Some(t)]
}

#[tokio::test]
async fn s1_a_wildcard_gets_everything() {
    let server = server();
    server.publish("all", snapshot(&[("a", 1, 1), ("b", 1, 1)], &[]));
    let address = serve(&server).await;
    for (t, all) in [(Cluster, &["a", "b"][..]), (Listener, &["front"])] {
        for only in services(t) {
            for wanted in [&[][..], &["*"]] {
                let mut client = Client::open_service(address, only, request(t, wanted)).await.unwrap();
                assert_eq!(names(&client.expect_acked(t).await), all);
                client.expect_nothing().await;
            }
        }
    }
}

#[tokio::test]
async fn s2_a_client_by_name_gets_only_these() {
    let server = server();
    server.publish("all", snapshot(&[("a", 1, 1), ("b", 1, 1)], &[]));
    let address = serve(&server).await;
    for (t, name) in
        [(Cluster, "b"), (ClusterLoadAssignment, "b"), (Listener, "front"), (RouteConfiguration, "routes")]
    {
        for only in services(t) {
            let mut client = Client::open_service(address, only, request(t, &[name])).await.unwrap();
            assert_eq!(names(&client.expect_acked(t).await), [name]);
            client.expect_nothing().await;
        }
    }
}

#[tokio::test]
async fn s3_clusters_and_listeners_always_come_as_a_full_set() {
    for only in services(Cluster) {
        let server = server();
        server.publish("all", snapshot(&[("a", 1, 1), ("b", 1, 1)], &[]));
        let address = serve(&server).await;
        let mut client = Client::open_service(address, only, request(Cluster, &[])).await.unwrap();
        client.expect_acked(Cluster).await;
        server.publish("all", snapshot(&[("a", 1, 1), ("b", 2, 1)], &[]));
        assert_eq!(names(&client.expect_acked(Cluster).await), ["a", "b"]);
        server.publish("all", snapshot(&[("a", 1, 1)], &[]));
        assert_eq!(names(&client.expect_acked(Cluster).await), ["a"]);
        server.publish("all", snapshot(&[], &[]));
        let last = client.expect_acked(Cluster).await;
        assert!(last.resources.is_empty() && !last.version_info.is_empty());
        client.expect_nothing().await;
    }
}

#[tokio::test]
async fn s3_clusters_by_name_always_come_as_a_full_set() {
    let server = server();
    server.publish("all", snapshot(&[("a", 1, 1), ("b", 1, 1), ("c", 1, 1)], &[]));
    let address = serve(&server).await;
    let mut client = Client::open(address, request(Cluster, &["a", "b"])).await.unwrap();
    client.expect_acked(Cluster).await;
    server.publish("all", snapshot(&[("a", 1, 1), ("b", 2, 1), ("c", 2, 1)], &[]));
    assert_eq!(names(&client.expect_acked(Cluster).await), ["a", "b"]);
    server.publish("all", snapshot(&[("b", 2, 1), ("c", 2, 1)], &[]));
    assert_eq!(names(&client.expect_acked(Cluster).await), ["b"]);
}

#[tokio::test]
async fn s4_endpoints_and_routes_come_alone() {
    for only in services(ClusterLoadAssignment) {
        let server = server();
        server.publish("all", snapshot(&[("a", 1, 1), ("b", 1, 1)], &[]));
        let address = serve(&server).await;
        let first = request(ClusterLoadAssignment, &["a", "b"]);
        let mut client = Client::open_service(address, only, first).await.unwrap();
        assert_eq!(names(&client.expect_acked(ClusterLoadAssignment).await), ["a", "b"]);
        server.publish("all", snapshot(&[("a", 1, 1), ("b", 1, 2)], &[]));
        assert_eq!(names(&client.expect_acked(ClusterLoadAssignment).await), ["b"]);
        client.expect_nothing().await;
    }
}

#[tokio::test]
async fn s5_an_ack_is_not_answered() {
    let server = server();
    server.publish("all", snapshot(&[("a", 1, 1)], &[]));
    let address = serve(&server).await;
    for (t, wanted) in [(Cluster, &[][..]), (ClusterLoadAssignment, &["a"])] {
        let mut client = Client::open(address, request(t, wanted)).await.unwrap();
        let response = client.expect_acked(t).await;
        client.ack(&response).await;
        client.ack(&response).await;
        client.expect_nothing().await;
    }
}

#[tokio::test]
async fn s6_names_come_and_go() {
    for only in services(ClusterLoadAssignment) {
        let server = server();
        server.publish("all", snapshot(&[("a", 1, 1), ("b", 1, 1)], &[]));
        let address = serve(&server).await;
        let t = ClusterLoadAssignment;
        let mut client = Client::open_service(address, only, request(t, &["a"])).await.unwrap();
        client.expect_acked(t).await;
        client.subscribe(t, &["a", "b"]).await;
        assert_eq!(names(&client.expect_acked(t).await), ["b"], "sent though nothing changed");
        client.subscribe(t, &["a"]).await;
        wants(&server, t, 1).await;
        server.publish("all", snapshot(&[("a", 1, 1), ("b", 1, 2)], &[]));
        client.expect_nothing().await;
        client.subscribe(t, &["a", "b"]).await;
        assert_eq!(names(&client.expect_acked(t).await), ["b"]);
        client.subscribe(t, &["b"]).await;
        client.subscribe(t, &["a", "b"]).await;
        assert_eq!(names(&client.expect_acked(t).await), ["a"], "sent again though nothing changed");
        client.expect_nothing().await;
    }
}

#[tokio::test]
async fn s6_names_of_clusters_come_and_go() {
    let server = server();
    server.publish("all", snapshot(&[("a", 1, 1), ("b", 1, 1)], &[]));
    let mut client = Client::open(serve(&server).await, request(Cluster, &["a"])).await.unwrap();
    client.expect_acked(Cluster).await;
    client.subscribe(Cluster, &["a", "b"]).await;
    assert_eq!(names(&client.expect_acked(Cluster).await), ["a", "b"]);
    client.subscribe(Cluster, &["a"]).await;
    wants(&server, Cluster, 1).await;
    server.publish("all", snapshot(&[("a", 1, 1), ("b", 2, 1)], &[]));
    client.expect_nothing().await;
    client.subscribe(Cluster, &["b", "a"]).await;
    assert_eq!(names(&client.expect_acked(Cluster).await), ["a", "b"]);
}

#[tokio::test]
async fn s7_refused_content_is_not_sent_again_until_it_changes() {
    for only in services(ClusterLoadAssignment) {
        let server = server();
        let t = ClusterLoadAssignment;
        server.publish("all", snapshot(&[("a", 1, 1), ("b", 1, 1)], &[]));
        let address = serve(&server).await;
        let mut client = Client::open_service(address, only, request(t, &["a"])).await.unwrap();
        client.expect_acked(t).await;
        server.publish("all", snapshot(&[("a", 1, 2), ("b", 1, 1)], &[]));
        let response = client.expect(t).await;
        client.nack(&response, "bad").await;
        client.expect_nothing().await;
        // Names that come with a refusal count.
        let with_names = DiscoveryRequest {
            response_nonce: response.nonce.clone(),
            error_detail: Some(refusal("bad")),
            ..request(t, &["a", "b"])
        };
        client.send(with_names).await;
        assert_eq!(names(&client.expect_acked(t).await), ["b"]);
        server.publish("all", snapshot(&[("a", 1, 3), ("b", 1, 1)], &[]));
        assert_eq!(names(&client.expect_acked(t).await), ["a"]);
        in_sync(&server).await;
    }
}

#[tokio::test]
async fn s7_a_refusal_does_not_hold_up_other_types() {
    let server = server();
    server.publish("all", snapshot(&[("a", 1, 1)], &[]));
    let mut client: Client = crate::harness::settled(&server, serve(&server).await, &["a"]).await;
    server.publish("all", snapshot(&[("a", 2, 1)], &[]));
    let response = client.expect(Cluster).await;
    client.nack(&response, "bad").await;
    client.expect_acked(ClusterLoadAssignment).await;
    server.publish("all", snapshot(&[("a", 2, 2)], &[]));
    assert_eq!(names(&client.expect_acked(ClusterLoadAssignment).await), ["a"]);
    client.expect_nothing().await;
    server.publish("all", snapshot(&[("a", 3, 2)], &[]));
    assert_eq!(names(&client.expect_acked(Cluster).await), ["a"]);
}

#[tokio::test]
async fn s7_only_an_error_makes_a_refusal() {
    let server = server();
    server.publish("all", snapshot(&[("a", 1, 1)], &[]));
    let mut client = Client::with_clusters(serve(&server).await).await;
    let response = client.expect(Cluster).await;
    let older_version = DiscoveryRequest {
        response_nonce: response.nonce.clone(),
        version_info: "older".into(),
        ..request(Cluster, &[])
    };
    client.send(older_version).await;
    eventually("acked", || server.clients()[0].acks() == 1).await;
    assert_eq!(server.clients()[0].nacks(), 0);
    server.publish("all", snapshot(&[("a", 2, 1)], &[]));
    let response = client.expect(Cluster).await;
    let same_version = DiscoveryRequest {
        response_nonce: response.nonce.clone(),
        version_info: response.version_info.clone(),
        error_detail: Some(refusal("bad")),
        ..request(Cluster, &[])
    };
    client.send(same_version).await;
    eventually("refused", || server.clients()[0].nacks() == 1).await;
}

#[tokio::test]
async fn s8_a_stale_nonce_is_not_answered_and_nothing_is_lost() {
    let server = server();
    let t = ClusterLoadAssignment;
    server.publish("all", snapshot(&[("a", 1, 1), ("b", 1, 1)], &[]));
    let mut client = Client::open(serve(&server).await, request(t, &["a"])).await.unwrap();
    let first = client.expect_acked(t).await;
    server.publish("all", snapshot(&[("a", 1, 2), ("b", 1, 1)], &[]));
    let second = client.expect(t).await;
    // Sent before the second response was read.
    let stale = DiscoveryRequest {
        response_nonce: first.nonce,
        version_info: first.version_info,
        ..request(t, &["a", "b"])
    };
    client.send(stale).await;
    client.expect_nothing().await;
    client.ack(&second).await;
    assert_eq!(names(&client.expect_acked(t).await), ["b"]);
}

#[tokio::test]
async fn s8_s6_a_name_dropped_by_a_stale_request_is_sent_again() {
    for (t, again) in [(ClusterLoadAssignment, &["b"][..]), (Cluster, &["a", "b"])] {
        let server = server();
        server.publish("all", snapshot(&[("a", 1, 1), ("b", 1, 1)], &[]));
        let mut client = Client::open(serve(&server).await, request(t, &["a", "b"])).await.unwrap();
        let first = client.expect_acked(t).await;
        server.publish("all", snapshot(&[("a", 2, 2), ("b", 1, 1)], &[]));
        let second = client.expect(t).await;
        for wanted in [&["a"][..], &["a", "b"]] {
            let stale = DiscoveryRequest { response_nonce: first.nonce.clone(), ..request(t, wanted) };
            client.send(stale).await;
        }
        client.expect_nothing().await;
        client.ack(&second).await;
        assert_eq!(names(&client.expect_acked(t).await), again);
        client.expect_nothing().await;
    }
}

#[tokio::test]
async fn s9_names_that_are_not_there_are_remembered_and_hold_up_nothing() {
    for only in services(ClusterLoadAssignment) {
        let server = server();
        let t = ClusterLoadAssignment;
        server.publish("all", snapshot(&[("a", 1, 1)], &[]));
        let address = serve(&server).await;
        let mut client = Client::open_service(address, only, request(t, &["a", "later"])).await.unwrap();
        assert_eq!(names(&client.expect_acked(t).await), ["a"]);
        server.publish("all", snapshot(&[("a", 1, 2)], &[]));
        assert_eq!(names(&client.expect_acked(t).await), ["a"]);
        server.publish("all", snapshot(&[("a", 1, 2), ("later", 1, 1)], &[]));
        assert_eq!(names(&client.expect_acked(t).await), ["later"]);
        client.expect_nothing().await;
    }
}

#[tokio::test]
async fn s10_clusters_and_listeners_that_are_not_there_are_answered_at_once() {
    let server = server();
    server.publish("all", snapshot(&[("a", 1, 1)], &[]));
    let address = serve(&server).await;
    for t in [Cluster, Listener] {
        for only in services(t) {
            let mut client = Client::open_service(address, only, request(t, &["later"])).await.unwrap();
            assert!(client.expect_acked(t).await.resources.is_empty());
            client.expect_nothing().await;
        }
    }
    let mut client = Client::open(address, request(Cluster, &["later"])).await.unwrap();
    client.expect_acked(Cluster).await;
    server.publish("all", snapshot(&[("a", 1, 1), ("later", 1, 1)], &[]));
    assert_eq!(names(&client.expect_acked(Cluster).await), ["later"]);
}

#[tokio::test]
async fn s11_names_end_a_wildcard() {
    for first in [&[][..], &["*", "a"], &["*"]] {
        let server = server();
        server.publish("all", snapshot(&[("a", 1, 1), ("b", 1, 1)], &[]));
        let mut client = Client::open(serve(&server).await, request(Cluster, first)).await.unwrap();
        assert_eq!(names(&client.expect_acked(Cluster).await), ["a", "b"]);
        client.subscribe(Cluster, &["a"]).await;
        wants(&server, Cluster, 1).await;
        server.publish("all", snapshot(&[("a", 1, 1), ("b", 2, 1)], &[]));
        client.expect_nothing().await;
        server.publish("all", snapshot(&[("a", 2, 1), ("b", 2, 1)], &[]));
        assert_eq!(names(&client.expect_acked(Cluster).await), ["a"]);

        client.subscribe(Cluster, &[]).await;
        wants(&server, Cluster, 0).await;
        server.publish("all", snapshot(&[("a", 3, 1), ("b", 3, 1)], &[]));
        client.expect_nothing().await;
    }
}

#[tokio::test]
async fn s12_no_names_of_other_types_mean_nothing() {
    let server = server();
    server.publish("all", crate::services::everything(1));
    let address = serve(&server).await;
    for t in [ClusterLoadAssignment, RouteConfiguration, Secret, Runtime] {
        for only in services(t) {
            let mut client = Client::open_service(address, only, request(t, &[])).await.unwrap();
            client.expect_nothing().await;
        }
    }
}
