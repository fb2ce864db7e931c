mod delivery;
mod feedback;
mod fuzz;
mod heartbeat;

use std::time::Duration;

use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use envoy_types::pb::google::rpc::Status;

use super::fake_client::decode;
use super::*;
use crate::fixtures::{assignment, cluster, listener, routes};
use crate::resource_type::ResourceType::{Cluster, ClusterLoadAssignment, Listener, RouteConfiguration};
use crate::snapshot::SnapshotBuilder;

pub(super) fn limits() -> StreamLimits {
    StreamLimits {
        ack_timeout: Duration::from_secs(30),
        removal_hold: Duration::from_secs(15),
        max_names: 10_000,
        full_heartbeats: false,
    }
}

/// Clusters with their timeouts, and a listener with a route to each of `routed`.
fn snapshot(clusters: &[(&str, u64)], routed: &[&str]) -> Snapshot {
    let mut builder = SnapshotBuilder::new();
    for (name, timeout) in clusters {
        builder.cluster(cluster(name, *timeout)).assignment(assignment(name, 80));
    }
    builder.listener(listener("front", 80, "routes"));
    builder.route_configuration(routes("routes", routed.iter().copied()));
    builder.build().unwrap()
}

/// A stream, and what a test says on it.
struct Peer {
    stream: Stream,
    newest: Option<Published>,
    now: Instant,
}

impl Peer {
    fn new(snapshot: Snapshot) -> Self {
        let now = Instant::now();
        let stream = Stream::new(Variant::Delta, None, "n", limits(), Arc::default(), now);
        Self { stream, newest: Some(Published::first(snapshot, now)), now }
    }

    /// A proxy that has everything.
    fn settled(snapshot: Snapshot, clusters: &[&str]) -> Self {
        let mut peer = Self::new(snapshot);
        for (t, names) in [
            (Cluster, &[][..]),
            (ClusterLoadAssignment, clusters),
            (Listener, &[]),
            (RouteConfiguration, &["routes"]),
        ] {
            peer.subscribe(t, names);
            if names.is_empty() && !t.empty_means_wildcard() {
                continue;
            }
            let response = peer.expect(t);
            peer.ack(&response);
        }
        peer.expect_nothing();
        assert!(peer.in_sync());
        peer
    }

    fn publish(&mut self, snapshot: Snapshot) {
        self.newest = Some(Published::first(snapshot, self.now));
    }

    fn request(&mut self, t: ResourceType) -> DeltaDiscoveryRequest {
        DeltaDiscoveryRequest { type_url: t.type_url().into(), ..Default::default() }
    }

    fn tell(&mut self, request: &DeltaDiscoveryRequest) -> Option<Feedback> {
        self.stream.delta_request(request, self.now).unwrap()
    }

    fn subscribe(&mut self, t: ResourceType, names: &[&str]) {
        let resource_names_subscribe = names.iter().map(|name| (*name).to_owned()).collect();
        let request = DeltaDiscoveryRequest { resource_names_subscribe, ..self.request(t) };
        self.tell(&request);
    }

    fn unsubscribe(&mut self, t: ResourceType, names: &[&str]) {
        let resource_names_unsubscribe = names.iter().map(|name| (*name).to_owned()).collect();
        let request = DeltaDiscoveryRequest { resource_names_unsubscribe, ..self.request(t) };
        self.tell(&request);
    }

    fn ack(&mut self, response: &DeltaDiscoveryResponse) {
        let request = DeltaDiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            ..Default::default()
        };
        assert!(matches!(self.tell(&request), Some(Feedback::Acked { .. })));
    }

    fn nack(&mut self, response: &DeltaDiscoveryResponse) {
        let request = DeltaDiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            error_detail: Some(Status { message: "bad".into(), ..Default::default() }),
            ..Default::default()
        };
        assert!(matches!(self.tell(&request), Some(Feedback::Nacked { .. })));
    }

    fn next(&mut self) -> Option<DeltaDiscoveryResponse> {
        self.stream.next_response(self.newest.as_ref(), self.now).map(|response| decode(&response))
    }

    fn expect(&mut self, t: ResourceType) -> DeltaDiscoveryResponse {
        let response = self.next().unwrap_or_else(|| panic!("no response, {t} expected"));
        assert_eq!(response.type_url, t.type_url());
        response
    }

    fn expect_nothing(&mut self) {
        assert_eq!(self.next(), None);
    }

    fn in_sync(&self) -> bool {
        self.stream.in_sync(&self.newest.as_ref().unwrap().snapshot)
    }
}

fn names(response: &DeltaDiscoveryResponse) -> Vec<&str> {
    response.resources.iter().map(|resource| resource.name.as_str()).collect()
}

#[test]
fn d1_wildcard_lasts_until_the_star_is_unsubscribed() {
    let mut peer = Peer::new(snapshot(&[("a", 1), ("b", 1)], &[]));
    peer.subscribe(Cluster, &[]);
    let all = peer.expect(Cluster);
    assert_eq!(names(&all), ["a", "b"]);
    peer.ack(&all);
    peer.subscribe(Cluster, &["a"]);
    let again = peer.expect(Cluster);
    assert_eq!(names(&again), ["a"]);
    peer.ack(&again);
    peer.unsubscribe(Cluster, &["*"]);
    peer.publish(snapshot(&[("a", 2), ("b", 2)], &[]));
    let named = peer.expect(Cluster);
    assert_eq!(names(&named), ["a"]);
    peer.ack(&named);
    peer.unsubscribe(Cluster, &["a"]);
    peer.subscribe(Cluster, &[]);
    peer.publish(snapshot(&[("a", 3)], &[]));
    peer.expect_nothing();
}

#[test]
fn s12_no_names_of_other_types_mean_nothing() {
    let mut peer = Peer::new(snapshot(&[("a", 1)], &[]));
    peer.subscribe(ClusterLoadAssignment, &[]);
    peer.subscribe(RouteConfiguration, &[]);
    peer.expect_nothing();
}

#[test]
fn d3_subscribing_again_sends_again() {
    let mut peer = Peer::settled(snapshot(&[("a", 1)], &[]), &["a"]);
    peer.subscribe(ClusterLoadAssignment, &["a", "a"]);
    assert_eq!(names(&peer.expect(ClusterLoadAssignment)), ["a"]);
}

#[test]
fn d4_unsubscribing_under_a_wildcard_is_answered() {
    let mut peer = Peer::settled(snapshot(&[("a", 1)], &[]), &["a"]);
    peer.subscribe(Cluster, &["a", "gone"]);
    let response = peer.expect(Cluster);
    assert_eq!((names(&response), &response.removed_resources[..]), (vec!["a"], &["gone".to_owned()][..]));
    peer.ack(&response);
    let warm = peer.expect(ClusterLoadAssignment);
    peer.ack(&warm);
    peer.unsubscribe(Cluster, &["a", "gone", "never"]);
    let response = peer.expect(Cluster);
    assert_eq!((names(&response), &response.removed_resources[..]), (vec!["a"], &["gone".to_owned()][..]));
}

#[test]
fn d4_unsubscribed_names_get_no_updates() {
    let mut peer = Peer::settled(snapshot(&[("a", 1)], &[]), &["a"]);
    peer.unsubscribe(ClusterLoadAssignment, &["a"]);
    peer.expect_nothing();
    peer.subscribe(ClusterLoadAssignment, &["a"]);
    assert_eq!(names(&peer.expect(ClusterLoadAssignment)), ["a"]);
}

#[test]
fn d5_a_name_that_is_not_there_is_remembered() {
    let mut peer = Peer::settled(snapshot(&[("a", 1)], &[]), &["a"]);
    peer.subscribe(ClusterLoadAssignment, &["b"]);
    let response = peer.expect(ClusterLoadAssignment);
    assert_eq!(response.removed_resources, ["b"]);
    peer.ack(&response);
    peer.expect_nothing();
    peer.publish(snapshot(&[("a", 1), ("b", 1)], &[]));
    assert_eq!(names(&peer.expect(Cluster)), ["b"]);
    assert_eq!(names(&peer.expect(ClusterLoadAssignment)), ["b"]);
}

#[test]
fn d6_a_returning_client_gets_only_what_changed() {
    let old = snapshot(&[("a", 1), ("b", 1), ("gone", 1)], &[]);
    let mut peer = Peer::new(snapshot(&[("a", 1), ("b", 2), ("new", 1)], &[]));
    let versions = old.names(Cluster).map(|n| (n.to_owned(), old.version(Cluster, n).unwrap().to_string()));
    let request =
        DeltaDiscoveryRequest { initial_resource_versions: versions.collect(), ..peer.request(Cluster) };
    peer.tell(&request);
    let response = peer.expect(Cluster);
    assert_eq!(names(&response), ["b", "new"]);
    assert!(response.removed_resources.is_empty(), "its listeners and routes may still name the cluster");
    peer.ack(&response);
    peer.subscribe(Listener, &[]);
    let listeners = peer.expect(Listener);
    peer.ack(&listeners);
    peer.subscribe(RouteConfiguration, &["routes"]);
    let routes = peer.expect(RouteConfiguration);
    peer.ack(&routes);
    assert_eq!(peer.expect(Cluster).removed_resources, ["gone"]);
}

#[test]
fn d7_a_wildcard_without_news_is_answered_once() {
    let same = snapshot(&[("a", 1)], &[]);
    let mut peer = Peer::new(same.clone());
    let versions = [("a".to_owned(), same.version(Cluster, "a").unwrap().to_string())];
    let request =
        DeltaDiscoveryRequest { initial_resource_versions: versions.into(), ..peer.request(Cluster) };
    peer.tell(&request);
    let response = peer.expect(Cluster);
    assert!(response.resources.is_empty() && response.removed_resources.is_empty());
    peer.ack(&response);
    peer.expect_nothing();
}

#[test]
fn d8_a_refused_version_is_not_sent_again_until_it_changes() {
    let mut peer = Peer::settled(snapshot(&[("a", 1)], &[]), &["a"]);
    peer.publish(snapshot(&[("a", 2)], &[]));
    let response = peer.expect(Cluster);
    assert_eq!(names(&peer.expect(ClusterLoadAssignment)), ["a"]);
    peer.nack(&response);
    peer.expect_nothing();
    assert!(peer.stream.refuses(&peer.newest.as_ref().unwrap().snapshot));
    peer.publish(snapshot(&[("a", 1)], &[]));
    assert_eq!(names(&peer.expect(Cluster)), ["a"], "what it had before is sent again");
}

#[test]
fn d8_what_was_refused_is_found_among_others() {
    let all = ["a", "b", "c", "d", "e"];
    let mut peer = Peer::new(snapshot(&all.map(|name| (name, 1)), &[]));
    peer.subscribe(Cluster, &[]);
    let mut responses = 0;
    while let Some(response) = peer.next() {
        responses += 1;
        assert!(responses < 10, "{:?}", names(&response));
        if names(&response).contains(&"d") { peer.nack(&response) } else { peer.ack(&response) }
    }
    let refused: Vec<_> = peer.stream.refused_alone(Cluster).map(|(name, _)| name.to_string()).collect();
    assert_eq!(refused, ["d"]);
}

#[test]
fn d9_an_old_nonce_counts_for_names_but_not_as_an_ack() {
    let mut peer = Peer::settled(snapshot(&[("a", 1), ("b", 1)], &[]), &["a"]);
    peer.publish(snapshot(&[("a", 2), ("b", 1)], &[]));
    let response = peer.expect(Cluster);
    let renewed = peer.expect(ClusterLoadAssignment);
    let request = DeltaDiscoveryRequest {
        response_nonce: "n1".into(),
        resource_names_subscribe: vec!["b".into()],
        ..peer.request(ClusterLoadAssignment)
    };
    assert_eq!(peer.tell(&request), None);
    peer.expect_nothing();
    peer.ack(&renewed);
    assert_eq!(names(&peer.expect(ClusterLoadAssignment)), ["b"]);
    peer.ack(&response);
}

#[test]
fn d11_the_same_state_again_sends_nothing() {
    let mut peer = Peer::settled(snapshot(&[("a", 1)], &["a"]), &["a"]);
    peer.publish(snapshot(&[("a", 1)], &["a"]));
    peer.expect_nothing();
    assert!(peer.in_sync());
}

#[test]
fn f2_changes_merge_while_an_ack_is_due() {
    let mut peer = Peer::settled(snapshot(&[("a", 1)], &[]), &[]);
    peer.publish(snapshot(&[("a", 2)], &[]));
    let first = peer.expect(Cluster);
    for timeout in 3..60 {
        peer.publish(snapshot(&[("a", timeout)], &[]));
        peer.expect_nothing();
    }
    peer.ack(&first);
    let newest = peer.newest.as_ref().unwrap().snapshot.version(Cluster, "a").unwrap();
    assert_eq!(peer.expect(Cluster).resources[0].version, newest.to_string());
}

#[test]
fn f2_a_client_that_never_answers_is_served_after_the_limit() {
    let mut peer = Peer::new(snapshot(&[("a", 1)], &[]));
    peer.subscribe(Cluster, &[]);
    peer.expect(Cluster);
    peer.publish(snapshot(&[("a", 2)], &[]));
    peer.expect_nothing();
    assert_eq!(peer.stream.deadline(peer.newest.as_ref(), peer.now), Some(peer.now + limits().ack_timeout));
    peer.now += limits().ack_timeout;
    assert_eq!(names(&peer.expect(Cluster)), ["a"]);
}

#[test]
fn f11_nothing_is_sent_before_the_first_state() {
    let mut peer = Peer::new(snapshot(&[("a", 1)], &[]));
    let first = peer.newest.take();
    peer.subscribe(Cluster, &[]);
    peer.subscribe(ClusterLoadAssignment, &["b"]);
    peer.expect_nothing();
    peer.newest = first;
    assert_eq!(names(&peer.expect(Cluster)), ["a"]);
}

#[test]
fn o1_a_route_waits_for_its_cluster_and_endpoints() {
    let mut peer = Peer::settled(snapshot(&[("a", 1)], &["a"]), &["a"]);
    peer.publish(snapshot(&[("a", 1), ("b", 1)], &["a", "b"]));
    let clusters = peer.expect(Cluster);
    assert_eq!(names(&clusters), ["b"]);
    peer.expect_nothing();
    peer.subscribe(ClusterLoadAssignment, &["b"]);
    assert_eq!(names(&peer.expect(ClusterLoadAssignment)), ["b"]);
    assert_eq!(names(&peer.expect(RouteConfiguration)), ["routes"]);
    peer.ack(&clusters);
    peer.expect_nothing();
}

#[test]
fn o2_o3_a_cluster_goes_after_the_route_to_its_successor_is_acked() {
    let mut peer = Peer::settled(snapshot(&[("a", 1)], &["a"]), &["a"]);
    peer.publish(snapshot(&[("b", 1)], &["b"]));
    let clusters = peer.expect(Cluster);
    assert_eq!((names(&clusters), clusters.removed_resources.len()), (vec!["b"], 0));
    peer.subscribe(ClusterLoadAssignment, &["b"]);
    let endpoints = peer.expect(ClusterLoadAssignment);
    assert!(endpoints.removed_resources.is_empty());
    peer.ack(&endpoints);
    peer.ack(&clusters);
    let routes = peer.expect(RouteConfiguration);
    peer.expect_nothing();
    peer.ack(&routes);
    let removal = peer.expect(Cluster);
    assert_eq!((names(&removal).len(), &removal.removed_resources[..]), (0, &["a".to_owned()][..]));
    peer.expect_nothing();
    peer.ack(&removal);
    assert_eq!(peer.expect(ClusterLoadAssignment).removed_resources, ["a"]);
}

#[test]
fn o3_a_removal_waits_no_longer_than_the_limit() {
    let mut peer = Peer::settled(snapshot(&[("a", 1), ("b", 1)], &["a"]), &["a", "b"]);
    peer.publish(snapshot(&[("b", 1)], &["b"]));
    peer.expect(RouteConfiguration);
    peer.expect_nothing();
    assert_eq!(peer.stream.deadline(peer.newest.as_ref(), peer.now), Some(peer.now + limits().removal_hold));
    peer.now += limits().removal_hold;
    assert_eq!(peer.expect(Cluster).removed_resources, ["a"]);
}

#[test]
fn o3_a_removal_is_held_after_a_nack() {
    let mut peer = Peer::settled(snapshot(&[("a", 1), ("b", 1)], &["a"]), &["a", "b"]);
    peer.publish(snapshot(&[("b", 1)], &["b"]));
    let routes = peer.expect(RouteConfiguration);
    peer.nack(&routes);
    peer.expect_nothing();
    peer.now += 2 * limits().removal_hold;
    peer.expect_nothing();
    peer.publish(snapshot(&[("b", 1)], &[]));
    let routes = peer.expect(RouteConfiguration);
    peer.expect_nothing();
    peer.ack(&routes);
    assert_eq!(peer.expect(Cluster).removed_resources, ["a"]);
}

#[test]
fn p5_a_client_by_name_is_sent_the_route_at_once() {
    let mut peer = Peer::new(snapshot(&[("a", 1)], &["a"]));
    peer.subscribe(Listener, &["front"]);
    peer.expect(Listener);
    peer.subscribe(RouteConfiguration, &["routes"]);
    peer.expect(RouteConfiguration);
    peer.subscribe(Cluster, &["a"]);
    peer.expect(Cluster);
}

#[test]
fn t2_unknown_types_are_answered_and_disturb_nothing() {
    let mut peer = Peer::new(snapshot(&[("a", 1)], &[]));
    let request = DeltaDiscoveryRequest {
        type_url: "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig".into(),
        resource_names_subscribe: vec!["layer".into()],
        ..Default::default()
    };
    peer.tell(&request);
    peer.subscribe(Cluster, &[]);
    let answer = peer.next().unwrap();
    assert_eq!((answer.type_url, answer.removed_resources), (request.type_url.clone(), vec!["layer".into()]));
    assert_eq!(names(&peer.expect(Cluster)), ["a"]);
    let ack = DeltaDiscoveryRequest {
        type_url: request.type_url,
        response_nonce: answer.nonce,
        ..Default::default()
    };
    peer.tell(&ack);
    peer.expect_nothing();
}

#[test]
fn t4_nonces_differ() {
    let mut peer = Peer::new(snapshot(&[("a", 1)], &[]));
    let mut nonces = std::collections::BTreeSet::new();
    for timeout in 2..10 {
        peer.subscribe(Cluster, &[]);
        let response = peer.expect(Cluster);
        peer.ack(&response);
        assert!(nonces.insert(response.nonce));
        peer.publish(snapshot(&[("a", timeout)], &[]));
    }
}

#[test]
fn w1_a_changed_cluster_brings_its_endpoints_and_a_listener_its_routes() {
    let mut peer = Peer::settled(snapshot(&[("a", 1), ("b", 1)], &["a"]), &["a", "b"]);
    peer.publish(snapshot(&[("a", 2), ("b", 1)], &["a"]));
    let clusters = peer.expect(Cluster);
    let endpoints = peer.expect(ClusterLoadAssignment);
    assert_eq!(names(&endpoints), ["a"]);
    peer.expect_nothing();
    peer.ack(&endpoints);
    peer.ack(&clusters);
    peer.expect_nothing();

    let mut builder = SnapshotBuilder::new();
    for (name, timeout) in [("a", 2), ("b", 1)] {
        builder.cluster(cluster(name, timeout)).assignment(assignment(name, 80));
    }
    builder.listener(listener("front", 81, "routes")).route_configuration(routes("routes", ["a"]));
    peer.publish(builder.build().unwrap());
    peer.expect(Listener);
    assert_eq!(names(&peer.expect(RouteConfiguration)), ["routes"]);
    peer.expect_nothing();
}

#[test]
fn names_are_limited() {
    let mut peer = Peer::new(snapshot(&[], &[]));
    let names = (0..10_001).map(|i| i.to_string()).collect();
    let request = DeltaDiscoveryRequest { resource_names_subscribe: names, ..peer.request(Cluster) };
    let refused = peer.stream.delta_request(&request, peer.now);
    assert_eq!(refused, Err(RequestError::TooManyNames { limit: 10_000 }));
    let refused = peer.stream.delta_request(&DeltaDiscoveryRequest::default(), peer.now);
    assert_eq!(refused, Err(RequestError::MissingTypeUrl));
}
