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

/// Everything goes to `a`; beside it are a good cluster and one that Envoy refuses.
fn bad(subscription: Subscription, port: u16) -> Snapshot {
    let mut builder = SnapshotBuilder::new();
    stack::add_clusters(&mut builder, subscription, &[("a", port), ("good", port)]);
    let mut cluster = resources::cluster("bad", &stack::source(subscription));
    cluster.lb_policy = 99;
    builder.cluster(cluster).assignment(resources::assignment("bad", &[("z", 1, &[port])]));
    builder.listener(stack::listener(subscription));
    builder.route_configuration(resources::routes(&[("a", 1)]));
    builder.build().unwrap()
}

fn last_nack(site: &Site) -> Option<Nack> {
    site.serving.server.clients().into_iter().find_map(|client| client.last_nack)
}

fn nacks(site: &Site) -> u64 {
    site.serving.server.clients().iter().map(|client| client.nacks()).sum()
}

/// Publishes what Envoy refuses, then something good. `a` goes to the origin `one`.
pub(crate) async fn refuse_and_heal(site: &Site, subscription: Subscription, listening: u16, one: u16) {
    let two = http::origin("two").await;
    let mut events = site.serving.server.events();
    let load = Load::start(listening);
    load.reaches("one").await;

    site.serving.publish(bad(subscription, one));
    site.serving.nacked("the NACK is seen").await;
    // A delta client gets the rest of a refused response by itself; in SotW a response is refused as a whole.
    if subscription.variant == Variant::Delta {
        eventually("what is good is taken", async || site.envoy.has_cluster("good").await).await;
        eventually("what is bad is found", async || {
            last_nack(site).is_some_and(|nack| nack.resources == ["bad"])
        })
        .await;
    }
    let seen = last_nack(site).unwrap();
    assert_eq!(seen.resource_type, ResourceType::Cluster);
    assert!(seen.resources.iter().any(|name| name == "bad"), "{seen:?}");
    assert!(!seen.message.is_empty());
    eventually("the NACK is told", async || told(&mut events, &seen)).await;
    assert!(!site.envoy.has_cluster("bad").await);

    // Other types go on, and what was refused is not sent again.
    let before = nacks(site);
    site.serving.publish(bad(subscription, two));
    load.reaches("two").await;
    assert_eq!(nacks(site), before);

    // Nothing is moved: without one stream for all types there is no order of what is removed.
    site.publish(stack::stack(subscription, &[("a", one), ("c", one)], "a")).await;
    eventually("the next state heals", async || site.envoy.has_cluster("c").await).await;
    load.reaches("one").await;
    assert_eq!(nacks(site), before);
    load.finish().await.is_clean();
}

/// Whether this refusal is among the events that have come.
fn told(events: &mut Receiver<ClientEvent>, nack: &Nack) -> bool {
    std::iter::from_fn(|| events.try_recv().ok())
        .any(|event| matches!(event.kind, ClientEventKind::Nacked(told) if told == *nack))
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

const WANTED: [ResourceType; 4] = [
    ResourceType::Cluster,
    ResourceType::ClusterLoadAssignment,
    ResourceType::Listener,
    ResourceType::RouteConfiguration,
];

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
        let mut site = Site::start(subscription, state).await;
        let load = Load::start(site.serves().await);
        load.reaches("one").await;
        let before = changes(&site).await;
        assert!(before.iter().any(|count| *count > 0), "the names of the counters are right");
        let refused = site.envoy.stat("cluster_manager.cds.update_rejected").await;

        site.serving = site.serving.restarted().await;
        eventually("Envoy comes back for everything", async || {
            let clients = site.serving.server.clients();
            let subscribed = |wanted| {
                let types = clients.iter().flat_map(|client| &client.types);
                types.into_iter().any(|(of, status)| *of == wanted && status.subscribed)
            };
            WANTED.into_iter().all(subscribed)
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
