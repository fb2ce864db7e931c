use std::net::SocketAddr;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use prost::Message as _;

use crate::compile::{Intent, Resources, compile, compile_zone};
use crate::config;
use crate::envoy::{ModelLoad, NodeLoad};
use crate::run::control::{Checkpoint, Core, Effect, Input, Order};
use crate::run::database::Memory;
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
fn a_record_from_which_something_else_comes_than_zones_were_told_is_not_explained() {
    let mut core = core("zone_preference: 1");
    let rows = pass(&mut core, 0..60, [4.0, 2.0], &[]);
    let mut row = rows.into_iter().rfind(|row| row.inputs.get("zones").is_some()).unwrap();
    assert_eq!(explain_zone(&row, &zone("eu/a")).err(), None);
    let told = &mut row.inputs["zones"]["told"]["eu/a"][0];
    *told = json!(told.as_u64().unwrap() + 1);
    for name in ["eu/a", "eu/b"] {
        let said = explain_zone(&row, &zone(name)).unwrap_err();
        assert!(said.contains("comes out otherwise"), "{said}");
    }
    row.inputs["zones"].as_object_mut().unwrap().remove("told");
    assert!(explain_zone(&row, &zone("eu/a")).is_ok(), "an older version did not write it down");
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
fn after_a_restart_each_zone_has_its_last_view_at_once() {
    let mut before = core("zone_preference: 1");
    pass(&mut before, 0..60, [4.0, 2.0], &[]);
    let saved = serde_json::to_value(&before.steering["m"]).unwrap();
    let views = |core: &Core, second| -> Vec<(Zone, Vec<u32>)> {
        let intent = core.intents(true, at(second)).remove(0);
        intent.views.into_iter().map(|view| (view.zone, view.weights)).collect()
    };
    let last = views(&before, 60);
    assert_eq!(last.len(), 2);

    let restarted = |age: i64| {
        let mut core = Core::new(Arc::clone(before.config()), at(70));
        core.reconcile(at(70));
        let weights = vec![("m".to_owned(), at(70 - age), saved.clone())];
        core.remember(Memory { weights, ..Memory::default() }, at(70));
        core
    };
    let mut core = restarted(10);
    core.take(Input::Tick { at: at(70) }).unwrap();
    assert!(core.effects().iter().any(|effect| matches!(effect, Effect::Publish)));
    assert_eq!(views(&core, 70), last, "before the first Envoy is there");
    // They come back one after the other, and before they report anything.
    let connected = |zones: &[&str]| Input::Connected {
        nodes: zones.iter().map(|zone| (*zone).to_owned()).collect(),
        report_seconds: 2,
        zones: zones.iter().map(|name| (zone(name), 1)).collect(),
    };
    core.take(connected(&["eu/a"])).unwrap();
    silent(&mut core, 71..85);
    assert_eq!(views(&core, 85), last);
    core.take(connected(&["eu/a", "eu/b"])).unwrap();
    silent(&mut core, 85..120);
    assert_eq!(views(&core, 120), last);

    // One whose Envoys do not come back counts no more after a while.
    let mut alone = restarted(10);
    alone.take(connected(&["eu/a"])).unwrap();
    silent(&mut alone, 71..109);
    assert_eq!(views(&alone, 109).len(), 2);
    silent(&mut alone, 109..112);
    assert!(views(&alone, 112).iter().all(|(left, _)| *left == zone("eu/a")));

    // What is too old is not taken up: all begin by the shares of the fleet.
    let mut old = restarted(301);
    old.take(Input::Tick { at: at(70) }).unwrap();
    assert!(views(&old, 70).is_empty());
}

/// Seconds without any news.
fn silent(core: &mut Core, seconds: std::ops::Range<i64>) {
    for second in seconds {
        core.take(Input::Tick { at: at(second) }).unwrap();
    }
}

#[test]
fn the_law_counts_the_envoys_that_share_a_group() {
    let envoys = |balance: &str| {
        let mut core = core(balance);
        pass(&mut core, 0..40, [3.0, 3.0], &[]);
        let drain = Order::Drain { pool: "b".to_owned(), address: address(4) };
        core.take(Input::Order { at: at(40), order: drain }).unwrap();
        let rows = pass(&mut core, 40..41, [3.0, 3.0], &[]);
        rows.iter().find_map(|row| row.inputs["envoys"].as_u64())
    };
    assert_eq!(envoys(""), Some(2), "both send to all");
    assert_eq!(envoys("zone_preference: 1"), Some(1), "each has groups of its own");
}

type Weights = BTreeMap<String, Option<u32>>;

/// The weights of the groups, as Envoy is told: by predictions and by capacity.
fn told_weights(core: &Core, second: i64) -> [Weights; 2] {
    let resources = resources(core, second);
    let of = |name: &str| {
        let assignment = resources.assignments.iter().find(|one| one.cluster_name == name).unwrap();
        let weight = |group: &envoy_types::pb::envoy::config::endpoint::v3::LocalityLbEndpoints| {
            let name = group.locality.as_ref().unwrap().sub_zone.clone();
            (name, group.load_balancing_weight.map(|weight| weight.value))
        };
        assignment.endpoints.iter().map(weight).collect()
    };
    [of("m"), of("!static/m")]
}

/// The part of the requests that these weights give to the spare group.
fn spare_part(weights: &Weights) -> f64 {
    let sum: u32 = weights.values().flatten().sum();
    f64::from(weights["far"].unwrap_or(0)) / f64::from(sum)
}

fn taking(core: &Core) -> Vec<SocketAddr> {
    let members = core.steering["m"].published.iter().flat_map(|group| &group.members);
    members.filter(|(_, draining)| !**draining).map(|(address, _)| *address).collect()
}

#[test]
fn spare_backends_have_no_share_until_no_other_backend_is_left() {
    let mut core = core("");
    let rows = pass(&mut core, 0..30, [3.0, 3.0], &[]);
    assert!(rows.iter().any(|row| row.summary == "1 spare backends stand by"), "{rows:?}");
    for of_cluster in told_weights(&core, 30) {
        assert_eq!(of_cluster["far"], None, "{of_cluster:?}");
        assert!(of_cluster["a"].is_some_and(|weight| weight > 3000), "{of_cluster:?}");
    }
    let input = &core.steering["m"].latest.as_ref().unwrap().backends;
    assert!(input.iter().all(|backend| backend.group != "far"), "the law leaves them out");
    assert!(!core.plans.contains_key("far"), "and so do replica plans");

    pass(&mut core, 30..40, [3.0, 3.0], &[1, 2, 3, 4]);
    for of_cluster in told_weights(&core, 40) {
        assert!(of_cluster["far"].is_some(), "{of_cluster:?}");
    }
    assert_eq!(core.steering["m"].published.iter().map(|group| group.members.len()).sum::<usize>(), 4);
    assert!(taking(&core).is_empty());
    // All of them, the spare one, too: what is known may be wrong, so nothing is taken out.
    pass(&mut core, 40..55, [3.0, 3.0], &[1, 2, 3, 4, 9]);
    assert!(!taking(&core).is_empty(), "{:?}", core.steering["m"].published);
}

#[test]
fn the_first_backend_that_is_back_is_not_given_everything() {
    let mut core = core("");
    // Four backends of 6 requests/s, of which 5.1 keep the objective.
    let rps = [8.0, 8.0];
    pass(&mut core, 0..60, rps, &[]);
    pass(&mut core, 60..75, rps, &[1, 2, 3, 4]);
    assert!(taking(&core).is_empty());

    // One is back: the others are not believed to be, and it gets a tenth more a second, up to what it serves.
    let mut before = 1.0;
    let mut rows = Vec::new();
    // For long enough to be warm.
    for second in 75..120 {
        rows.extend(pass(&mut core, second..second + 1, rps, &[2, 3, 4]));
        let back = taking(&core);
        assert!(back.is_empty() || back == [address(1)], "{back:?}");
        let parts = told_weights(&core, second).map(|weights| spare_part(&weights));
        for part in parts {
            assert!(back.is_empty() || part > before - 0.105, "at {second}: {part} after {before}");
        }
        assert!(back.is_empty() || (parts[0] - parts[1]).abs() < 0.01, "{parts:?}");
        before = if back.is_empty() { 1.0 } else { parts[0] };
        let shed = &core.intents(true, at(second))[0].lanes;
        assert_eq!((shed.batch_refused, shed.predictive_refused), (0, 0), "at {second}");
    }
    let wanted = 1.0 - core.config().models[0].slo.target_utilisation * 6.0 / 16.0;
    assert!((before - wanted).abs() < 0.04, "{before} for {wanted}");
    let of_spare = |row: &&DecisionRow| row.inputs["part"] == "spare";
    let rows: Vec<&DecisionRow> = rows.iter().filter(of_spare).collect();
    assert!((2..20).contains(&rows.len()), "{rows:?}");
    assert!(rows[0].summary.contains("90 % of the requests: 1 of 4 others are back"), "{}", rows[0].summary);

    // A restart in between goes on from there.
    let saved = serde_json::to_string(&core.checkpoint()).unwrap();
    let again = Core::resume(serde_json::from_str::<Checkpoint<'static>>(&saved).unwrap());
    assert!((spare_part(&told_weights(&again, 120)[0]) - before).abs() < 1e-3);

    // All are back: the spare one stands by as before, after a few seconds.
    for second in 120..150 {
        pass(&mut core, second..second + 1, rps, &[]);
        let part = spare_part(&told_weights(&core, second)[0]);
        assert!(part > before - 0.105 && part <= before + 1e-3, "at {second}: {part} after {before}");
        before = part;
    }
    let back: Vec<SocketAddr> = [1, 2, 3, 4].map(address).to_vec();
    assert_eq!(taking(&core), back);
    for of_cluster in told_weights(&core, 150) {
        assert_eq!(of_cluster["far"], None, "{of_cluster:?}");
        // One that has just started may have a group of its own.
        let of_pool = |pool: &str| -> u32 {
            let groups = of_cluster.iter().filter(|(name, _)| name.split('/').next() == Some(pool));
            groups.filter_map(|(_, weight)| *weight).sum()
        };
        assert_eq!(of_pool("a") + of_pool("b"), 10_000, "{of_cluster:?}");
        assert!(of_pool("a") > 3000 && of_pool("b") > 3000, "{of_cluster:?}");
    }
    // As before the loss, fewer than half are reason for doubt, not for the spare one.
    pass(&mut core, 150..165, rps, &[2, 3, 4]);
    assert_eq!(told_weights(&core, 165)[0]["far"], None);
}
