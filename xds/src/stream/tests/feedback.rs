//! ACKs and NACKs that come with something else, or late.

use super::*;

fn bad() -> Option<Status> {
    Some(Status { message: "bad".into(), ..Default::default() })
}

#[test]
fn s7_a_name_asked_for_with_a_nack_is_answered() {
    let mut peer = Peer::settled(snapshot(&[("a", 1)], &[]), &["a"]);
    peer.publish(snapshot(&[("a", 2)], &[]));
    let clusters = peer.expect(Cluster);
    let renewed = peer.expect(ClusterLoadAssignment);
    peer.ack(&clusters);
    let request = DeltaDiscoveryRequest {
        response_nonce: renewed.nonce,
        error_detail: bad(),
        resource_names_subscribe: vec!["a".into(), "b".into()],
        ..peer.request(ClusterLoadAssignment)
    };
    assert!(matches!(peer.tell(&request), Some(Feedback::Nacked { .. })));
    let response = peer.expect(ClusterLoadAssignment);
    assert_eq!((names(&response), &response.removed_resources[..]), (vec!["a"], &["b".to_owned()][..]));
}

#[test]
fn s7_a_name_given_up_with_a_nack_is_forgotten() {
    let mut peer = Peer::settled(snapshot(&[("a", 1)], &[]), &["a"]);
    peer.subscribe(ClusterLoadAssignment, &["a"]);
    let again = peer.expect(ClusterLoadAssignment);
    let request = DeltaDiscoveryRequest {
        response_nonce: again.nonce,
        error_detail: bad(),
        resource_names_unsubscribe: vec!["a".into()],
        ..peer.request(ClusterLoadAssignment)
    };
    assert!(matches!(peer.tell(&request), Some(Feedback::Nacked { .. })));
    peer.expect_nothing();
    assert!(peer.stream.subscription(ClusterLoadAssignment).held.is_empty());
    assert!(peer.in_sync());
}
