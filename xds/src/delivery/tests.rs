use super::*;
use crate::fixtures::{assignment, cluster};
use crate::resource_type::ResourceType::ClusterLoadAssignment;
use crate::snapshot::{Snapshot, SnapshotBuilder};

fn state(ports: &[(&str, u16)]) -> Snapshot {
    let mut builder = SnapshotBuilder::new();
    for (name, port) in ports {
        builder.cluster(cluster(name, 1)).assignment(assignment(name, *port));
    }
    builder.build().unwrap()
}

/// Of a group with the members 1, 2 and 3, in which the endpoints of `a` have changed.
fn delivery(now: Instant) -> Delivery {
    let (before, after) = (state(&[("a", 1), ("b", 1)]), state(&[("a", 2), ("b", 1)]));
    let audience = Audience { clients: 3, newest: Some(Membership(3)) };
    let (before, after) = (before.table(ClusterLoadAssignment), after.table(ClusterLoadAssignment));
    Delivery::new(after, Some(before), audience, now)
}

fn accept(delivery: &Delivery, member: u64, now: Instant) {
    delivery.note(Membership(member), "edge", Vec::new(), "", now);
}

/// How many were to be told, have it, refuse `a`, and went.
fn counts(delivery: &Delivery) -> [usize; 4] {
    let receipt = delivery.receipt("a");
    [receipt.clients, receipt.accepted, receipt.refused.len(), receipt.left]
}

#[test]
fn what_is_watched_keeps_no_endpoints() {
    let after = state(&[("a", 2), ("b", 1)]);
    let table = after.table(ClusterLoadAssignment);
    let resource = Arc::downgrade(table.get("a").unwrap());
    let first = Delivery::new(table, None, Audience::default(), Instant::now());
    drop(after);
    assert!(resource.upgrade().is_none());
    assert!(first.changes("a") && first.changes("b") && !first.changes("c"));
    let second = delivery(Instant::now());
    assert!(second.changes("a") && !second.changes("b"));
}

#[test]
fn a_client_that_is_brought_into_another_group_is_waited_for_there() {
    let now = Instant::now();
    let (left, joined) = (delivery(now), delivery(now));
    accept(&left, 1, now);
    accept(&left, 2, now);
    left.note_moved(Membership(3), false);
    assert!(left.is_settled());
    assert_eq!(counts(&left), [2, 2, 0, 0], "it did not go");
    joined.note_came(Membership(4));
    for member in [1, 2, 3] {
        accept(&joined, member, now);
    }
    assert!(!joined.is_settled());
    assert_eq!(counts(&joined), [4, 3, 0, 0]);
    accept(&joined, 4, now);
    assert!(joined.is_settled());
    assert_eq!(counts(&joined), [4, 4, 0, 0]);
}

#[test]
fn a_client_that_had_answered_before_it_was_brought_into_another_group_counts_there_only() {
    let now = Instant::now();
    let delivery = delivery(now);
    accept(&delivery, 1, now);
    delivery.note(Membership(2), "edge", vec!["a".into()], "bad", now);
    delivery.note_moved(Membership(1), true);
    delivery.note_moved(Membership(2), false);
    assert_eq!(counts(&delivery), [1, 0, 0, 0]);
    assert_eq!(delivery.receipt("a").last, None, "nobody who counts has it");
    delivery.note_left(Membership(3));
    assert_eq!(counts(&delivery), [1, 0, 0, 1]);
}

#[test]
fn one_that_connects_later_does_not_make_up_for_one_that_is_silent() {
    let now = Instant::now();
    let delivery = delivery(now);
    for member in [1, 2, 4, 5] {
        accept(&delivery, member, now);
    }
    delivery.note_left(Membership(6));
    assert_eq!(counts(&delivery), [3, 2, 0, 0]);
    assert!(!delivery.is_settled());
}
