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
    assert_eq!(peer.stream.subscription(ClusterLoadAssignment).unwrap().status().held, 0);
    assert!(peer.in_sync());
}

fn refusal(peer: &mut Peer, response: &DeltaDiscoveryResponse) -> Option<Feedback> {
    let request = DeltaDiscoveryRequest {
        type_url: response.type_url.clone(),
        response_nonce: response.nonce.clone(),
        error_detail: bad(),
        ..Default::default()
    };
    peer.tell(&request)
}

/// The names in a response that was refused.
fn nacked(feedback: Option<Feedback>) -> Option<Vec<String>> {
    match feedback {
        Some(Feedback::Nacked { resource_type: Cluster, resources, message }) if message == "bad" => {
            Some(resources.into_iter().map(|(name, _)| name.to_string()).collect())
        }
        _ => None,
    }
}

/// A proxy that left its first response unanswered until the second was sent.
fn slow() -> (Peer, DeltaDiscoveryResponse, DeltaDiscoveryResponse) {
    let mut peer = Peer::new(snapshot(&[("a", 1)], &[]));
    peer.subscribe(Cluster, &[]);
    let first = peer.expect(Cluster);
    peer.publish(snapshot(&[("a", 1), ("b", 1)], &[]));
    peer.now += limits().ack_timeout;
    let second = peer.expect(Cluster);
    assert_eq!(names(&second), ["b"]);
    (peer, first, second)
}

#[test]
fn d8_a_nack_counts_when_the_next_response_is_under_way() {
    let (mut peer, first, second) = slow();
    assert_eq!(nacked(refusal(&mut peer, &first)).unwrap(), ["a"]);
    peer.ack(&second);
    peer.expect_nothing();
    assert_eq!(peer.stream.subscription(Cluster).unwrap().status().nacks, 1);
    assert!(!peer.in_sync());
    assert!(peer.stream.refuses(&peer.newest.as_ref().unwrap().snapshot));
    peer.publish(snapshot(&[("a", 2), ("b", 1)], &[]));
    assert_eq!(names(&peer.expect(Cluster)), ["a"]);
}

#[test]
fn d9_an_ack_counts_when_the_next_response_is_under_way() {
    let (mut peer, first, second) = slow();
    peer.ack(&first);
    assert!(!peer.in_sync(), "the second is under way");
    peer.ack(&second);
    assert!(peer.in_sync());
}

#[test]
fn d8_a_nack_of_what_is_no_longer_remembered_is_seen() {
    let (mut peer, first, _) = slow();
    peer.publish(snapshot(&[("a", 1), ("b", 2)], &[]));
    peer.now += limits().ack_timeout;
    let third = peer.expect(Cluster);
    assert_eq!(nacked(refusal(&mut peer, &first)).unwrap(), Vec::<String>::new());
    assert_eq!(peer.stream.subscription(Cluster).unwrap().status().nacks, 1);
    peer.ack(&third);
    let stranger = DeltaDiscoveryResponse { nonce: "other".into(), ..first };
    assert_eq!(refusal(&mut peer, &stranger), None);
}
