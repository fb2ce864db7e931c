//! What is said of endpoints that were published.

use super::*;

fn endpoints(ports: &[(&str, u16)]) -> Snapshot {
    let mut builder = SnapshotBuilder::new();
    for (name, port) in ports {
        builder.cluster(cluster(name, 1)).assignment(assignment(name, *port));
    }
    builder.build().unwrap()
}

/// A proxy that has the first state.
fn proxy() -> Peer {
    let mut peer = Peer::new(endpoints(&[("a", 1), ("b", 1)]));
    peer.subscribe(Cluster, &[]);
    let response = peer.expect(Cluster);
    peer.ack(&response);
    peer.subscribe(ClusterLoadAssignment, &["a", "b"]);
    let response = peer.expect(ClusterLoadAssignment);
    assert!(peer.stream.take_received().is_none(), "clusters are no endpoints");
    peer.ack(&response);
    peer
}

/// Names that the proxy refuses, once it has answered about everything.
fn refused(peer: &mut Peer) -> Option<Vec<String>> {
    let received = peer.stream.take_received()?;
    assert!(received.delivery.is(&peer.newest.as_ref().unwrap().delivery));
    Some(received.refused.iter().map(|name| name.to_string()).collect())
}

#[test]
fn a_proxy_has_a_state_once() {
    let mut peer = proxy();
    assert_eq!(refused(&mut peer), Some(Vec::new()));
    peer.subscribe(ClusterLoadAssignment, &["a"]);
    let again = peer.expect(ClusterLoadAssignment);
    peer.ack(&again);
    assert_eq!(refused(&mut peer), None, "that was told");
    peer.publish(endpoints(&[("a", 2), ("b", 1)]));
    let newest = peer.newest.as_ref().unwrap().delivery.clone();
    let response = peer.expect(ClusterLoadAssignment);
    assert!(!peer.stream.has_received(&newest), "sent is not taken");
    peer.ack(&response);
    assert_eq!(refused(&mut peer), Some(Vec::new()));
    assert!(peer.stream.has_received(&newest));
}

#[test]
fn what_is_refused_is_told_when_it_is_alone() {
    let mut peer = proxy();
    peer.publish(endpoints(&[("a", 2), ("b", 2)]));
    let both = peer.expect(ClusterLoadAssignment);
    peer.nack(&both);
    assert_eq!(refused(&mut peer), None, "one of the two may be good");
    let first = peer.expect(ClusterLoadAssignment);
    assert_eq!(names(&first), ["a"]);
    peer.ack(&first);
    assert_eq!(refused(&mut peer), None, "the other one is still to come");
    let second = peer.expect(ClusterLoadAssignment);
    peer.nack(&second);
    assert_eq!(refused(&mut peer), Some(vec!["b".to_owned()]));
    // Of the next state it takes what is new, and goes on refusing the same.
    peer.publish(endpoints(&[("a", 3), ("b", 2)]));
    let third = peer.expect(ClusterLoadAssignment);
    peer.ack(&third);
    assert_eq!(refused(&mut peer), Some(vec!["b".to_owned()]));
    peer.publish(endpoints(&[("a", 3), ("b", 4)]));
    let fourth = peer.expect(ClusterLoadAssignment);
    peer.ack(&fourth);
    assert_eq!(refused(&mut peer), Some(Vec::new()));
}

#[test]
fn an_answer_to_an_older_state_says_nothing_of_a_newer_one() {
    let mut peer = proxy();
    refused(&mut peer);
    peer.publish(endpoints(&[("a", 2), ("b", 1)]));
    let older = peer.newest.as_ref().unwrap().delivery.clone();
    let response = peer.expect(ClusterLoadAssignment);
    peer.publish(endpoints(&[("a", 3), ("b", 1)]));
    peer.ack(&response);
    assert!(peer.stream.take_received().unwrap().delivery.is(&older));
    let response = peer.expect(ClusterLoadAssignment);
    peer.ack(&response);
    assert_eq!(refused(&mut peer), Some(Vec::new()));
}
