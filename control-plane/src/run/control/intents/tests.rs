use std::net::SocketAddr;
use std::sync::Arc;

use chrono::TimeDelta;
use prost::Message;

use crate::compile::{Intent, Resources, compile};
use crate::run::control::{Effect, Input};
use crate::telemetry::Sample;

use super::*;

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_700_000_000, 0).unwrap() + TimeDelta::seconds(seconds)
}

fn core(rung: &str) -> Core {
    let text = format!(
        "models: [{{ name: m, pools: [a, b], rung: {rung} }}]\n\
         pools:\n\
         - {{ name: a, capacity_rps: 3, backends: [\"10.0.0.1:8000\", \"10.0.0.2:8000\"] }}\n\
         - {{ name: b, capacity_rps: 2, backends: [\"10.0.1.1:8000\"] }}\n"
    );
    let mut core = Core::new(Arc::new(crate::config::parse(&text).unwrap()), at(0));
    core.reconcile(at(0));
    core.take(Input::Tick { at: at(0) }).unwrap();
    core
}

/// Decides that the first backend runs alone, with nearly all requests, and that all may rely on it.
fn predict(core: &mut Core) {
    let first = SocketAddr::from(([10, 0, 0, 1], 8000));
    let steering = core.steering.get_mut("m").unwrap();
    for group in &mut steering.published {
        group.weight = 1;
        group.members.remove(&first);
    }
    let alone = PublishedGroup {
        name: format!("a/{first}"),
        pool: "a".to_owned(),
        weight: 9_998,
        members: BTreeMap::from([(first, false)]),
        endpoint_weights: BTreeMap::new(),
    };
    steering.published.push(alone);
    core.reliance.get_mut("m").unwrap().percent = 100;
}

fn resources(core: &Core) -> Resources {
    let gateway = core.config.gateways().remove(0);
    compile(&Intent { gateway, models: core.intents(true, at(0)), access_log: None })
}

/// All that Envoys would be sent, byte for byte.
fn bytes(core: &Core) -> Vec<Vec<u8>> {
    let Resources { listener, routes, clusters, assignments, runtime } = resources(core);
    let mut all = vec![listener.encode_to_vec(), routes.encode_to_vec(), runtime.encode_to_vec()];
    all.extend(clusters.iter().map(Message::encode_to_vec));
    all.extend(assignments.iter().map(Message::encode_to_vec));
    all
}

fn weights(core: &Core, of: impl Fn(&ModelIntent) -> &Vec<GroupIntent>) -> Vec<(String, u32, usize)> {
    let intents = core.intents(true, at(0));
    let groups = of(&intents[0]).iter();
    groups.map(|group| (group.name.clone(), group.weight, group.endpoints.len())).collect()
}

#[test]
fn nothing_that_is_predicted_reaches_an_envoy_on_shadow_and_advise() {
    // One that never predicts anything: capacity shares, and nobody is to rely on more.
    let still = bytes(&core("shadow"));
    for rung in ["shadow", "advise"] {
        let mut core = core(rung);
        predict(&mut core);
        assert_eq!(bytes(&core), still, "{rung}");
    }
    let mut enforced = core("enforce");
    assert_eq!(bytes(&enforced), still, "before it may be relied on, and without predictions");
    predict(&mut enforced);
    assert_ne!(bytes(&enforced), still);
    let steered = resources(&enforced).runtime.layer.unwrap().fields.len();
    assert_eq!(steered, 1);
}

#[test]
fn who_takes_requests_is_recorded_as_told_by_capacity_on_shadow_and_advise() {
    for (rung, by_capacity_on) in [("shadow", Some("shadow")), ("advise", Some("advise")), ("enforce", None)]
    {
        let mut core = core(rung);
        let joined = core.effects().into_iter().find_map(|effect| match effect {
            Effect::Decided(row) if row.kind == "membership" => Some(row),
            _ => None,
        });
        assert_eq!(joined.unwrap().by_capacity_on(), by_capacity_on, "{rung}");
        let assignments = resources(&core).assignments;
        let own = assignments.iter().find(|assignment| assignment.cluster_name == "m").unwrap();
        assert_eq!(own.endpoints.iter().map(|group| group.lb_endpoints.len()).sum::<usize>(), 3, "{rung}");
    }
}

#[test]
fn a_canary_steers_its_share() {
    let mut core = core("canary, canary: { share: 0.25 }");
    predict(&mut core);
    assert_eq!(core.intents(true, at(0))[0].predictive_percent, 25);
    assert_eq!(core.intents(false, at(0))[0].predictive_percent, 0, "it is about to end");
    assert_eq!(core.intents(true, at(5))[0].predictive_percent, 0, "nothing was decided for long");
}

#[test]
fn static_shares_are_by_capacity_whatever_the_groups() {
    let mut core = core("enforce");
    let by_capacity = [("a".to_owned(), 7500, 2), ("b".to_owned(), 2500, 1)];
    assert_eq!(weights(&core, |intent| &intent.static_groups), by_capacity);
    predict(&mut core);
    assert_eq!(weights(&core, |intent| &intent.static_groups), by_capacity);
    assert_eq!(weights(&core, |intent| &intent.groups).len(), 3);
    // One that drains is told to both, and its capacity goes with it.
    let drained = SocketAddr::from(([10, 0, 0, 2], 8000));
    for group in &mut core.steering.get_mut("m").unwrap().published {
        group.members.entry(drained).and_modify(|draining| *draining = true);
    }
    let left = [("a".to_owned(), 6000, 2), ("b".to_owned(), 4000, 1)];
    assert_eq!(weights(&core, |intent| &intent.static_groups), left);
}

#[test]
fn telemetry_that_goes_stale_is_told_once_and_published() {
    let mut core = core("enforce");
    core.effects();
    core.take(Input::Connected { nodes: ["envoy".to_owned()].into(), report_seconds: 2, zones: Vec::new() })
        .unwrap();
    predict(&mut core);
    core.take(Input::Tick { at: at(1) }).unwrap();
    let effects = core.effects();
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Publish)));
    let notes: Vec<_> =
        effects.iter().filter(|effect| matches!(effect, Effect::Note("warning", _))).collect();
    assert!(format!("{notes:?}").contains("0 of 3 backends is fresh"), "{notes:?}");
    assert_eq!(core.intents(true, at(1))[0].predictive_percent, 0);
    core.take(Input::Tick { at: at(2) }).unwrap();
    assert!(!core.effects().iter().any(|effect| matches!(effect, Effect::Note("warning", _))));
}

#[test]
fn predicted_waits_that_are_late_take_nothing_from_what_steers() {
    let mut core = core("enforce");
    core.take(Input::Connected { nodes: ["envoy".to_owned()].into(), report_seconds: 2, zones: Vec::new() })
        .unwrap();
    let addresses: Vec<SocketAddr> = core.fleet.backends().map(|backend| backend.address).collect();
    let mut percents = Vec::new();
    for second in 1..30 {
        for address in &addresses {
            let sample = Sample {
                at: at(second),
                backend: address.to_string().into(),
                interval_seconds: 1.0,
                ..Sample::default()
            };
            core.take(Input::Sample { at: at(second), sample: Box::new(sample) }).unwrap();
        }
        core.take(Input::Tick { at: at(second) }).unwrap();
        percents.push(core.intents(true, at(second))[0].predictive_percent);
    }
    assert_eq!(percents[4..16], [0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 100]);
    // Nothing was ever predicted here, and nothing of it is missed.
    assert_eq!(percents.last(), Some(&100));
}
