//! Refused resources, and servers that end.

use clairvoy_xds::{ClientEvent, ClientEventKind, Nack, ResourceType, Snapshot, SnapshotBuilder};
use tokio::sync::broadcast::Receiver;

use crate::for_each_variant;
use crate::http;
use crate::load::Load;
use crate::resources;
use crate::served::{Subscription, Variant};
use crate::serving::eventually;
use crate::stack::{self, Site};

/// Has a cluster that Envoy refuses, beside a good one that everything goes to.
fn bad(subscription: Subscription, port: u16) -> Snapshot {
    let mut builder = SnapshotBuilder::new();
    stack::add_clusters(&mut builder, subscription, &[("b", port)]);
    let mut cluster = resources::cluster("bad", &stack::source(subscription));
    cluster.lb_policy = 99;
    builder.cluster(cluster).assignment(resources::assignment("bad", &[]));
    builder.listener(stack::listener(subscription));
    builder.route_configuration(resources::routes(&[("b", 1)]));
    builder.build().unwrap()
}

fn refusal(events: &mut Receiver<ClientEvent>) -> Option<Nack> {
    std::iter::from_fn(|| events.try_recv().ok()).find_map(|event| match event.kind {
        ClientEventKind::Nacked(nack) => Some(nack),
        _ => None,
    })
}

/// Publishes what Envoy refuses, then something good.
pub(crate) async fn refuse_and_heal(site: &Site, subscription: Subscription, listening: u16, port: u16) {
    let mut events = site.serving.server.events();
    let load = Load::start(listening);
    load.reaches("one").await;

    site.serving.publish(bad(subscription, port));
    site.serving.nacked("the NACK is seen").await;
    let client = site.serving.server.clients().into_iter().find(|client| client.nacks() > 0).unwrap();
    let seen = client.last_nack.as_ref().unwrap();
    assert_eq!(seen.resource_type, ResourceType::Cluster);
    assert!(seen.resources.iter().any(|name| name == "bad"), "{seen:?}");
    assert!(!seen.message.is_empty());
    let mut told = None;
    eventually("the NACK is told", async || {
        told = told.take().or_else(|| refusal(&mut events));
        told.is_some()
    })
    .await;
    assert_eq!(told.as_ref(), Some(seen));
    assert!(!site.envoy.has_cluster("bad").await);
    load.reaches("one").await;

    site.publish(stack::stack(subscription, &[("c", port)], "c")).await;
    eventually("the next state heals", async || site.envoy.has_cluster("c").await).await;
    load.reaches("one").await;
    let nacks = site.serving.server.clients().iter().map(|client| client.nacks()).sum::<u64>();
    assert_eq!(nacks, 1, "what was refused is not sent again");
    load.finish().await.is_clean();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e2e_d8_s7_a_nack_is_seen_and_the_next_change_heals() {
    for_each_variant(async |subscription| {
        let port = http::origin("one").await;
        let site = Site::start(subscription, stack::stack(subscription, &[("a", port)], "a")).await;
        let listening = site.serves().await;
        refuse_and_heal(&site, subscription, listening, port).await;
    })
    .await;
}

/// Changes that Envoy has made to what it has.
async fn changes(site: &Site) -> [u64; 6] {
    let envoy = &site.envoy;
    [
        envoy.stat("cluster_manager.cluster_added").await,
        envoy.stat("cluster_manager.cluster_modified").await,
        envoy.stat("cluster_manager.cluster_removed").await,
        envoy.stat("listener_manager.listener_modified").await,
        envoy.stat("cluster.a.membership_change").await,
        envoy.stat(&format!("http.front.rds.{}.config_reload", resources::ROUTES)).await,
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e2e_d6_d10_s13_a_restarted_server_changes_nothing() {
    for_each_variant(async |subscription| {
        let port = http::origin("one").await;
        let state = stack::stack(subscription, &[("a", port), ("b", port)], "a");
        let Site { serving, envoy } = Site::start(subscription, state).await;
        let mut site = Site { serving, envoy };
        let load = Load::start(site.serves().await);
        load.reaches("one").await;
        let before = changes(&site).await;
        assert!(before.iter().any(|count| *count > 0), "the names of the counters are right");
        let refused = site.envoy.stat("cluster_manager.cds.update_rejected").await;

        site.serving = site.serving.restarted().await;
        eventually("Envoy comes back for everything", async || {
            let clients = site.serving.server.clients();
            let wanted = [
                ResourceType::Cluster,
                ResourceType::ClusterLoadAssignment,
                ResourceType::Listener,
                ResourceType::RouteConfiguration,
            ];
            wanted.iter().all(|wanted| {
                let of = |client: &clairvoy_xds::ClientStatus| {
                    client.types.iter().any(|(of, status)| of == wanted && status.subscribed)
                };
                clients.iter().any(of)
            })
        })
        .await;
        site.serving.in_sync("Envoy has everything").await;
        load.reaches("one").await;
        assert_eq!(changes(&site).await, before);
        assert_eq!(site.envoy.stat("cluster_manager.cds.update_rejected").await, refused);
        if subscription.variant == Variant::Delta {
            let sent: u64 = site.serving.server.clients().iter().map(|client| client.resources_sent()).sum();
            assert_eq!(sent, 0);
        }

        // The new server is not mute.
        let two = http::origin("two").await;
        site.publish(stack::stack(subscription, &[("a", two), ("b", port)], "a")).await;
        load.reaches("two").await;
        load.finish().await.is_clean();
    })
    .await;
}
