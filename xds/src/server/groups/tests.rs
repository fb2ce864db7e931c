use std::time::Duration;

use envoy_types::pb::envoy::service::runtime::v3::Runtime;

use super::*;
use crate::fixtures;
use crate::snapshot::SnapshotBuilder;

fn state(settings: u64, port: u16) -> Snapshot {
    let mut builder = SnapshotBuilder::new();
    builder.cluster(fixtures::cluster("a", settings)).assignment(fixtures::assignment("a", port));
    builder.build().unwrap()
}

#[test]
fn f5_endpoints_are_not_held_back_by_other_types() {
    let (min, max) = (Duration::from_millis(5), Duration::from_millis(100));
    let group = Group::new("all", PacerLimits { min, max });
    let start = Instant::now();
    let at = |ms| start + Duration::from_millis(ms);
    let others = |pace| Change::Wake(pace, Kind::Others);
    let endpoints = |pace| Change::Wake(pace, Kind::Endpoints);
    assert_eq!(group.publish(state(1, 1), at(0)).0, endpoints(Pace::Now));
    assert_eq!(group.publish(state(2, 1), at(1000)).0, others(Pace::Now));
    assert_eq!(group.publish(state(3, 1), at(1001)).0, others(Pace::At(at(1005))));
    assert_eq!(group.publish(state(4, 1), at(1002)).0, others(Pace::Arranged));
    assert_eq!(group.publish(state(4, 2), at(1003)).0, endpoints(Pace::Now));
    // Together with another type, too.
    assert_eq!(group.publish(state(5, 3), at(1004)).0, endpoints(Pace::At(at(1008))));
    assert_eq!(group.publish(state(5, 3), at(1005)).0, Change::Nothing);
}

#[test]
fn f10_a_confirmation_wakes_streams_only_where_heartbeats_may_have_stopped() {
    let (min, max) = (Duration::from_millis(5), Duration::from_millis(100));
    let group = Group::new("all", PacerLimits { min, max });
    let start = Instant::now();
    let at = |ms| start + Duration::from_millis(ms);
    assert_eq!(group.confirm(at(0)), None, "there is nothing to stand by");
    let mut builder = SnapshotBuilder::new();
    builder
        .runtime_with_ttl(Runtime { name: "layer".to_owned(), ..Runtime::default() }, Duration::from_secs(6));
    group.publish(builder.build().unwrap(), at(0));
    assert_eq!(group.confirm(at(1000)), Some(Change::Nothing));
    assert_eq!(group.confirm(at(2900)), Some(Change::Nothing));
    let wakes = Some(Change::Wake(Pace::Now, Kind::Endpoints));
    assert_eq!(group.confirm(at(4900)), wakes);
    let newest = group.newest().unwrap();
    assert_eq!((newest.confirmed_at, newest.at, newest.number), (at(4900), at(0), 1));
}
