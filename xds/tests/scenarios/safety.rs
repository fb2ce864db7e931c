//! What protects clients from a bad state, and shows it: F6, F8, F9, F10 and F11.

use std::time::Duration;

use clairvoy_xds::ResourceType::{Cluster, ClusterLoadAssignment, Runtime};
use clairvoy_xds::{Fault, ResourceType, SnapshotBuilder, SyncState};
use envoy_types::pb::envoy::service::discovery::v3::Resource;
use prost::{Message, Name};

use crate::fixtures;
use crate::harness::{
    Client, Delta, Sotw, Variant, builder, eventually, in_sync, serve, server, settle, settled, snapshot,
};

async fn refusals_are_seen<V: Variant>() {
    let server = server();
    server.publish("all", snapshot(&[("a", 1, 1)], &["a"]));
    let mut client: Client<V> = settled(&server, serve(&server).await, &["a"]).await;
    server.publish("all", snapshot(&[("a", 1, 2)], &["a"]));
    let response = client.expect(ClusterLoadAssignment).await;
    client.nack(&response, "no such thing").await;
    eventually("seen", || server.clients()[0].sync == SyncState::Nacked).await;
    let [status] = &server.clients()[..] else { panic!("one client") };
    assert_eq!(status.nacks(), 1);
    let of_type = status.types.iter().find(|(t, _)| *t == ClusterLoadAssignment).unwrap();
    assert_eq!(of_type.1.nacks, 1);
    let nack = status.last_nack.as_ref().unwrap();
    assert_eq!((nack.resource_type, &nack.resources[..]), (ClusterLoadAssignment, &["a".to_owned()][..]));
    assert_eq!(nack.message, "no such thing");
}

#[tokio::test]
async fn f6_sotw_refusals_are_seen() {
    refusals_are_seen::<Sotw>().await;
}

#[tokio::test]
async fn f6_delta_refusals_are_seen() {
    refusals_are_seen::<Delta>().await;
}

#[tokio::test]
async fn f8_a_bad_state_cannot_be_published() {
    let faults = |builder: SnapshotBuilder| builder.build().unwrap_err().faults;
    let dangling = faults(builder(&[], &["nowhere"]));
    assert!(matches!(&dangling[..], [Fault::UnknownCluster { cluster, .. }] if cluster == "nowhere"));
    let twice = faults(builder(&[("a", 1, 1), ("a", 1, 1)], &[]));
    assert!(twice.iter().all(|fault| matches!(fault, Fault::DuplicateName { .. })));
    let mut weightless = builder(&[], &[]);
    weightless.cluster(fixtures::cluster("a", 1)).assignment(fixtures::weighted_assignment("a", 1, 0));
    assert!(matches!(&faults(weightless)[..], [Fault::ZeroWeight { .. }]));
}

/// Accepts what comes until a response of a type does.
async fn next_of<V: Variant>(client: &mut Client<V>, resource_type: ResourceType) -> V::Response {
    loop {
        let response = client.expect_any().await;
        if V::type_url(&response) == resource_type.type_url() {
            return response;
        }
        client.ack(&response).await;
    }
}

/// What several clients refuse is taken back for all.
async fn quarantine<V: Variant>() {
    let server = server();
    server.publish("all", snapshot(&[("a", 1, 1), ("b", 1, 1)], &["a"]));
    let address = serve(&server).await;
    let mut clients: Vec<Client<V>> = Vec::new();
    for _ in 0..3 {
        clients.push(settled(&server, address, &["a", "b"]).await);
    }
    let good = V::contents(&Client::<V>::with_clusters(address).await.expect(Cluster).await);
    eventually("gone", || server.clients().len() == 3).await;

    server.publish("all", snapshot(&[("a", 2, 1), ("b", 1, 1)], &["a"]));
    for client in &mut clients {
        let refused = next_of(client, Cluster).await;
        client.nack(&refused, "bad").await;
    }
    eventually("in quarantine", || server.quarantined().len() == 1).await;
    let [quarantined] = &server.quarantined()[..] else { panic!("one resource") };
    assert_eq!(
        (&*quarantined.group, quarantined.resource_type, &*quarantined.resource),
        ("all", Cluster, "a")
    );
    settle(&server, &mut clients).await;

    let mut new = Client::<V>::with_clusters(address).await;
    let response = new.expect_acked(Cluster).await;
    assert_eq!(V::contents(&response), good, "a new client gets what is proven");
    drop(new);
    eventually("gone", || server.clients().len() == 3).await;

    server.publish("all", snapshot(&[("a", 2, 1), ("b", 1, 7)], &["a"]));
    for client in &mut clients {
        let response = client.expect_acked(ClusterLoadAssignment).await;
        assert_eq!(V::names(&response), ["b"], "endpoints go on");
        client.expect_nothing().await;
    }
    server.publish("all", snapshot(&[("a", 3, 1), ("b", 1, 7)], &["a"]));
    assert!(server.quarantined().is_empty());
    for client in &mut clients {
        let response = next_of(client, Cluster).await;
        assert_ne!(V::contents(&response), good);
        client.ack(&response).await;
    }
    settle(&server, &mut clients).await;
}

#[tokio::test]
async fn f9_sotw_what_many_refuse_is_taken_back() {
    quarantine::<Sotw>().await;
}

#[tokio::test]
async fn f9_delta_what_many_refuse_is_taken_back() {
    quarantine::<Delta>().await;
}

#[tokio::test]
async fn f9_one_client_alone_puts_nothing_into_quarantine() {
    let server = server();
    server.publish("all", snapshot(&[("a", 1, 1)], &["a"]));
    let mut client: Client<Delta> = settled(&server, serve(&server).await, &["a"]).await;
    server.publish("all", snapshot(&[("a", 2, 1)], &["a"]));
    let refused = next_of(&mut client, Cluster).await;
    client.nack(&refused, "bad").await;
    eventually("seen", || server.clients()[0].nacks() == 1).await;
    assert!(server.quarantined().is_empty());
}

/// A runtime layer with a TTL is kept up as long as the publisher stands by it.
async fn heartbeats<V: Variant>(resources: impl Fn(&V::Response) -> Vec<Resource>) {
    let ttl = Duration::from_millis(2700);
    let server = server();
    let mut state = SnapshotBuilder::new();
    state.runtime_with_ttl(crate::services::runtime("layer", 7), ttl);
    let state = state.build().unwrap();
    server.publish("all", state.clone());
    let first = V::request(Runtime, &["layer"]);
    let mut client = Client::<V>::open(serve(&server).await, first).await.unwrap();
    let first = resources(&client.expect_acked(Runtime).await);
    let [layer] = &first[..] else { panic!("one layer: {first:?}") };
    assert!(layer.resource.is_some());
    let told = layer.ttl.as_ref().unwrap();
    assert_eq!((told.seconds, told.nanos), (2, 700_000_000));
    assert!(!server.confirm("other"), "nothing was published there");
    for round in 0..4 {
        // Either stands by it.
        if round % 2 == 0 {
            server.publish("all", state.clone());
        } else {
            assert!(server.confirm("all"));
        }
        let beat = resources(&client.expect_acked(Runtime).await);
        let [beat] = &beat[..] else { panic!("one heartbeat: {beat:?}") };
        assert_eq!((&*beat.name, &beat.version, &beat.ttl), ("layer", &layer.version, &layer.ttl));
    }
    // The publisher falls silent: a few more, then none.
    let mut more = 0;
    while let Ok(response) = tokio::time::timeout(2 * ttl, client.expect(Runtime)).await {
        client.ack(&response).await;
        more += 1;
        assert!(more <= 4, "heartbeats without a confirmation");
    }
    assert!(server.confirm("all"));
    let beat = resources(&client.expect_acked(Runtime).await);
    assert!(beat[0].resource.is_some(), "the client has forgotten the content");
}

#[tokio::test]
async fn f10_sotw_a_layer_with_a_ttl_is_kept_up() {
    heartbeats::<Sotw>(|response| {
        let unwrap = |any: &envoy_types::pb::google::protobuf::Any| {
            assert_eq!(any.type_url, Resource::type_url());
            Resource::decode(&*any.value).unwrap()
        };
        response.resources.iter().map(unwrap).collect()
    })
    .await;
}

#[tokio::test]
async fn f10_delta_a_layer_with_a_ttl_is_kept_up() {
    heartbeats::<Delta>(|response| response.resources.clone()).await;
}

/// Without a first state nothing is answered, so that clients keep what they have.
async fn the_first_state_is_awaited<V: Variant>() {
    let server = server();
    let mut client = Client::<V>::with_clusters(serve(&server).await).await;
    client.expect_nothing().await;
    assert_eq!(server.clients()[0].sync, SyncState::Pending);
    server.publish("all", snapshot(&[("a", 1, 1)], &[]));
    assert_eq!(V::names(&client.expect_acked(Cluster).await), ["a"]);
    in_sync(&server).await;
}

#[tokio::test]
async fn f11_sotw_clients_wait_for_the_first_state_of_their_group() {
    the_first_state_is_awaited::<Sotw>().await;
}

#[tokio::test]
async fn f11_delta_clients_wait_for_the_first_state_of_their_group() {
    the_first_state_is_awaited::<Delta>().await;
}
