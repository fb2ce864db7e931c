//! What can be wrong with assignments.

use envoy_types::pb::envoy::config::cluster::v3::cluster::common_lb_config::{
    LocalityConfigSpecifier, LocalityWeightedLbConfig,
};
use envoy_types::pb::envoy::config::cluster::v3::cluster::{
    CommonLbConfig, LbConfig, LeastRequestLbConfig, RingHashLbConfig,
};
use envoy_types::pb::envoy::config::cluster::v3::load_balancing_policy::Policy as LbPolicy;
use envoy_types::pb::envoy::config::cluster::v3::{Cluster, LoadBalancingPolicy};
use envoy_types::pb::envoy::config::core::v3::{Locality, TypedExtensionConfig};
use envoy_types::pb::envoy::config::endpoint::v3::cluster_load_assignment::Policy;
use envoy_types::pb::envoy::config::endpoint::v3::locality_lb_endpoints::LbConfig as LocalityLbConfig;
use envoy_types::pb::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, LedsClusterLocalityConfig, LocalityLbEndpoints,
};
use envoy_types::pb::envoy::extensions::load_balancing_policies::common::v3 as common;
use envoy_types::pb::envoy::extensions::load_balancing_policies::least_request::v3::LeastRequest;
use envoy_types::pb::google::protobuf::{UInt32Value, UInt64Value};
use envoy_types::util::pack_any;

use super::*;
use crate::fixtures::ads;

fn faults_of(cluster: Cluster, assignment: ClusterLoadAssignment) -> Vec<String> {
    faults(|builder| {
        builder.cluster(cluster).assignment(assignment);
    })
}

/// A locality with one endpoint, by its zone, weight, priority and port.
fn locality(zone: &str, weight: Option<u32>, priority: u32, port: u16) -> LocalityLbEndpoints {
    let [locality] = <[_; 1]>::try_from(assignment("a", port).endpoints).unwrap();
    LocalityLbEndpoints {
        locality: Some(Locality { zone: zone.into(), ..Default::default() }),
        load_balancing_weight: weight.map(|value| UInt32Value { value }),
        priority,
        ..locality
    }
}

fn localities(endpoints: Vec<LocalityLbEndpoints>) -> ClusterLoadAssignment {
    ClusterLoadAssignment { cluster_name: "a".into(), endpoints, ..Default::default() }
}

#[test]
fn f8_weights_must_fit() {
    let mut heavy = weighted_assignment("a", 1, u32::MAX);
    let other = weighted_assignment("a", 2, u32::MAX).endpoints[0].lb_endpoints[0].clone();
    heavy.endpoints[0].lb_endpoints.push(other);
    let mut builder = SnapshotBuilder::new();
    builder.cluster(cluster("a", 1)).assignment(heavy);
    let faults = builder.build().unwrap_err().faults;
    assert!(matches!(&faults[..], [Fault::WeightSum { sum: 8_589_934_590, .. }]), "{faults:?}");
}

#[test]
fn f8_weights_of_endpoints_inside_a_cluster_must_fit_too() {
    let inline = Cluster {
        name: "inline".into(),
        load_assignment: Some(weighted_assignment("inline", 80, 0)),
        ..Default::default()
    };
    let faults = faults(|builder| {
        builder.cluster(inline);
    });
    assert_eq!(faults, ["CDS \"inline\": the weight of endpoint 127.0.0.1:80 in locality // is 0"]);
}

#[test]
fn f8_an_assignment_without_endpoints_has_to_be_meant() {
    let text = "assignment \"a\" has no endpoints: requests to its cluster would fail; if that is meant, say \
                that it may be empty";
    assert_eq!(faults_of(cluster("a", 1), assignment("a", 0)), [text]);
    assert_eq!(faults_of(cluster("a", 1), localities(Vec::new())), [text]);
    let allowed: [fn(&mut SnapshotBuilder); 2] = [
        |builder| {
            builder.may_be_empty("a");
        },
        |builder| {
            builder.allow_empty_assignments();
        },
    ];
    for allow in allowed {
        let faults = faults(|builder| {
            builder.cluster(cluster("a", 1)).assignment(assignment("a", 0));
            allow(builder);
        });
        assert!(faults.is_empty(), "{faults:?}");
    }
}

#[test]
fn f8_an_endpoint_is_there_once() {
    let twice = vec![locality("x", Some(1), 0, 80), locality("y", Some(1), 1, 80)];
    assert_eq!(
        faults_of(cluster("a", 1), localities(twice)),
        ["assignment \"a\": endpoint 127.0.0.1:80 is in locality /x/ of priority 0, and again in locality \
          /y/ of priority 1"]
    );
}

#[test]
fn f8_priorities_have_no_gaps() {
    let gap = vec![locality("x", Some(1), 0, 80), locality("y", Some(1), 2, 81)];
    assert_eq!(
        faults_of(cluster("a", 1), localities(gap)),
        ["assignment \"a\": priority 2 is used, but 1 is not: leave no gaps"]
    );
    let many = (0..=129).map(|p: u16| locality("x", Some(1), u32::from(p), 80 + p)).collect();
    assert_eq!(
        faults_of(cluster("a", 1), localities(many)),
        ["EDS \"a\": priority is 129, but has to be 0 to 128"]
    );
}

#[test]
fn f8_overprovisioning_is_not_0() {
    let policy = Policy { overprovisioning_factor: Some(UInt32Value { value: 0 }), ..Default::default() };
    let assignment = ClusterLoadAssignment { policy: Some(policy), ..assignment("a", 80) };
    assert_eq!(
        faults_of(cluster("a", 1), assignment),
        ["EDS \"a\": policy.overprovisioning_factor is 0, but has to be at least 1"]
    );
}

#[test]
fn f8_all_endpoints_of_a_locality_have_a_weight_or_none_has() {
    let mut mixed = weighted_assignment("a", 80, 60);
    let mut other = assignment("a", 81).endpoints[0].lb_endpoints[0].clone();
    other.load_balancing_weight = None;
    mixed.endpoints[0].lb_endpoints.push(other);
    assert_eq!(
        faults_of(cluster("a", 1), mixed),
        ["EDS \"a\": endpoint 127.0.0.1:81 in locality // has no weight, while others beside it have one: \
          give a weight to all or to none"]
    );
}

#[test]
fn f8_a_locality_without_weight_gets_nothing_where_localities_are_weighted() {
    let mixed = || localities(vec![locality("x", Some(1), 0, 80), locality("y", None, 0, 81)]);
    assert!(faults_of(cluster("a", 1), mixed()).is_empty());

    let text = "EDS \"a\": locality /y/ has no weight, while others beside it have one: give a weight to all \
                or to none";
    let weighted = LocalityConfigSpecifier::LocalityWeightedLbConfig(LocalityWeightedLbConfig {});
    let common_lb_config =
        Some(CommonLbConfig { locality_config_specifier: Some(weighted), ..Default::default() });
    let by_common = Cluster { common_lb_config, ..cluster("a", 1) };
    assert_eq!(faults_of(by_common, mixed()), [text]);

    let weighted = common::locality_lb_config::LocalityWeightedLbConfig {};
    let weighted = common::locality_lb_config::LocalityConfigSpecifier::LocalityWeightedLbConfig(weighted);
    let locality_lb_config = Some(common::LocalityLbConfig { locality_config_specifier: Some(weighted) });
    let by_policy = with_policy(LeastRequest { locality_lb_config, ..Default::default() });
    assert_eq!(faults_of(by_policy.clone(), mixed()), [text]);
    let neither = localities(vec![locality("x", None, 0, 80), locality("y", None, 0, 81)]);
    assert!(faults_of(by_policy, neither).is_empty());
}

fn with_policy(least_request: LeastRequest) -> Cluster {
    let typed_extension_config =
        Some(TypedExtensionConfig { name: "policy".into(), typed_config: Some(pack_any(least_request)) });
    let policies = vec![LbPolicy { typed_extension_config }];
    Cluster { load_balancing_policy: Some(LoadBalancingPolicy { policies }), ..cluster("a", 1) }
}

#[test]
fn f8_a_choice_is_among_two_hosts_at_least() {
    let choice_count = Some(UInt32Value { value: 1 });
    let text = "CDS \"a\": choice_count of least request is 1, but has to be at least 2";
    let by_policy = with_policy(LeastRequest { choice_count, ..Default::default() });
    assert_eq!(faults_of(by_policy, assignment("a", 80)), [text]);
    let old = LbConfig::LeastRequestLbConfig(LeastRequestLbConfig { choice_count, ..Default::default() });
    let old = Cluster { lb_config: Some(old), ..cluster("a", 1) };
    assert_eq!(faults_of(old, assignment("a", 80)), [text]);
}

#[test]
fn f8_a_ring_is_not_larger_than_its_maximum() {
    let ring = RingHashLbConfig {
        minimum_ring_size: Some(UInt64Value { value: 2000 }),
        maximum_ring_size: Some(UInt64Value { value: 1000 }),
        ..Default::default()
    };
    let hashed = Cluster { lb_config: Some(LbConfig::RingHashLbConfig(ring)), ..cluster("a", 1) };
    let faults = faults_of(hashed, assignment("a", 80));
    assert!(faults[0].starts_with("CDS \"a\": minimum_ring_size is 2000, but"), "{faults:?}");
}

#[test]
fn f8_lists_of_endpoints_by_leds_are_not_served() {
    let leds = LedsClusterLocalityConfig { leds_config: Some(ads()), leds_collection_name: "more".into() };
    let mut assignment = assignment("a", 0);
    assignment.endpoints[0].lb_config = Some(LocalityLbConfig::LedsClusterLocalityConfig(leds));
    let faults = faults_of(cluster("a", 1), assignment);
    let [fault] = &faults[..] else { panic!("{faults:?}") };
    assert!(fault.starts_with("EDS \"a\" asks this server for endpoints of a locality (LEDS)"), "{fault}");
}
