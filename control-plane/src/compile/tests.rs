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
        is_checked: true,
        weight,
        endpoints: endpoints.iter().map(endpoint).collect(),
    }
}

fn model(name: &str, predictive_percent: u32) -> ModelIntent {
    ModelIntent {
        name: name.to_owned(),
        timeouts: Timeouts::default(),
        health: HealthIntent {
            checks: None,
            outlier_detection: OutlierDetection::default(),
            connect_timeout: Span::seconds(1),
        },
        balance: ModelBalance::default(),
        load_metrics: Vec::new(),
        lanes: LanesIntent::default(),
        predictive_percent,
        steered_proxies: None,
        groups: vec![group("a", 1000, &[(1, false)]), group("a/10.0.0.2:8000", 9000, &[(2, false)])],
        static_groups: vec![group("a", 10_000, &[(1, false), (2, false), (3, true)])],
        spare_groups: Vec::new(),
        spare_part: 0.0,
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
fn spare_groups_stand_by_without_a_weight_and_take_a_part_while_the_others_come_back() {
    let weights = |groups: Vec<GroupIntent>, part: f64| {
        let spare = vec![group("near", 6000, &[(8, false)]), group("far", 4000, &[(9, false)])];
        let resources = compiled(vec![ModelIntent {
            groups: groups.clone(),
            static_groups: groups,
            spare_groups: spare,
            spare_part: part,
            ..model("chat", 100)
        }]);
        let of = |assignment: &ClusterLoadAssignment| -> Vec<Option<u32>> {
            let groups = assignment.endpoints.iter();
            groups.map(|group| group.load_balancing_weight.map(|weight| weight.value)).collect()
        };
        assert_eq!(of(&resources.assignments[0]), of(&resources.assignments[1]));
        of(&resources.assignments[0])
    };
    let (one, two) = (group("a", 7000, &[(1, false)]), group("b", 3000, &[(2, true)]));
    let gone = group("a", 7000, &[(1, true)]);
    assert_eq!(weights(vec![one.clone(), two.clone()], 0.0), [Some(7000), Some(3000), None, None]);
    // As much as the only group with a host has.
    let half = [Some(7000), Some(3000), Some(4200), Some(2800)];
    assert_eq!(weights(vec![one.clone(), two.clone()], 0.5), half);
    assert_eq!(weights(vec![gone, two], 1.0), [Some(7000), Some(3000), Some(6000), Some(4000)]);
    let most = weights(vec![one], 1.0);
    assert_eq!(most, [Some(7000), Some(415_800), Some(277_200)], "whoever is there keeps a hundredth");
}

#[test]
fn only_the_cluster_of_predictions_checks_and_a_pool_can_be_left_out() {
    let mut checked = model("chat", 100);
    checked.groups[1].is_checked = false;
    checked.health.checks = Some(CheckIntent {
        path: "/health".to_owned(),
        interval: Span::seconds(5),
        timeout: Span(std::time::Duration::from_millis(800)),
        unhealthy_threshold: 3,
        healthy_threshold: 2,
    });
    let resources = compiled(vec![checked.clone()]);
    let [own, twin] = &resources.clusters[..] else { panic!("{:#?}", resources.clusters) };
    let [check] = &own.health_checks[..] else { panic!("{own:#?}") };
    assert_eq!(check.timeout.unwrap().nanos, 800_000_000);
    // Else a backend that left would stay for as long as it answers.
    assert!(own.ignore_health_on_host_removal && twin.health_checks.is_empty());
    let outlier = own.outlier_detection.as_ref().unwrap();
    assert_eq!(twin.outlier_detection.as_ref(), Some(outlier));
    assert_eq!(outlier.successful_active_health_check_uneject_host.map(|uneject| uneject.value), Some(false));
    let left_out = |index: usize| {
        let groups = &resources.assignments[index].endpoints;
        let config = |endpoint: &envoy_types::pb::envoy::config::endpoint::v3::LbEndpoint| {
            use envoy_types::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
            let Some(HostIdentifier::Endpoint(endpoint)) = &endpoint.host_identifier else { panic!() };
            endpoint.health_check_config.as_ref().is_some_and(|config| config.disable_active_health_check)
        };
        groups.iter().flat_map(|group| group.lb_endpoints.iter().map(config)).collect::<Vec<_>>()
    };
    assert_eq!((left_out(0), left_out(1)), (vec![false, true], vec![false; 3]));
    // Endpoints are as before where nobody checks.
    checked.health.checks = None;
    let unchecked = compiled(vec![checked]);
    assert_eq!(unchecked.assignments[0], compiled(vec![model("chat", 100)]).assignments[0]);
}

#[test]
fn failures_put_a_backend_out_as_configured() {
    let outlier = |text: &str| {
        let config = crate::config::parse(&format!(
            "models: [{{ name: m, pools: [p], outlier_detection: {text} }}]\npools: [{{ name: p }}]\n"
        ));
        let config = config.unwrap();
        let health = HealthIntent::of(&config.models[0], &config);
        let resources = compiled(vec![ModelIntent { health, ..model("m", 100) }]);
        resources.clusters[0].outlier_detection.clone().unwrap()
    };
    let usual = outlier("{}");
    assert_eq!(usual.consecutive_gateway_failure.unwrap().value, 3);
    assert_eq!(usual.enforcing_consecutive_gateway_failure.unwrap().value, 100);
    assert_eq!(
        (usual.base_ejection_time.unwrap().seconds, usual.max_ejection_percent.unwrap().value),
        (5, 50)
    );
    assert!(!usual.split_external_local_origin_errors);
    let other = outlier(
        "{ consecutive_gateway_failure: 0, consecutive_5xx: 7, consecutive_local_origin_failure: 2 }",
    );
    assert_eq!(other.enforcing_consecutive_gateway_failure.unwrap().value, 0);
    assert_eq!(other.consecutive_5xx.unwrap().value, 7);
    assert!(other.split_external_local_origin_errors);
    assert_eq!(other.consecutive_local_origin_failure.unwrap().value, 2);
    assert_eq!(other.enforcing_consecutive_local_origin_failure.unwrap().value, 100);
    let never = outlier("{ consecutive_local_origin_failure: 0 }");
    assert!(never.split_external_local_origin_errors);
    assert_eq!(never.enforcing_consecutive_local_origin_failure.unwrap().value, 0);
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
    let fields = resources.runtime.layer.clone().unwrap().fields;
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

#[test]
fn a_canary_of_proxies_is_steered_in_the_envoys_that_are_chosen_only() {
    let canary = |name: &str, percent| ModelIntent { steered_proxies: Some(percent), ..model(name, 100) };
    let models = [model("all", 100), canary("few", 10), canary("many", 50)];
    let keys = |runtime: Runtime| {
        let fields = runtime.layer.unwrap_or_default().fields;
        let models = ["all", "few", "many"].into_iter();
        models.filter(|model| fields.contains_key(&predictive_key(model))).collect::<Vec<_>>()
    };
    assert_eq!(keys(compiled(models.to_vec()).runtime), ["all"]);
    assert_eq!(keys(compile_canary(&models, 10)), ["all", "few", "many"]);
    assert_eq!(keys(compile_canary(&models, 50)), ["all", "many"]);
}
