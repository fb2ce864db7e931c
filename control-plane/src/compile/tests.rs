use envoy_types::pb::envoy::config::route::v3::{route, route_action};
use envoy_types::pb::google::protobuf::value::Kind;

use super::*;
use crate::envoy::{predictive_key, static_cluster};

fn group(name: &str, weight: u32, endpoints: &[(u8, bool)]) -> GroupIntent {
    let endpoint = |(number, draining): &(u8, bool)| EndpointIntent {
        address: SocketAddr::from(([10, 0, 0, *number], 8000)),
        draining: *draining,
        weight: 1,
    };
    GroupIntent {
        region: String::new(),
        zone: "z".to_owned(),
        name: name.to_owned(),
        weight,
        endpoints: endpoints.iter().map(endpoint).collect(),
    }
}

fn model(name: &str, predictive_percent: u32) -> ModelIntent {
    ModelIntent {
        name: name.to_owned(),
        timeouts: Timeouts::default(),
        balance: ModelBalance::default(),
        load_metrics: Vec::new(),
        predictive_percent,
        groups: vec![group("a", 1000, &[(1, false)]), group("a/10.0.0.2:8000", 9000, &[(2, false)])],
        static_groups: vec![group("a", 10_000, &[(1, false), (2, false), (3, true)])],
        spare_groups: Vec::new(),
        views: Vec::new(),
    }
}

fn compiled(models: Vec<ModelIntent>) -> Resources {
    compile(&Intent { gateway: Gateway::default(), models, access_log: None })
}

/// The clusters to which a model's requests go, and the runtime key of each way.
fn ways(resources: &Resources, model: &str) -> Vec<(String, Option<(u32, String)>)> {
    let routes = &resources.routes.virtual_hosts[0].routes;
    let way = |route: &envoy_types::pb::envoy::config::route::v3::Route| {
        let Some(route::Action::Route(action)) = &route.action else { return None };
        let Some(route_action::ClusterSpecifier::Cluster(cluster)) = &action.cluster_specifier else {
            return None;
        };
        let fraction = route.r#match.as_ref()?.runtime_fraction.as_ref();
        let fraction = fraction.map(|fraction| {
            (fraction.default_value.unwrap_or_default().numerator, fraction.runtime_key.clone())
        });
        cluster.ends_with(model).then(|| (cluster.clone(), fraction))
    };
    routes.iter().filter_map(way).collect()
}

#[test]
fn without_the_runtime_layer_every_way_to_a_model_leads_to_its_static_twin() {
    let resources = compiled(vec![model("chat", 100)]);
    let predictive = ("chat".to_owned(), Some((0, predictive_key("chat"))));
    let fallback = (static_cluster("chat"), None);
    // By the body's model, and by the client's header.
    let expected = [predictive.clone(), fallback.clone(), predictive, fallback];
    assert_eq!(ways(&resources, "chat"), expected);
}

#[test]
fn where_envoy_balances_by_itself_there_is_one_way() {
    let balance = ModelBalance { policy: crate::config::Policy::RoundRobin, ..ModelBalance::default() };
    let resources = compiled(vec![ModelIntent { balance, ..model("chat", 0) }]);
    assert_eq!(ways(&resources, "chat"), [("chat".to_owned(), None), ("chat".to_owned(), None)]);
    // The twin is there for routes of a user's own, which may name it.
    assert_eq!((resources.clusters.len(), resources.assignments.len()), (2, 2));
}

#[test]
fn the_twin_has_the_same_endpoints_in_other_shares_and_checks_none_of_them() {
    let resources = compiled(vec![model("chat", 100)]);
    let [own, twin] = &resources.clusters[..] else { panic!("{:#?}", resources.clusters) };
    assert_eq!(*twin, Cluster { name: static_cluster("chat"), ..own.clone() });
    assert!(twin.health_checks.is_empty());
    let names: Vec<&str> = resources.assignments.iter().map(|one| one.cluster_name.as_str()).collect();
    assert_eq!(names, ["chat", "!static/chat"]);
    let groups = |index: usize| {
        let endpoints = &resources.assignments[index].endpoints;
        let group = |group: &envoy_types::pb::envoy::config::endpoint::v3::LocalityLbEndpoints| {
            (group.load_balancing_weight.unwrap().value, group.lb_endpoints.len())
        };
        endpoints.iter().map(group).collect::<Vec<_>>()
    };
    assert_eq!((groups(0), groups(1)), (vec![(1000, 1), (9000, 1)], vec![(10_000, 3)]));
}

#[test]
fn each_model_has_a_key_of_its_own_and_none_where_predictions_steer_nothing() {
    let models = [("a", 100), ("b", 0), ("c.d", 30)].map(|(name, percent)| model(name, percent));
    let runtime = compiled(models.to_vec()).runtime;
    assert_eq!(runtime.name, RUNTIME_LAYER);
    let layer = runtime.layer.unwrap();
    let keys: std::collections::BTreeMap<_, _> = layer.fields.into_iter().collect();
    let percent = |key: &str| keys.get(key).and_then(|value| value.kind.clone());
    assert_eq!(percent("clairvoy.predictive.a"), Some(Kind::NumberValue(100.0)));
    assert_eq!(percent("clairvoy.predictive.c.d"), Some(Kind::NumberValue(30.0)));
    assert_eq!(keys.len(), 2);
}
