//! What can be wrong with routes.

use std::collections::HashMap;

use envoy_types::pb::envoy::config::route::v3::rate_limit::HitsAddend;
use envoy_types::pb::envoy::config::route::v3::route::Action;
use envoy_types::pb::envoy::config::route::v3::route_action::ClusterSpecifier;
use envoy_types::pb::envoy::config::route::v3::weighted_cluster::ClusterWeight;
use envoy_types::pb::envoy::config::route::v3::{
    RateLimit, RetryPolicy, RouteAction, RouteConfiguration, WeightedCluster,
};
use envoy_types::pb::envoy::extensions::filters::http::ratelimit::v3::RateLimitPerRoute;
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy;
use envoy_types::pb::envoy::service::runtime::v3::Runtime;
use envoy_types::pb::google::protobuf::value::Kind;
use envoy_types::pb::google::protobuf::{Struct, UInt32Value, UInt64Value, Value};

use super::names::tcp_listener;
use super::*;

fn with_action(change: impl FnOnce(&mut RouteAction)) -> RouteConfiguration {
    let mut config = fixtures::routes("r", ["a"]);
    let Some(Action::Route(action)) = &mut config.virtual_hosts[0].routes[0].action else { panic!() };
    change(action);
    config
}

/// A route to clusters by weight, which the keys `w.CLUSTER` may replace.
fn shares(weights: &[(&str, u32)]) -> RouteConfiguration {
    let cluster = |(name, weight): &(&str, u32)| ClusterWeight {
        name: (*name).into(),
        weight: Some(UInt32Value { value: *weight }),
        ..Default::default()
    };
    let weighted = WeightedCluster {
        clusters: weights.iter().map(cluster).collect(),
        runtime_key_prefix: "w".into(),
        ..Default::default()
    };
    with_action(|action| action.cluster_specifier = Some(ClusterSpecifier::WeightedClusters(weighted)))
}

fn number(value: f64) -> Kind {
    Kind::NumberValue(value)
}

fn structure<const N: usize>(fields: [(&str, Kind); N]) -> Struct {
    let fields = fields.map(|(name, kind)| (name.to_owned(), Value { kind: Some(kind) }));
    Struct { fields: HashMap::from(fields) }
}

fn faults_with_layer<const N: usize>(routes: RouteConfiguration, keys: [(&str, Kind); N]) -> Vec<String> {
    faults(|builder| {
        builder.external_cluster("a").external_cluster("b").route_configuration(routes);
        builder.runtime(Runtime { name: "layer".into(), layer: Some(structure(keys)) });
    })
}

fn faults_of(routes: RouteConfiguration) -> Vec<String> {
    faults_with_layer(routes, [])
}

#[test]
fn f8_shares_of_a_route_add_up_to_something() {
    assert_eq!(faults_of(shares(&[("a", 0), ("b", 0)])), ["RDS \"r\": the weight of the clusters a, b is 0"]);
    assert!(faults_of(shares(&[("a", 0), ("b", 1)])).is_empty());
    let faults = faults_of(shares(&[("a", u32::MAX), ("b", 1)]));
    assert_eq!(
        faults,
        ["RDS \"r\": the weights of the clusters a, b add up to 4294967296, more than 4294967295"]
    );
}

#[test]
fn f8_shares_of_a_tcp_proxy_are_not_0() {
    let cluster = |name: &str, weight| tcp_proxy::weighted_cluster::ClusterWeight {
        name: name.into(),
        weight,
        ..Default::default()
    };
    let weighted = tcp_proxy::WeightedCluster { clusters: vec![cluster("a", 1), cluster("b", 0)] };
    let faults = faults(|builder| {
        builder.external_cluster("a").external_cluster("b");
        builder.listener(tcp_listener(tcp_proxy::ClusterSpecifier::WeightedClusters(weighted)));
    });
    assert_eq!(faults, ["LDS \"tcp\": the weight of cluster b is 0"]);
}

#[test]
fn f8_runtime_shares_are_whole_numbers() {
    let bad = [
        (number(0.5), "0.5"),
        (number(-5.0), "-5"),
        (number(5e9), "5000000000"),
        (number(f64::NAN), "NaN"),
        (Kind::StringValue("10".into()), "\"10\""),
        (Kind::BoolValue(true), "true"),
    ];
    for (value, text) in bad {
        let routes = shares(&[("a", 1), ("b", 1)]);
        assert_eq!(
            faults_with_layer(routes, [("w.a", value), ("other", number(0.5))]),
            [format!(
                "runtime layer \"layer\": \"w.a\" is {text}, but the weight of a cluster is a whole number from \
                 0 to 4294967295"
            )]
        );
    }
}

#[test]
fn f8_runtime_shares_add_up_to_something() {
    let all_0 = [("w.a", number(0.0)), ("w.b", number(0.0))];
    assert_eq!(
        faults_with_layer(shares(&[("a", 1), ("b", 1)]), all_0.clone()),
        ["RDS \"r\": the weight of the clusters a, b with runtime layer \"layer\" is 0"]
    );
    // Cluster b keeps the weight of the route.
    assert!(faults_with_layer(shares(&[("a", 1), ("b", 1)]), [all_0[0].clone()]).is_empty());
    let large = [("w.a", number(4_294_967_295.0))];
    let faults = faults_with_layer(shares(&[("a", 1), ("b", 1)]), large);
    assert!(faults[0].contains("add up to 4294967296"), "{faults:?}");
}

#[test]
fn f8_runtime_shares_in_nested_structures_are_found() {
    let nested = Kind::StructValue(structure([("a", number(0.0)), ("b", number(0.0))]));
    let faults = faults_with_layer(shares(&[("a", 1), ("b", 1)]), [("w", nested)]);
    assert!(faults[0].ends_with("with runtime layer \"layer\" is 0"), "{faults:?}");
    let fraction = Kind::StructValue(structure([("numerator", number(1.0))]));
    let faults = faults_with_layer(shares(&[("a", 1)]), [("w.a", fraction)]);
    assert!(faults[0].contains("is a fraction, but"), "{faults:?}");
}

#[test]
fn f8_conditions_of_retries_are_known() {
    let policy = RetryPolicy { retry_on: "5xx, conect-failure,reset".into(), ..Default::default() };
    assert_eq!(
        faults_of(with_action(|action| action.retry_policy = Some(policy))),
        ["RDS \"r\": retry_on has the unknown condition \"conect-failure\""]
    );
}

#[test]
fn f8_hits_are_counted_where_the_filter_reads_them() {
    let addend = HitsAddend { number: Some(UInt64Value { value: 0 }), ..Default::default() };
    let limit = RateLimit { hits_addend: Some(addend), ..Default::default() };
    let text = "is ignored: it belongs in rate_limits of a RateLimitPerRoute in typed_per_filter_config";
    assert_eq!(
        faults_of(with_action(|action| action.rate_limits = vec![limit.clone()])),
        [format!("RDS \"r\": hits_addend in rate_limits of a route {text}")]
    );
    let mut config = fixtures::routes("r", ["a"]);
    config.virtual_hosts[0].rate_limits = vec![limit.clone()];
    assert_eq!(
        faults_of(config.clone()),
        [format!("RDS \"r\": hits_addend in rate_limits of a virtual host {text}")]
    );
    config.virtual_hosts[0].rate_limits.clear();
    let in_filter = RateLimitPerRoute { rate_limits: vec![limit], ..Default::default() };
    let in_filter = HashMap::from([("limit".to_owned(), pack_any(in_filter))]);
    config.virtual_hosts[0].routes[0].typed_per_filter_config = in_filter;
    assert!(faults_of(config).is_empty());
}
