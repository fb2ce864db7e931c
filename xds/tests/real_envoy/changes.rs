//! What takes effect, when, and without a failed request.

use std::time::{Duration, Instant};

use clairvoy_xds::{Snapshot, SnapshotBuilder};

use crate::for_each_variant;
use crate::http::{self, Http};
use crate::load::Load;
use crate::proxy::XDS_CLUSTER;
use crate::resources;
use crate::served::Subscription;
use crate::serving::eventually;
use crate::stack::{self, Site};

/// How often a thing is changed under load.
const ROUNDS: usize = 24;

fn timeout_snapshot(subscription: Subscription, port: u16, connect_timeout_seconds: i64) -> Snapshot {
    let mut builder = SnapshotBuilder::new();
    builder.external_cluster(XDS_CLUSTER);
    builder.cluster(stack::cluster(subscription, "a", connect_timeout_seconds));
    builder.assignment(resources::assignment("a", &[("z", 1, &[port])]));
    builder.listener(stack::listener(subscription));
    builder.route_configuration(resources::routes(&[("a", 1)]));
    builder.build().unwrap()
}

/// Changes nothing but a cluster, which Envoy then warms, and returns how long that took.
pub(crate) async fn change_cluster(site: &Site, subscription: Subscription, port: u16) -> Duration {
    let start = Instant::now();
    site.serving.publish(timeout_snapshot(subscription, port, 2));
    eventually("the changed cluster is in use", async || {
        let clusters = site.envoy.active_clusters().await;
        clusters.iter().any(|cluster| cluster["name"] == "a" && cluster["connect_timeout"] == "2s")
    })
    .await;
    start.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e2e_w1_a_changed_cluster_is_in_use_at_once() {
    for_each_variant(async |subscription| {
        let port = http::origin("one").await;
        let first = timeout_snapshot(subscription, port, 1);
        let site = Site::start(subscription, first).await;
        site.serves().await;

        let took = change_cluster(&site, subscription, port).await;
        assert!(took < Duration::from_secs(1), "it took {took:?}");
        assert!(site.envoy.warming_clusters().await.is_empty());
        site.serving.in_sync("the change is ACKed").await;
        println!("in use after {took:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e2e_o1_a_whole_stack_in_one_state_serves_at_once() {
    for_each_variant(async |subscription| {
        let port = http::origin("one").await;
        let nothing = SnapshotBuilder::new().build().unwrap();
        let site = Site::start(subscription, nothing).await;

        let start = Instant::now();
        site.serving.publish(stack::stack(subscription, &[("a", port)], "a"));
        site.serves().await;
        let took = start.elapsed();
        assert!(took < Duration::from_secs(2), "it took {took:?}");
        site.serving.in_sync("the stack is ACKed").await;
        println!("serves after {took:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e2e_o2_o3_a_route_moves_and_its_old_cluster_is_deleted_under_load() {
    for_each_variant(async |subscription| {
        let (one, two) = (http::origin("one").await, http::origin("two").await);
        let site = Site::start(subscription, stack::stack(subscription, &[("a", one)], "a")).await;
        let load = Load::start(site.serves().await);
        load.reaches("one").await;

        for round in 0..ROUNDS {
            let (old, new, answer, port) =
                if round % 2 == 0 { ("a", "b", "two", two) } else { ("b", "a", "one", one) };
            site.serving.publish(stack::stack(subscription, &[(new, port)], new));
            load.reaches(answer).await;
            eventually("the old cluster goes", async || !site.envoy.has_cluster(old).await).await;
            site.serving.in_sync("the move is ACKed").await;
        }
        let tally = load.finish().await;
        tally.is_clean();
        println!("{} requests", tally.requests());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e2e_f3_endpoints_are_replaced_under_load() {
    for_each_variant(async |subscription| {
        let (one, two) = (http::origin("one").await, http::origin("two").await);
        let site = Site::start(subscription, stack::stack(subscription, &[("a", one)], "a")).await;
        let load = Load::start(site.serves().await);
        load.reaches("one").await;

        for round in 0..ROUNDS {
            let (answer, port) = if round % 2 == 0 { ("two", two) } else { ("one", one) };
            // Only the last state of a burst is of interest.
            for stale in [one, two, port] {
                site.serving.publish(stack::stack(subscription, &[("a", stale)], "a"));
            }
            load.reaches(answer).await;
            site.serving.in_sync("the endpoints are ACKed").await;
        }
        let tally = load.finish().await;
        tally.is_clean();
        println!("{} requests", tally.requests());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e2e_s3_d2_the_last_resources_are_removed() {
    for_each_variant(async |subscription| {
        let port = http::origin("one").await;
        let site = Site::start(subscription, stack::stack(subscription, &[("a", port)], "a")).await;
        let listening = site.serves().await;

        let mut builder = SnapshotBuilder::new();
        stack::add_clusters(&mut builder, subscription, &[("a", port)]);
        site.publish(builder.build().unwrap()).await;
        eventually("the listener goes", async || site.envoy.listener_port().await.is_none()).await;
        eventually("its port is closed", async || Http::connect(listening).await.is_err()).await;
        assert!(site.envoy.has_cluster("a").await);

        site.publish(SnapshotBuilder::new().build().unwrap()).await;
        eventually("the last cluster goes", async || site.envoy.active_clusters().await.is_empty()).await;

        site.publish(stack::stack(subscription, &[("a", port)], "a")).await;
        site.serves().await;
    })
    .await;
}
