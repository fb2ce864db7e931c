//! Clients that ask for everything by name, as proxyless gRPC clients do in the state-of-the-world variant: P1 to P5.

use clairvoy_xds::ResourceType::{Cluster, ClusterLoadAssignment, Listener, RouteConfiguration};
use clairvoy_xds::{Fault, Snapshot, SnapshotBuilder, XdsServer};
use envoy_types::pb::envoy::config::cluster::v3::Cluster as ClusterConfig;
use envoy_types::pb::envoy::config::cluster::v3::cluster::CommonLbConfig;
use envoy_types::pb::envoy::config::cluster::v3::cluster::common_lb_config::{
    LocalityConfigSpecifier, LocalityWeightedLbConfig,
};
use envoy_types::pb::envoy::config::core::v3::Locality;
use envoy_types::pb::envoy::config::endpoint::v3::{
    ClusterLoadAssignment as AssignmentConfig, LocalityLbEndpoints,
};
use envoy_types::pb::envoy::config::listener::v3::{
    ApiListener, Listener as ListenerConfig, filter::ConfigType,
};
use envoy_types::pb::envoy::config::route::v3::WeightedCluster;
use envoy_types::pb::envoy::config::route::v3::route::Action;
use envoy_types::pb::envoy::config::route::v3::route_action::ClusterSpecifier;
use envoy_types::pb::envoy::config::route::v3::weighted_cluster::ClusterWeight;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use envoy_types::pb::google::protobuf::UInt32Value;
use prost::{Message, Name};

use crate::fixtures;
use crate::harness::{Sotw, in_sync, serve, server, snapshot, sotw_names as names, sotw_request as request};

type Client = crate::harness::Client<Sotw>;

/// The listener `service` without an address, for clients that use `xds:///service`.
fn api_listener(routes: &str) -> ListenerConfig {
    let proxy = fixtures::listener("service", 1, routes);
    let Some(ConfigType::TypedConfig(manager)) = proxy.filter_chains[0].filters[0].config_type.clone() else {
        panic!("the fixture has a connection manager")
    };
    ListenerConfig {
        name: "service".into(),
        api_listener: Some(ApiListener { api_listener: Some(manager) }),
        ..Default::default()
    }
}

/// Clusters with their ports, and a route to one of them.
fn state(clusters: &[(&str, u16)], routed: &str) -> Snapshot {
    let mut builder = SnapshotBuilder::new();
    for (name, port) in clusters {
        builder.cluster(fixtures::cluster(name, 1)).assignment(fixtures::assignment(name, *port));
    }
    builder.listener(api_listener("routes")).route_configuration(fixtures::routes("routes", [routed]));
    builder.build().unwrap()
}

/// A client that has followed the names from the listener to the endpoints.
async fn following(server: &XdsServer, cluster: &str) -> Client {
    let first = request(Listener, &["service"]);
    let mut client = Client::open(serve(server).await, first).await.unwrap();
    client.expect_acked(Listener).await;
    for (t, name) in [(RouteConfiguration, "routes"), (Cluster, cluster), (ClusterLoadAssignment, cluster)] {
        client.subscribe(t, &[name]).await;
        assert_eq!(names(&client.expect_acked(t).await), [name]);
    }
    in_sync(server).await;
    client
}

#[tokio::test]
async fn p1_a_client_follows_the_names_to_the_endpoints() {
    let server = server();
    server.publish("all", state(&[("a", 1), ("other", 1)], "a"));
    let mut client = Client::open(serve(&server).await, request(Listener, &["service"])).await.unwrap();
    let response = client.expect_acked(Listener).await;
    let listener = ListenerConfig::decode(&*response.resources[0].value).unwrap();
    let manager = listener.api_listener.unwrap().api_listener.unwrap();
    assert_eq!(manager.type_url, HttpConnectionManager::type_url());
    for (t, name) in [(RouteConfiguration, "routes"), (Cluster, "a"), (ClusterLoadAssignment, "a")] {
        client.subscribe(t, &[name]).await;
        assert_eq!(names(&client.expect_acked(t).await), [name]);
    }
    client.expect_nothing().await;
    // What it did not ask for does not concern it.
    server.publish("all", state(&[("a", 1), ("other", 2), ("more", 1)], "a"));
    client.expect_nothing().await;
    in_sync(&server).await;
}

/// The assignment of cluster `a` with these localities: zone, weight, priority and port of an endpoint of weight 1.
fn assignment_of(localities: &[(&str, Option<u32>, u32, u16)]) -> AssignmentConfig {
    let locality = |(zone, weight, priority, port): &(&str, Option<u32>, u32, u16)| LocalityLbEndpoints {
        locality: Some(Locality { zone: (*zone).into(), ..Default::default() }),
        load_balancing_weight: weight.map(|value| UInt32Value { value }),
        priority: *priority,
        ..fixtures::assignment("a", *port).endpoints[0].clone()
    };
    let mut assignment = fixtures::assignment("a", 1);
    assignment.endpoints = localities.iter().map(locality).collect();
    assignment
}

/// The faults of the cluster with such an assignment.
fn faults_of(cluster: ClusterConfig, localities: &[(&str, Option<u32>, u32, u16)]) -> Vec<Fault> {
    let mut builder = SnapshotBuilder::new();
    builder.cluster(cluster).assignment(assignment_of(localities));
    builder.build().err().map(|invalid| invalid.faults).unwrap_or_default()
}

#[test]
fn p2_weights_have_sums_that_fit_in_32_bits() {
    let mut builder = SnapshotBuilder::new();
    builder.cluster(fixtures::cluster("a", 1));
    let mut assignment = fixtures::weighted_assignment("a", 1, u32::MAX);
    let other = fixtures::weighted_assignment("a", 2, 1).endpoints[0].lb_endpoints[0].clone();
    assignment.endpoints[0].lb_endpoints.push(other);
    builder.assignment(assignment);
    let faults = builder.build().unwrap_err().faults;
    assert!(matches!(&faults[..], [Fault::WeightSum { sum: 4_294_967_296, .. }]), "{faults:?}");
    let localities = |priority| [("x", Some(u32::MAX), 0, 1), ("y", Some(1), priority, 2)];
    let faults = faults_of(fixtures::cluster("a", 1), &localities(0));
    assert!(matches!(&faults[..], [Fault::WeightSum { sum: 4_294_967_296, .. }]), "{faults:?}");
    assert!(faults_of(fixtures::cluster("a", 1), &localities(1)).is_empty(), "of one priority");
}

#[test]
fn p2_shares_of_a_route_fit_in_32_bits() {
    let mut builder = SnapshotBuilder::new();
    let share = |name: &str, weight| ClusterWeight {
        name: name.into(),
        weight: Some(UInt32Value { value: weight }),
        ..Default::default()
    };
    for name in ["a", "b"] {
        builder.cluster(fixtures::cluster(name, 1)).assignment(fixtures::assignment(name, 1));
    }
    let mut routes = fixtures::routes("routes", ["a"]);
    let clusters = vec![share("a", u32::MAX), share("b", 1)];
    let Some(Action::Route(action)) = &mut routes.virtual_hosts[0].routes[0].action else {
        panic!("the fixture routes")
    };
    action.cluster_specifier =
        Some(ClusterSpecifier::WeightedClusters(WeightedCluster { clusters, ..Default::default() }));
    builder.listener(api_listener("routes")).route_configuration(routes);
    let faults = builder.build().unwrap_err().faults;
    assert!(matches!(&faults[..], [Fault::WeightSum { .. }]), "{faults:?}");
}

#[test]
fn p2_priorities_have_no_gaps() {
    let localities = |priority| [("x", Some(1), 0, 1), ("y", Some(1), priority, 2)];
    let faults = faults_of(fixtures::cluster("a", 1), &localities(2));
    assert!(matches!(&faults[..], [Fault::PriorityGap { missing: 1, used: 2, .. }]), "{faults:?}");
    assert!(faults_of(fixtures::cluster("a", 1), &localities(1)).is_empty());
}

#[test]
fn p2_a_locality_without_weight_is_not_passed_over_in_silence() {
    let specifier = LocalityConfigSpecifier::LocalityWeightedLbConfig(LocalityWeightedLbConfig {});
    let weighted = ClusterConfig {
        common_lb_config: Some(CommonLbConfig {
            locality_config_specifier: Some(specifier),
            ..Default::default()
        }),
        ..fixtures::cluster("a", 1)
    };
    let faults = faults_of(weighted.clone(), &[("x", Some(1), 0, 1), ("y", None, 0, 2)]);
    assert!(matches!(&faults[..], [Fault::MissingWeight { .. }]), "{faults:?}");
    assert!(faults_of(weighted.clone(), &[("x", Some(1), 0, 1), ("y", Some(1), 0, 2)]).is_empty());
    let mut builder = SnapshotBuilder::new();
    let spare = assignment_of(&[("x", Some(1), 0, 1), ("y", None, 0, 2)]);
    builder.cluster(weighted).assignment(spare).allow_spare_localities();
    assert!(builder.build().is_ok(), "it is meant to be a spare");
}

#[tokio::test]
async fn p3_endpoints_are_replaced() {
    let server = server();
    server.publish("all", state(&[("a", 1)], "a"));
    let mut client = following(&server, "a").await;
    server.publish("all", state(&[("a", 2)], "a"));
    assert_eq!(names(&client.expect_acked(ClusterLoadAssignment).await), ["a"]);
    client.expect_nothing().await;
}

#[tokio::test]
async fn p3_a_route_moves_and_the_old_cluster_goes_after_its_ack() {
    let server = server();
    server.publish("all", state(&[("a", 1)], "a"));
    let mut client = following(&server, "a").await;
    server.publish("all", state(&[("b", 1)], "b"));
    let routes = client.expect(RouteConfiguration).await;
    client.expect_nothing().await;
    // It uses the old cluster until it has the new one.
    client.subscribe(Cluster, &["a", "b"]).await;
    let clusters = client.expect_acked(Cluster).await;
    assert_eq!(names(&clusters), ["a", "b"]);
    client.subscribe(ClusterLoadAssignment, &["a", "b"]).await;
    assert_eq!(names(&client.expect_acked(ClusterLoadAssignment).await), ["b"]);
    client.expect_nothing().await;
    client.ack(&routes).await;
    assert_eq!(names(&client.expect_acked(Cluster).await), ["b"]);
    client.subscribe(Cluster, &["b"]).await;
    client.subscribe(ClusterLoadAssignment, &["b"]).await;
    client.expect_nothing().await;
    in_sync(&server).await;
}

#[tokio::test]
async fn p4_names_that_are_not_there_are_answered() {
    let server = server();
    server.publish("all", state(&[("a", 1)], "a"));
    let address = serve(&server).await;
    for t in [Listener, Cluster] {
        let mut client = Client::open(address, request(t, &["absent"])).await.unwrap();
        assert!(client.expect_acked(t).await.resources.is_empty());
        client.expect_nothing().await;
    }
    let mut client = following(&server, "a").await;
    client.subscribe(Cluster, &["a", "absent"]).await;
    assert_eq!(names(&client.expect_acked(Cluster).await), ["a"]);
}

#[tokio::test]
async fn p5_a_client_by_name_is_sent_the_route_at_once() {
    let server = server();
    server.publish("all", snapshot(&[("a", 1, 1), ("b", 1, 1)], &["a"]));
    let first = request(Listener, &["front"]);
    let mut client = Client::open(serve(&server).await, first).await.unwrap();
    client.expect_acked(Listener).await;
    client.subscribe(RouteConfiguration, &["routes"]).await;
    client.expect_acked(RouteConfiguration).await;
    client.subscribe(Cluster, &["a"]).await;
    client.expect_acked(Cluster).await;
    // The client does not ask for the new cluster before it has the route to it.
    server.publish("all", snapshot(&[("a", 1, 1), ("b", 1, 1)], &["a", "b"]));
    client.expect_acked(RouteConfiguration).await;
    client.subscribe(Cluster, &["a", "b"]).await;
    assert_eq!(names(&client.expect_acked(Cluster).await), ["a", "b"]);
}
