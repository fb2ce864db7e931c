use std::net::SocketAddr;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use prost::Message as _;

use crate::compile::{Intent, Resources, compile, compile_zone};
use crate::config;
use crate::envoy::{ModelLoad, NodeLoad};
use crate::run::control::{Checkpoint, Core, Effect, Input};
use crate::run::steer::explain::{explain, explain_zone};
use crate::store::DecisionRow;
use crate::telemetry::Sample;

use super::*;

fn at(second: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_700_000_000 + second, 0).unwrap()
}

fn zone(name: &str) -> Zone {
    name.parse().unwrap()
}

fn address(number: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, number], 8000))
}

/// Two zones of a region with two backends each, and a spare one elsewhere.
fn core(balance: &str) -> Core {
    let text = format!(
        "models: [{{ name: m, pools: [a, b, far], balance: {{ {balance} }} }}]\npools:\n\
         - {{ name: a, capacity_rps: 6, locality: {{ region: eu, zone: a }}, backends: [\"10.0.0.1:8000\", \"10.0.0.2:8000\"] }}\n\
         - {{ name: b, capacity_rps: 6, locality: {{ region: eu, zone: b }}, backends: [\"10.0.0.3:8000\", \"10.0.0.4:8000\"] }}\n\
         - {{ name: far, spare: true, locality: {{ region: us, zone: a }}, backends: [\"10.0.0.9:8000\"] }}\n"
    );
    let mut core = Core::new(Arc::new(config::parse(&text).unwrap()), at(0));
    core.reconcile(at(0));
    core.take(Input::Connected {
        nodes: ["one".to_owned(), "two".to_owned()].into(),
        report_seconds: 2,
        zones: vec![(zone("eu/a"), 1), (zone("eu/b"), 1)],
    })
    .unwrap();
    core
}

fn load(name: &str, second: i64, requests: f64) -> Input {
    let load = ModelLoad { requests, dropped: 0.0, interval_seconds: 2.0 };
    Input::Load(NodeLoad {
        node_id: format!("edge\u{1f}{name}"),
        zone: Some(zone(if name == "one" { "eu/a" } else { "eu/b" })),
        at: at(second),
        models: [("m".to_owned(), load)].into(),
        endpoints: Vec::new(),
        groups: Vec::new(),
    })
}

/// Seconds in which the Envoys report so many requests/s, and so many backends are dead.
fn pass(core: &mut Core, seconds: std::ops::Range<i64>, rps: [f64; 2], dead: &[u8]) -> Vec<DecisionRow> {
    let mut rows = Vec::new();
    for second in seconds {
        for number in [1, 2, 3, 4, 9] {
            if dead.contains(&number) {
                let message = "connection refused".to_owned();
                core.take(Input::Failure { backend: address(number), refused: Some(true), message }).unwrap();
                continue;
            }
            let sample = Sample {
                at: at(second),
                backend: address(number).to_string().into(),
                interval_seconds: 1.0,
                running: Some(2.0),
                queue_depth: Some(0.0),
                arrived: 1.0,
                completed: 1.0,
                prompt_tokens: 500.0,
                output_tokens: 100.0,
                ..Sample::default()
            };
            core.take(Input::Sample { at: at(second), sample: Box::new(sample) }).unwrap();
        }
        if second % 2 == 0 {
            for (name, rps) in ["one", "two"].into_iter().zip(rps) {
                core.take(load(name, second, 2.0 * rps)).unwrap();
            }
        }
        core.take(Input::Tick { at: at(second) + TimeDelta::milliseconds(100) }).unwrap();
        rows.extend(core.effects().into_iter().filter_map(|effect| match effect {
            Effect::Decided(row) if row.kind != "replicas" => Some(*row),
            _ => None,
        }));
    }
    rows
}

fn shares(core: &Core, name: &str) -> BTreeMap<String, f64> {
    let views = core.steering["m"].zone_views();
    let view = views.iter().find(|view| view.zone == name).unwrap();
    view.shares.iter().map(|share| (share.group.clone(), share.share)).collect()
}

fn resources(core: &Core, second: i64) -> Resources {
    let gateway = core.config().gateways().remove(0);
    compile(&Intent { gateway, models: core.intents(true, at(second)), access_log: None })
}

#[test]
fn each_zone_is_told_its_own_shares_and_they_add_up_to_the_laws() {
    let mut core = core("zone_preference: 1");
    pass(&mut core, 0..60, [3.0, 3.0], &[]);
    assert!(shares(&core, "eu/a")["a"] > 0.95, "{:?}", core.steering["m"].zone_views());
    assert!(shares(&core, "eu/b")["b"] > 0.95);
    let view = &core.steering["m"].zone_views()[0];
    assert!(view.rtt_ms < 0.1 && (view.fleet_rtt_ms - 0.5).abs() < 0.05 && view.envoys == 1, "{view:?}");

    // Twice as many requests in one zone as in the other.
    pass(&mut core, 60..160, [4.0, 2.0], &[]);
    let [one, two] = ["eu/a", "eu/b"].map(|name| shares(&core, name));
    let published: BTreeMap<&str, u32> =
        core.steering["m"].published.iter().map(|group| (group.name.as_str(), group.weight)).collect();
    let of_a = f64::from(published["a"]) / 10_000.0;
    let told = one["a"] * 2.0 / 3.0 + two["a"] / 3.0;
    assert!((told - of_a).abs() < 0.03, "{told} for {of_a}: {one:?} {two:?}");
    assert!(one["a"] > 0.7 && two["b"] > 0.95, "{one:?} {two:?}");

    let intents = core.intents(true, at(160));
    assert_eq!(intents[0].views.len(), 2);
    let all = resources(&core, 160);
    let own = compile_zone(&intents, &zone("eu/a"));
    let fleet = all.assignments.iter().find(|assignment| assignment.cluster_name == "m").unwrap();
    assert_eq!(own.len(), 1, "the twin is the same for all");
    assert_ne!(own[0].encode_to_vec(), fleet.encode_to_vec());
    let hosts = |assignment: &envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment| {
        let groups =
            assignment.endpoints.iter().map(|group| (group.locality.clone(), group.lb_endpoints.clone()));
        groups.collect::<Vec<_>>()
    };
    assert_eq!(hosts(&own[0]), hosts(fleet), "only weights differ");
    assert!(compile_zone(&intents, &zone("eu/c")).is_empty());
}

#[test]
fn without_a_preference_nothing_is_different() {
    let mut core = core("");
    let rows = pass(&mut core, 0..60, [4.0, 2.0], &[]);
    assert!(core.intents(true, at(60))[0].views.is_empty() && core.steering["m"].zone_views().is_empty());
    assert!(rows.iter().all(|row| row.inputs.get("zones").is_none()));
}

#[test]
fn every_weight_that_a_zone_was_told_is_made_again_from_its_record() {
    let mut core = core("zone_preference: 0.8");
    let mut records = 0;
    for second in 0..120 {
        let rps = if second < 60 { [3.0, 3.0] } else { [1.0, 5.0] };
        let dead: &[u8] = if second > 90 { &[3] } else { &[] };
        let before = core.steering.get("m").map(Steering::zone_views).unwrap_or_default();
        let rows = pass(&mut core, second..second + 1, rps, dead);
        let now = core.steering["m"].zone_views();
        let weights = |views: &[ZoneView]| views.iter().map(|view| view.shares.clone()).collect::<Vec<_>>();
        let record = rows.iter().find(|row| row.inputs.get("zones").is_some());
        assert!(record.is_some() || weights(&before) == weights(&now), "at {second} without a record");
        let Some(record) = record else { continue };
        records += 1;
        for view in &now {
            let explained = explain_zone(record, &zone(&view.zone)).unwrap();
            for group in &core.steering["m"].published {
                let backend = *group.members.keys().next().unwrap();
                let (weight, of) = explained.weight(backend).unwrap();
                let share = view.shares.iter().find(|share| share.group == group.name).unwrap().share;
                assert!((f64::from(weight) / f64::from(of) - share).abs() < 1e-9, "{record:?}");
            }
            assert_eq!(explained.terms.unwrap().rtt_ms, view.rtt_ms);
        }
        assert!(explain_zone(record, &zone("eu/c")).unwrap().terms.is_none());
        let is_law = record.inputs.get("part").is_none();
        assert_eq!(explain(record).is_ok(), is_law, "{record:?}");
    }
    assert!(records > 5, "{records}");
}

#[test]
fn a_checkpoint_goes_on_with_the_same_bytes() {
    let mut core = core("zone_preference: 1");
    pass(&mut core, 0..45, [4.0, 2.0], &[]);
    let saved = serde_json::to_string(&core.checkpoint()).unwrap();
    let mut again = Core::resume(serde_json::from_str::<Checkpoint<'static>>(&saved).unwrap());
    let (rows, rows_again) =
        (pass(&mut core, 45..90, [2.0, 4.0], &[3]), pass(&mut again, 45..90, [2.0, 4.0], &[3]));
    assert_eq!(rows, rows_again);
    assert!(rows.iter().any(|row| row.inputs.get("zones").is_some()));
    let [one, two] = [&core, &again].map(|core| serde_json::to_string(&core.checkpoint()).unwrap());
    assert_eq!(one, two);
}

#[test]
fn spare_backends_have_no_share_until_no_other_backend_is_left() {
    let mut core = core("");
    let rows = pass(&mut core, 0..30, [3.0, 3.0], &[]);
    assert!(rows.iter().any(|row| row.summary == "1 spare backends stand by"), "{rows:?}");
    let weights = |resources: &Resources| {
        let of = |assignment: &envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment| {
            let weight = |group: &envoy_types::pb::envoy::config::endpoint::v3::LocalityLbEndpoints| {
                let name = group.locality.as_ref().unwrap().sub_zone.clone();
                (name, group.load_balancing_weight.map(|weight| weight.value))
            };
            assignment.endpoints.iter().map(weight).collect::<BTreeMap<_, _>>()
        };
        resources.assignments.iter().map(of).collect::<Vec<_>>()
    };
    for of_cluster in weights(&resources(&core, 30)) {
        assert_eq!(of_cluster["far"], None, "{of_cluster:?}");
        assert!(of_cluster["a"].is_some_and(|weight| weight > 3000), "{of_cluster:?}");
    }
    let input = &core.steering["m"].latest.as_ref().unwrap().backends;
    assert!(input.iter().all(|backend| backend.group != "far"), "the law leaves them out");
    assert!(!core.plans.contains_key("far"), "and so do replica plans");

    pass(&mut core, 30..40, [3.0, 3.0], &[1, 2, 3, 4]);
    let of_cluster = weights(&resources(&core, 40));
    assert!(of_cluster.iter().all(|groups| groups["far"].is_some()), "{of_cluster:?}");
    let draining = core.steering["m"].published.iter().flat_map(|group| group.members.values());
    assert!(draining.clone().count() == 4 && draining.clone().all(|draining| *draining));
    // They are back.
    pass(&mut core, 40..60, [3.0, 3.0], &[]);
    for of_cluster in weights(&resources(&core, 60)) {
        // One that has just started may have a group of its own.
        let mut of_pool = of_cluster.iter().filter(|(name, _)| name.split('/').next() == Some("a"));
        assert!(of_pool.all(|(_, weight)| weight.is_some()), "{of_cluster:?}");
        assert!(of_cluster["far"].is_none() && of_cluster.len() > 1, "{of_cluster:?}");
    }
    // All of them, the spare one, too: what is known may be wrong, so nothing is taken out.
    pass(&mut core, 60..75, [3.0, 3.0], &[1, 2, 3, 4, 9]);
    let draining = core.steering["m"].published.iter().flat_map(|group| group.members.values());
    assert!(draining.clone().any(|draining| !*draining), "{:?}", core.steering["m"].published);
}
