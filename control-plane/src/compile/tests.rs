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
        lanes: LanesIntent::default(),
        predictive_percent,
        groups: vec![group("a", 1000, &[(1, false)]), group("a/10.0.0.2:8000", 9000, &[(2, false)])],
        static_groups: vec![group("a", 10_000, &[(1, false), (2, false), (3, true)])],
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
    // By the body's model, and by the client's header; in both lanes.
    let expected = vec![[predictive, fallback]; 4].concat();
    assert_eq!(ways(&resources, "chat"), expected);
}

#[test]
fn where_envoy_balances_by_itself_there_is_one_way() {
    let balance = ModelBalance { policy: crate::config::Policy::RoundRobin, ..ModelBalance::default() };
    let resources = compiled(vec![ModelIntent { balance, ..model("chat", 0) }]);
    assert_eq!(ways(&resources, "chat"), vec![("chat".to_owned(), None); 4]);
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

/// The names of a model's routes with the priority of each; none where Envoy answers itself.
fn lanes(resources: &Resources) -> Vec<(String, Option<i32>)> {
    let routes = resources.routes.virtual_hosts[0].routes.iter().filter(|route| !route.name.is_empty());
    let priority = |route: &envoy_types::pb::envoy::config::route::v3::Route| match &route.action {
        Some(route::Action::Route(action)) => Some(action.priority),
        _ => None,
    };
    routes.map(|route| (route.name.clone(), priority(route))).collect()
}

fn refusing(batch_refused: u32, predictive_refused: u32) -> ModelIntent {
    let lanes = LanesIntent { refuses: true, batch_refused, predictive_refused, ..LanesIntent::default() };
    ModelIntent { lanes, ..model("chat", 100) }
}

#[test]
fn requests_that_can_wait_have_routes_of_their_own_to_the_same_clusters() {
    let (batch, interactive) = (("batch/chat".to_owned(), Some(0)), ("interactive/chat".to_owned(), Some(1)));
    let seen = lanes(&compiled(vec![refusing(0, 0)]));
    let refused = ("refused/chat".to_owned(), None);
    let once = [refused, batch.clone(), batch.clone(), interactive.clone(), interactive.clone()];
    assert_eq!(seen, [once.clone(), once].concat());
    assert_eq!(lanes(&compiled(vec![model("chat", 100)])).len(), 8, "where nothing may be refused");
    let of_lane = |lane| {
        let lanes = LanesIntent { lane, ..LanesIntent::default() };
        self::lanes(&compiled(vec![ModelIntent { lanes, ..model("chat", 100) }]))
    };
    assert_eq!(of_lane(crate::config::ModelLane::Batch), vec![batch; 4]);
    assert_eq!(of_lane(crate::config::ModelLane::Interactive), vec![interactive; 4]);
}

#[test]
fn batch_is_refused_by_the_layer_and_the_rest_by_the_cluster_that_ends_with_it() {
    let quiet = compiled(vec![refusing(0, 0)]);
    let resources = compiled(vec![refusing(620_000, 125_000)]);
    assert_eq!(resources.routes, quiet.routes, "routes do not change with what is refused");
    let fields = resources.runtime.layer.unwrap().fields;
    let Some(Kind::StructValue(fraction)) = &fields["clairvoy.shed.batch.chat"].kind else {
        panic!("{fields:?}")
    };
    assert_eq!(fraction.fields["numerator"].kind, Some(Kind::NumberValue(620_000.0)));
    assert_eq!(fraction.fields["denominator"].kind, Some(Kind::StringValue("MILLION".to_owned())));
    let drops = |index: usize| {
        let policy = resources.assignments[index].policy.as_ref().unwrap();
        policy.drop_overloads.iter().map(|drop| drop.drop_percentage.unwrap().numerator).collect::<Vec<_>>()
    };
    assert_eq!((drops(0), drops(1)), (vec![125_000], vec![]), "the twin takes all");
    let weights = |resources: &Resources, index: usize| {
        let groups = resources.assignments[index].endpoints.iter();
        groups.map(|group| group.load_balancing_weight.unwrap().value).collect::<Vec<_>>()
    };
    assert_eq!(
        weights(&resources, 0),
        [126_000, 1_134_000],
        "Envoy looks at a drop only when a weight changes"
    );
    assert_eq!((weights(&quiet, 0), weights(&resources, 1)), (vec![1_000, 9_000], vec![10_000]));
    assert!(quiet.assignments.iter().all(|one| one.policy.as_ref().unwrap().drop_overloads.is_empty()));
    assert_eq!(quiet.runtime.layer.unwrap().fields.len(), 1);
}

#[test]
fn each_lane_has_bounds_of_its_own() {
    let max_requests = crate::config::MaxRequests { interactive: 500, batch: 20 };
    let lanes = LanesIntent { max_requests, ..LanesIntent::default() };
    let resources = compiled(vec![ModelIntent { lanes, ..model("chat", 100) }]);
    for cluster in &resources.clusters {
        let thresholds = &cluster.circuit_breakers.as_ref().unwrap().thresholds;
        let bound =
            |index: usize| (thresholds[index].priority, thresholds[index].max_requests.unwrap().value);
        assert_eq!((bound(0), bound(1)), ((0, 20), (1, 500)), "{}", cluster.name);
    }
}
