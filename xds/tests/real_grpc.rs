//! The server and a real gRPC client with `xds:///` targets: gRPC for Python, which the set-up has fetched.
//!
//! gRPC speaks the SotW variant over the aggregated service, and asks for every type by name.

#![expect(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by a panic")]

#[path = "real_grpc/peer.rs"]
mod peer;
#[path = "peers/resources.rs"]
mod resources;
#[path = "peers/served.rs"]
mod served;
#[path = "real_grpc/service.rs"]
mod service;
#[path = "peers/serving.rs"]
mod serving;

use clairvoy_xds::{ResourceType, SnapshotBuilder};

use self::peer::Load;
use self::served::{Variant, served};
use self::service::{Site, TARGET, service};
use self::serving::eventually;

/// How often a thing is changed under load.
const ROUNDS: usize = 24;

/// Runs a scenario once SotW is served.
async fn when_served(scenario: impl AsyncFn()) {
    for _ in served(|subscription| subscription.aggregated && subscription.variant == Variant::Sotw) {
        scenario().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e2e_p1_p5_a_client_by_name_gets_through() {
    when_served(async || {
        let (mut site, ports) = Site::start(&["one", "two"]).await;
        let state =
            |one, two| service(&[("a", &[("z", 1, &[one])]), ("b", &[("z", 1, &[two])])], &[("a", 1)]);
        site.serving.publish(state(ports["one"], ports["two"]));
        let mut load = Load::start(&mut site.peer, TARGET).await;
        load.reaches("one").await;
        site.serving.in_sync("the client has what it wants").await;

        // Nothing is sent that was not asked for.
        let client = site.serving.server.clients().remove(0);
        assert_eq!(client.nacks(), 0, "{:?}", client.last_nack);
        for (resource_type, status) in &client.types {
            assert!(!status.wildcard, "{resource_type}");
            assert!(status.held <= 1, "{resource_type}: {status:?}");
        }
        load.lasts(100).await;
        load.finish().await.is_clean();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e2e_p3_endpoints_are_replaced_under_load() {
    when_served(async || {
        let (mut site, ports) = Site::start(&["one", "two"]).await;
        let state = |name: &str| service(&[("a", &[("z", 1, &[ports[name]])])], &[("a", 1)]);
        site.serving.publish(state("one"));
        let mut load = Load::start(&mut site.peer, TARGET).await;
        load.reaches("one").await;
        for round in 0..ROUNDS {
            let name = if round % 2 == 0 { "two" } else { "one" };
            site.serving.publish(state(name));
            load.reaches(name).await;
        }
        site.serving.in_sync("the endpoints are ACKed").await;
        load.finish().await.is_clean();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e2e_p3_a_route_moves_and_its_old_cluster_is_deleted_under_load() {
    when_served(async || {
        let (mut site, ports) = Site::start(&["one", "two"]).await;
        let state = |cluster, name: &str| service(&[(cluster, &[("z", 1, &[ports[name]])])], &[(cluster, 1)]);
        site.serving.publish(state("a", "one"));
        let mut load = Load::start(&mut site.peer, TARGET).await;
        load.reaches("one").await;
        for round in 0..ROUNDS {
            let (cluster, name) = if round % 2 == 0 { ("b", "two") } else { ("a", "one") };
            site.serving.publish(state(cluster, name));
            load.reaches(name).await;
            site.serving.in_sync("the move is ACKed").await;
        }
        load.finish().await.is_clean();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e2e_p4_s10_a_target_that_never_existed_is_answered_at_once() {
    when_served(async || {
        let (mut site, ports) = Site::start(&["one"]).await;
        let serving = &site.serving;
        let answered = eventually("the answer without the listener is ACKed", async || {
            let clients = serving.server.clients();
            let mut types = clients.iter().flat_map(|client| &client.types);
            types.any(|(of, status)| *of == ResourceType::Listener && status.acks > 0)
        });
        let (call, answered) = tokio::join!(site.peer.call("xds:///absent"), answered);
        assert!(call.error.is_some(), "{call:?}");
        assert!(answered.as_secs_f64() < 1.0, "{answered:?}");
        println!("answered after {answered:?}");

        // A cluster without endpoints is no reason to wait, either.
        site.serving.publish(service(&[("a", &[])], &[("a", 1)]));
        let call = site.peer.call(TARGET).await;
        assert!(call.error.is_some() && call.seconds < 2.0, "{call:?}");

        site.serving.publish(service(&[("a", &[("z", 1, &[ports["one"]])])], &[("a", 1)]));
        eventually("the target comes to be", async || site.peer.call(TARGET).await.answer.is_some()).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e2e_p4_s9_a_target_that_is_deleted_fails_at_once_and_comes_back() {
    when_served(async || {
        let (mut site, ports) = Site::start(&["one"]).await;
        let there = service(&[("a", &[("z", 1, &[ports["one"]])])], &[("a", 1)]);
        site.serving.publish(there.clone());
        let mut load = Load::start(&mut site.peer, TARGET).await;
        load.reaches("one").await;

        site.serving.publish(SnapshotBuilder::new().build().unwrap());
        let failure = load.fails().await;
        assert!(failure.contains("UNAVAILABLE"), "{failure}");
        site.serving.publish(there);
        load.reaches("one").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e2e_s7_a_refused_resource_is_seen_while_calls_go_on() {
    when_served(async || {
        let (mut site, ports) = Site::start(&["one", "two"]).await;
        let good = |name: &str| service(&[("a", &[("z", 1, &[ports[name]])])], &[("a", 1)]);
        site.serving.publish(good("one"));
        let mut load = Load::start(&mut site.peer, TARGET).await;
        load.reaches("one").await;

        // A policy that gRPC does not know.
        let mut builder = SnapshotBuilder::new();
        let mut cluster = resources::cluster("a", &resources::ads());
        cluster.lb_policy = 99;
        builder.cluster(cluster).assignment(resources::assignment("a", &[("z", 1, &[ports["one"]])]));
        service::add_routes(&mut builder, &[("a", 1)]);
        site.serving.publish(builder.build().unwrap());
        site.serving.nacked("the NACK is seen").await;
        let nack = site.serving.server.clients().remove(0).last_nack.unwrap();
        assert_eq!(nack.resource_type, ResourceType::Cluster);
        assert_eq!(nack.resources, ["a"]);
        assert!(!nack.message.is_empty());
        load.reaches("one").await;

        site.serving.publish(good("two"));
        load.reaches("two").await;
        site.serving.in_sync("the next state heals").await;
        load.lasts(100).await;
        let client = site.serving.server.clients().remove(0);
        assert_eq!(client.nacks(), 1, "what was refused is not sent again");
        load.finish().await.is_clean();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e2e_p2_weights_of_clusters_and_zones_split_the_calls() {
    when_served(async || {
        let (mut site, ports) = Site::start(&["one", "two", "three"]).await;
        let by_zone: &[(&str, u32, &[u16])] = &[("y", 1, &[ports["one"]]), ("z", 3, &[ports["two"]])];
        let clusters: &[service::Endpoints<'_>] = &[("a", by_zone), ("b", &[("z", 1, &[ports["three"]])])];
        site.serving.publish(service(clusters, &[("a", 80), ("b", 20)]));
        let mut load = Load::start(&mut site.peer, TARGET).await;
        for name in ["one", "two", "three"] {
            load.reaches(name).await;
        }
        load.lasts(600).await;
        let tally = load.finish().await;
        tally.is_clean();
        // 20 %, 60 % and 20 %: with 600 calls half as many or twice as many are far outside of chance.
        for (name, share) in [("one", 0.2), ("two", 0.6), ("three", 0.2)] {
            let ratio = tally.share(name) / share;
            assert!((0.5..2.0).contains(&ratio), "{name}: {tally:?}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e2e_s13_a_restarted_server_fails_no_call() {
    when_served(async || {
        let (mut site, ports) = Site::start(&["one", "two"]).await;
        let state = |name: &str| service(&[("a", &[("z", 1, &[ports[name]])])], &[("a", 1)]);
        site.serving.publish(state("one"));
        let mut load = Load::start(&mut site.peer, TARGET).await;
        load.reaches("one").await;
        site.serving = site.serving.restarted().await;
        eventually("the client comes back", async || !site.serving.server.clients().is_empty()).await;
        site.serving.publish(state("two"));
        load.reaches("two").await;
        load.finish().await.is_clean();
    })
    .await;
}
