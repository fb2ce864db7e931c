mod base;
mod endpoints;
mod names;
mod routes;

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryResponse;
use envoy_types::util::pack_any;
use prost::Message;

use super::*;
use crate::fixtures::{self, assignment, cluster, listener, weighted_assignment};

/// The faults of what the builder was given, as a user reads them.
fn faults(fill: impl FnOnce(&mut SnapshotBuilder)) -> Vec<String> {
    let mut builder = SnapshotBuilder::new();
    fill(&mut builder);
    builder
        .build()
        .err()
        .map_or_else(Vec::new, |invalid| invalid.faults.iter().map(Fault::to_string).collect())
}

#[test]
fn f8_all_faults_come_at_once() {
    let mut faults = faults(|builder| {
        builder
            .cluster(cluster("a", 1))
            .cluster(cluster("a", 2))
            .cluster(Cluster::default())
            .assignment(weighted_assignment("b", 1, 0))
            .listener(listener("l", 80, "nowhere"))
            .route_configuration(fixtures::routes("r", ["a", "gone"]));
    });
    faults.sort();
    assert_eq!(
        faults,
        [
            "CDS: a resource has an empty name",
            "CDS: duplicate name \"a\"",
            "EDS \"b\": the weight of endpoint 127.0.0.1:1 in locality // is 0",
            "RDS \"r\" names unknown cluster \"gone\": add it, or declare it external if clients have it \
             from elsewhere",
            "assignment \"b\" belongs to no cluster",
            "cluster \"a\" has no assignment \"a\": add one, an empty one if there are no endpoints",
            "listener \"l\" names unknown route configuration \"nowhere\"",
        ]
    );
}

#[test]
fn f8_a_long_list_of_faults_is_cut() {
    let mut builder = SnapshotBuilder::new();
    for i in 0..60 {
        builder.assignment(assignment(&format!("a{i}"), 80));
    }
    let invalid = builder.build().unwrap_err();
    assert_eq!(invalid.faults.len(), 60);
    let text = invalid.to_string();
    assert!(text.starts_with("invalid snapshot, 60 faults: assignment \"a0\""), "{text}");
    assert!(text.ends_with("; and 10 more"), "{text}");
}

#[test]
fn clusters_of_the_bootstrap_can_be_named() {
    let mut builder = SnapshotBuilder::new();
    builder.external_cluster("fallback").route_configuration(fixtures::routes("r", ["fallback"]));
    assert!(builder.build().is_ok());
}

#[test]
fn d10_versions_follow_the_content() {
    let build = |port| {
        let mut builder = SnapshotBuilder::new();
        builder.cluster(cluster("a", 1)).assignment(assignment("a", port));
        builder.build().unwrap()
    };
    let version = |snapshot: &Snapshot| snapshot.version(ResourceType::ClusterLoadAssignment, "a").unwrap();
    let (first, second, third) = (build(1), build(2), build(1));
    assert_ne!(version(&first), version(&second));
    assert_eq!(version(&first), version(&third));
    let fingerprint = |snapshot: &Snapshot| snapshot.fingerprint(ResourceType::ClusterLoadAssignment);
    assert_eq!(fingerprint(&first), fingerprint(&third));
    assert_ne!(fingerprint(&first), fingerprint(&second));
}

#[test]
fn entries_decode_as_the_resources_of_a_response() {
    let mut builder = SnapshotBuilder::new();
    builder.cluster(cluster("a", 1)).assignment(assignment("a", 1));
    let snapshot = builder.build().unwrap();
    let entry = &snapshot.table(ResourceType::Cluster).get("a").unwrap().entry;
    let response = DeltaDiscoveryResponse::decode(entry.delta()).unwrap();
    let [resource] = &response.resources[..] else { panic!("one resource") };
    assert_eq!(resource.name, "a");
    assert_eq!(resource.version, snapshot.version(ResourceType::Cluster, "a").unwrap().to_string());
    assert_eq!(resource.resource, Some(pack_any(cluster("a", 1))));
}
