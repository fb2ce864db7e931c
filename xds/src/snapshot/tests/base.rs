//! Snapshots that are based on others.

use envoy_types::pb::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, CustomClusterType};
use envoy_types::pb::envoy::extensions::clusters::aggregate::v3::ClusterConfig;
use proptest::prelude::*;

use super::*;

fn aggregate(name: &str, members: &[&str]) -> Cluster {
    let members = ClusterConfig { clusters: members.iter().map(|member| (*member).to_owned()).collect() };
    let kind =
        CustomClusterType { name: "envoy.clusters.aggregate".into(), typed_config: Some(pack_any(members)) };
    Cluster {
        name: name.into(),
        cluster_discovery_type: Some(ClusterDiscoveryType::ClusterType(kind)),
        ..Default::default()
    }
}

/// A route to aggregate `all` of `members`, and a listener, with an assignment of one weight.
fn fill(builder: &mut SnapshotBuilder, members: &[&str], weight: u32) {
    for name in members {
        builder.cluster(cluster(name, 1)).assignment(weighted_assignment(name, 80, weight));
    }
    builder.cluster(aggregate("all", members));
    builder.listener(listener("front", 80, "routes"));
    builder.route_configuration(fixtures::routes("routes", ["all"]));
}

fn build(base: Option<&Snapshot>, members: &[&str], weight: u32) -> Snapshot {
    let mut builder = SnapshotBuilder::new();
    if let Some(base) = base {
        builder.based_on(base);
    }
    fill(&mut builder, members, weight);
    builder.build().unwrap()
}

fn resource(snapshot: &Snapshot, resource_type: ResourceType, name: &str) -> Arc<Resource> {
    snapshot.table(resource_type).get(name).unwrap().clone()
}

/// Everything that a stream reads of a snapshot.
fn content(snapshot: &Snapshot) -> Vec<String> {
    let of_type = |t| snapshot.table(t).iter().map(move |r| (t, r.clone()));
    let all = ResourceType::ALL.into_iter().flat_map(of_type);
    all.map(|(t, r)| {
        let names = (&r.clusters, &r.route_configurations, &r.assignment);
        format!("{t} {} {} {:?} {names:?}", r.name, r.version, r.entry)
    })
    .collect()
}

#[test]
fn what_did_not_change_is_shared_with_the_snapshot_before() {
    let first = build(None, &["a", "b"], 1);
    let second = build(Some(&first), &["a", "b"], 2);
    let shared = |t, name| Arc::ptr_eq(&resource(&first, t, name), &resource(&second, t, name));
    assert!(shared(ResourceType::Listener, "front"));
    assert!(shared(ResourceType::RouteConfiguration, "routes"));
    assert!(shared(ResourceType::Cluster, "all"));
    assert!(!shared(ResourceType::ClusterLoadAssignment, "a"));
}

#[test]
fn a_route_follows_the_members_of_its_aggregate() {
    let first = build(None, &["a", "b"], 1);
    let second = build(Some(&first), &["a"], 1);
    let clusters = |snapshot| resource(snapshot, ResourceType::RouteConfiguration, "routes").clusters.clone();
    assert_eq!(clusters(&first), ["a".into(), "all".into(), "b".into()]);
    assert_eq!(clusters(&second), ["a".into(), "all".into()]);
    let third = build(Some(&second), &["a", "b"], 1);
    assert_eq!(clusters(&third), clusters(&first));
}

#[test]
fn f8_unchanged_resources_are_checked_against_changed_ones() {
    let first = build(None, &["a", "b"], 1);
    let faults = faults(|builder| {
        builder.based_on(&first).cluster(aggregate("all", &["a", "b"]));
        builder.cluster(cluster("a", 1)).listener(listener("front", 80, "routes"));
        builder.assignment(assignment("a", 0));
    });
    assert_eq!(faults.len(), 3, "{faults:?}");
    assert!(faults.iter().any(|fault| fault.contains("CDS \"all\" names unknown cluster \"b\"")));
    assert!(faults.iter().any(|fault| fault.contains("unknown route configuration \"routes\"")));
    assert!(faults.iter().any(|fault| fault.contains("assignment \"a\" has no endpoints")));
}

#[test]
fn f8_an_empty_assignment_of_the_snapshot_before_has_to_be_meant_again() {
    let mut builder = SnapshotBuilder::new();
    builder.cluster(cluster("a", 1)).assignment(assignment("a", 0)).may_be_empty("a");
    let first = builder.build().unwrap();
    let faults = faults(|builder| {
        builder.based_on(&first).cluster(cluster("a", 1)).assignment(assignment("a", 0));
    });
    assert!(faults[0].contains("has no endpoints"), "{faults:?}");
}

#[test]
fn resources_can_be_kept_by_name() {
    let first = build(None, &["a"], 1);
    let mut builder = SnapshotBuilder::new();
    builder.based_on(&first).assignment(weighted_assignment("a", 80, 2));
    for name in ["a", "all"] {
        builder.keep(ResourceType::Cluster, name);
    }
    builder.keep(ResourceType::Listener, "front").keep(ResourceType::RouteConfiguration, "routes");
    assert_eq!(content(&builder.build().unwrap()), content(&build(None, &["a"], 2)));

    let faults = faults(|builder| {
        builder.based_on(&first).keep(ResourceType::Cluster, "gone");
        builder.keep(ResourceType::Cluster, "all").cluster(aggregate("all", &["a"])).external_cluster("a");
    });
    assert_eq!(
        faults,
        ["CDS: duplicate name \"all\"", "CDS \"gone\" cannot be taken over: the snapshot before has none"]
    );
}

fn members() -> impl Strategy<Value = (Vec<&'static str>, u32)> {
    (prop::sample::subsequence(vec!["a", "b", "c"], 0..=3), 1..3_u32)
}

proptest! {
    #[test]
    fn a_base_changes_nothing(before in members(), after in members()) {
        let base = build(None, &before.0, before.1);
        let with = build(Some(&base), &after.0, after.1);
        let without = build(None, &after.0, after.1);
        for t in ResourceType::ALL {
            prop_assert_eq!(with.fingerprint(t), without.fingerprint(t));
        }
        prop_assert_eq!(content(&with), content(&without));
    }
}
