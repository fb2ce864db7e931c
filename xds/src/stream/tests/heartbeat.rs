//! Resources that a client forgets by itself: what keeps them there.

use envoy_types::pb::envoy::service::discovery::v3::{
    DiscoveryRequest, DiscoveryResponse, Resource as WireResource,
};
use envoy_types::pb::envoy::service::runtime::v3::Runtime as Layer;
use envoy_types::pb::google::protobuf::value::Kind;
use envoy_types::pb::google::protobuf::{Struct, Value};
use prost::Name;

use super::*;
use crate::resource_type::ResourceType::Runtime;

const TTL: Duration = Duration::from_secs(6);
const BEAT: Duration = Duration::from_secs(1);

fn layer(weight: u32) -> Layer {
    let value = Value { kind: Some(Kind::NumberValue(weight.into())) };
    Layer { name: "layer".into(), layer: Some(Struct { fields: [("weight".into(), value)].into() }) }
}

fn with_layer(weight: u32) -> Snapshot {
    let mut builder = SnapshotBuilder::new();
    builder.runtime_with_ttl(layer(weight), TTL);
    builder.build().unwrap()
}

impl Peer {
    /// The publisher says once more that all is as it should be.
    fn confirm(&mut self) {
        self.newest.as_mut().unwrap().confirmed_at = self.now;
    }

    /// A client with the layer.
    fn with_layer() -> Self {
        let mut peer = Self::new(with_layer(7));
        peer.subscribe(Runtime, &["layer"]);
        let response = peer.expect(Runtime);
        assert!(response.resources[0].resource.is_some());
        assert_eq!(response.resources[0].ttl.as_ref().unwrap().seconds, 6);
        peer.ack(&response);
        peer.expect_nothing();
        peer
    }

    /// The next heartbeat, a time after the last response; true if it has the content.
    fn beat(&mut self, after: Duration) -> (DeltaDiscoveryResponse, bool) {
        self.now += after;
        self.confirm();
        let response = self.expect(Runtime);
        let [beat] = &response.resources[..] else { panic!("{response:?}") };
        assert_eq!((&*beat.name, beat.ttl.as_ref().unwrap().seconds), ("layer", 6));
        let with_content = beat.resource.is_some();
        (response, with_content)
    }
}

#[test]
fn f10_a_heartbeat_carries_name_version_and_ttl_alone() {
    let mut peer = Peer::with_layer();
    assert_eq!(peer.stream.deadline(peer.newest.as_ref(), peer.now), Some(peer.now + BEAT));
    let version = peer.newest.as_ref().unwrap().snapshot.version(Runtime, "layer").unwrap();
    for _ in 0..10 {
        peer.now += BEAT / 2;
        peer.expect_nothing();
        let (response, with_content) = peer.beat(BEAT / 2);
        assert_eq!((&response.resources[0].version, with_content), (&version.to_string(), false));
        peer.ack(&response);
        assert!(peer.in_sync());
    }
}

#[test]
fn f10_rule_1_after_half_the_ttl_a_heartbeat_has_the_content() {
    let mut peer = Peer::with_layer();
    let (response, with_content) = peer.beat(TTL / 2);
    assert!(!with_content);
    peer.ack(&response);
    let (response, with_content) = peer.beat(TTL / 2 + Duration::from_millis(1));
    assert!(with_content, "the client may have forgotten it");
    peer.ack(&response);
    assert!(!peer.beat(BEAT).1);
}

#[test]
fn f10_rule_1_heartbeats_always_have_the_content_where_they_shall() {
    let mut peer = Peer::with_layer();
    peer.stream.limits.full_heartbeats = true;
    for after in [BEAT, BEAT, TTL] {
        let (response, with_content) = peer.beat(after);
        assert!(with_content);
        peer.ack(&response);
        assert!(peer.in_sync());
    }
}

#[test]
fn f10_rule_1_after_a_nack_of_a_heartbeat_the_content_is_sent() {
    let mut peer = Peer::with_layer();
    let (response, with_content) = peer.beat(BEAT);
    assert!(!with_content);
    peer.nack(&response);
    let (response, with_content) = peer.beat(Duration::ZERO);
    assert!(with_content);
    peer.ack(&response);
    assert!(!peer.beat(BEAT).1);
}

#[test]
fn f10_rule_1_content_that_is_refused_makes_no_loop() {
    let mut peer = Peer::with_layer();
    let (response, with_content) = peer.beat(TTL);
    assert!(with_content);
    peer.nack(&response);
    for _ in 0..10 {
        peer.now += BEAT;
        peer.confirm();
        peer.expect_nothing();
    }
    assert!(peer.stream.refuses(&peer.newest.as_ref().unwrap().snapshot));
    peer.publish(with_layer(8));
    let response = peer.expect(Runtime);
    assert!(response.resources[0].resource.is_some());
    peer.ack(&response);
    assert!(!peer.beat(BEAT).1);
}

#[test]
fn f10_rule_2_a_heartbeat_is_alone_in_its_response() {
    let mut builder = SnapshotBuilder::new();
    builder.runtime_with_ttl(layer(7), TTL).runtime(Layer { name: "other".into(), ..layer(1) });
    let mut peer = Peer::new(builder.build().unwrap());
    peer.subscribe(Runtime, &["layer", "other"]);
    let response = peer.expect(Runtime);
    peer.ack(&response);

    peer.now += BEAT;
    let mut builder = SnapshotBuilder::new();
    builder.runtime_with_ttl(layer(7), TTL).runtime(Layer { name: "other".into(), ..layer(2) });
    peer.publish(builder.build().unwrap());
    let changed = peer.expect(Runtime);
    assert_eq!(names(&changed), ["other"]);
    peer.ack(&changed);
    let (beat, _) = peer.beat(Duration::ZERO);
    assert_eq!(names(&beat), ["layer"]);
}

#[test]
fn f10_rule_3_a_server_that_takes_over_begins_at_once() {
    let snapshot = with_layer(7);
    let version = snapshot.version(Runtime, "layer").unwrap().to_string();
    let mut peer = Peer::new(snapshot);
    let request = DeltaDiscoveryRequest {
        resource_names_subscribe: vec!["layer".into()],
        initial_resource_versions: [("layer".to_owned(), version)].into(),
        ..peer.request(Runtime)
    };
    peer.tell(&request);
    let (response, _) = peer.beat(Duration::ZERO);
    peer.ack(&response);
    assert!(!peer.beat(BEAT).1);
}

#[test]
fn f10_rule_3_what_was_forgotten_meanwhile_is_sent_in_full() {
    let mut peer = Peer::new(with_layer(7));
    let request = DeltaDiscoveryRequest {
        resource_names_subscribe: vec!["layer".into()],
        initial_resource_versions: [("other".to_owned(), "0".repeat(32))].into(),
        ..peer.request(Runtime)
    };
    peer.tell(&request);
    assert!(peer.expect(Runtime).resources[0].resource.is_some());
}

#[test]
fn f10_rule_4_a_removal_takes_effect_at_once_and_so_does_the_return() {
    let mut peer = Peer::with_layer();
    peer.publish(SnapshotBuilder::new().build().unwrap());
    let response = peer.expect(Runtime);
    assert_eq!(response.removed_resources, ["layer"]);
    peer.ack(&response);
    peer.now += BEAT;
    peer.expect_nothing();
    peer.publish(with_layer(7));
    let response = peer.expect(Runtime);
    assert!(response.resources[0].resource.is_some());
}

#[test]
fn f10_rule_4_heartbeats_end_when_the_publisher_falls_silent() {
    let mut peer = Peer::with_layer();
    let mut beats = 0;
    while peer.now < peer.newest.as_ref().unwrap().at + 3 * TTL {
        peer.now += BEAT;
        if let Some(response) = peer.next() {
            peer.ack(&response);
            beats += 1;
        }
    }
    assert_eq!(beats, 2, "none when the confirmation is as old as half the TTL");
    assert_eq!(peer.stream.deadline(peer.newest.as_ref(), peer.now), None);
    assert!(peer.beat(Duration::ZERO).1, "the client has forgotten it");
}

#[test]
fn f10_rule_4_nobody_is_told_of_what_the_publisher_no_longer_stands_by() {
    let mut peer = Peer::new(with_layer(7));
    peer.now += TTL;
    peer.subscribe(Runtime, &["layer"]);
    peer.expect_nothing();
    peer.confirm();
    assert!(peer.expect(Runtime).resources[0].resource.is_some());
}

#[test]
fn f10_another_ttl_is_told() {
    let mut peer = Peer::with_layer();
    let mut builder = SnapshotBuilder::new();
    builder.runtime_with_ttl(layer(7), 2 * TTL);
    peer.publish(builder.build().unwrap());
    let response = peer.expect(Runtime);
    assert_eq!(response.resources[0].ttl.as_ref().unwrap().seconds, 12);
    peer.ack(&response);
    let mut builder = SnapshotBuilder::new();
    builder.runtime(layer(7));
    peer.publish(builder.build().unwrap());
    let response = peer.expect(Runtime);
    assert!(response.resources[0].ttl.is_none() && response.resources[0].resource.is_some());
}

#[test]
fn f10_no_heartbeat_while_an_ack_is_due() {
    let mut peer = Peer::with_layer();
    let (response, _) = peer.beat(BEAT);
    peer.now += 2 * BEAT;
    peer.confirm();
    peer.expect_nothing();
    peer.ack(&response);
    assert!(!peer.beat(Duration::ZERO).1);
}

#[test]
fn f10_sotw_heartbeats_are_wrapped() {
    let now = Instant::now();
    let mut stream = Stream::new(Variant::Sotw, None, "n", limits(), Arc::default(), now);
    let mut newest = Published::first(with_layer(7), now);
    let mut request = DiscoveryRequest {
        type_url: Runtime.type_url().into(),
        resource_names: vec!["layer".into()],
        ..Default::default()
    };
    for (at, with_content) in [(0, true), (1, false), (2, false), (6, true), (7, false)] {
        let now = now + Duration::from_secs(at);
        newest.confirmed_at = now;
        stream.sotw_request(&request, now).unwrap();
        let response: DiscoveryResponse = decode(&stream.next_response(Some(&newest), now).unwrap());
        let [any] = &response.resources[..] else { panic!("{response:?}") };
        assert_eq!(any.type_url, WireResource::type_url());
        let resource: WireResource = prost::Message::decode(&*any.value).unwrap();
        assert_eq!((&*resource.name, resource.resource.is_some()), ("layer", with_content), "after {at} s");
        assert_eq!(resource.ttl.unwrap().seconds, 6);
        request.response_nonce = response.nonce;
        request.version_info = response.version_info;
    }
    // Its removal is told by a layer without keys.
    let gone = Published::first(SnapshotBuilder::new().build().unwrap(), now);
    stream.sotw_request(&request, now).unwrap();
    let response: DiscoveryResponse = decode(&stream.next_response(Some(&gone), now).unwrap());
    let layer: Layer = prost::Message::decode(&*response.resources[0].value).unwrap();
    assert_eq!((&*layer.name, layer.layer), ("layer", Some(Struct::default())));
}
