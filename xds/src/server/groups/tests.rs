use std::time::Duration;

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
    assert_eq!(group.publish(state(1, 1), at(0)), endpoints(Pace::Now));
    assert_eq!(group.publish(state(2, 1), at(1000)), others(Pace::Now));
    assert_eq!(group.publish(state(3, 1), at(1001)), others(Pace::At(at(1005))));
    assert_eq!(group.publish(state(4, 1), at(1002)), others(Pace::Arranged));
    assert_eq!(group.publish(state(4, 2), at(1003)), endpoints(Pace::Now));
    // Together with another type, too.
    assert_eq!(group.publish(state(5, 3), at(1004)), endpoints(Pace::At(at(1008))));
    assert_eq!(group.publish(state(5, 3), at(1005)), Change::Nothing);
}
