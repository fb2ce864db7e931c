use std::sync::Arc;

use chrono::TimeDelta;

use crate::compile::{Intent, compile};
use crate::config;
use crate::telemetry::Sample;

use super::super::control::{Core, Effect, Input, Order};
use super::*;

fn at(second: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_700_000_000 + second, 0).unwrap()
}

fn address(number: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, number], 8000))
}

/// A core with three backends in two pools, the second pool three times slower.
fn core() -> Core {
    core_of("")
}

/// The same with further settings of its model.
fn core_of(settings: &str) -> Core {
    let config = config::parse(&format!(
        "models: [{{ name: m, pools: [a, b]{settings} }}]\npools:\n\
         - {{ name: a, capacity_rps: 6, backends: [\"10.0.0.1:8000\", \"10.0.0.2:8000\"] }}\n\
         - {{ name: b, capacity_rps: 2, backends: [\"10.0.0.3:8000\"] }}\n",
    ));
    let mut core = Core::new(Arc::new(config.unwrap()), at(0));
    core.reconcile(at(0));
    core
}

fn sample(number: u8, second: i64) -> Sample {
    Sample {
        at: at(second),
        backend: address(number).to_string().into(),
        interval_seconds: 1.0,
        queue_depth: Some(0.0),
        arrived: 2.0,
        completed: 2.0,
        prompt_tokens: 1000.0,
        output_tokens: 100.0,
        ..Sample::default()
    }
}

/// Seconds in which each backend has so many requests, from one to another.
fn pass(core: &mut Core, seconds: std::ops::Range<i64>, running: f64) {
    for second in seconds {
        for number in 1..=3 {
            let sample = Sample { running: Some(running), ..sample(number, second) };
            core.take(Input::Sample { at: at(second), sample: Box::new(sample) }).unwrap();
        }
        core.take(Input::Tick { at: at(second) + TimeDelta::milliseconds(100) }).unwrap();
    }
}

fn weights(core: &Core) -> Vec<(&str, u32)> {
    core.steering["m"].published.iter().map(|group| (group.name.as_str(), group.weight)).collect()
}

#[test]
fn weights_add_up_and_start_at_capacity() {
    let mut core = core();
    pass(&mut core, 0..1, 2.0);
    assert_eq!(weights(&core), [("a", 8571), ("b", 1429)], "six, six and two");
    pass(&mut core, 1..60, 2.0);
    assert_eq!(weights(&core).iter().map(|(_, weight)| weight).sum::<u32>(), 10_000);
    let drain = Order::Drain { pool: "b".to_owned(), address: address(3) };
    core.take(Input::Order { at: at(60), order: drain }).unwrap();
    pass(&mut core, 60..62, 2.0);
    assert_eq!(weights(&core), [("a", 9999), ("b", 1)], "one that drains takes nothing");
}

#[test]
fn one_that_is_dead_keeps_its_place_until_streams_have_had_time_to_end() {
    let mut core = core();
    pass(&mut core, 0..10, 2.0);
    let place = |core: &Core| {
        let groups = &core.steering["m"].published;
        groups.iter().find_map(|group| group.members.get(&address(2)).copied())
    };
    assert_eq!(place(&core), Some(false));
    for second in 10..60 {
        for number in [1, 3] {
            let sample = Sample { running: Some(2.0), ..sample(number, second) };
            core.take(Input::Sample { at: at(second), sample: Box::new(sample) }).unwrap();
        }
        core.fleet.observe_failure(address(2), Some(true), "refused".to_owned());
        core.take(Input::Tick { at: at(second) + TimeDelta::milliseconds(100) }).unwrap();
        match second {
            15..40 => assert_eq!(place(&core), Some(true), "{second}"),
            45.. => assert_eq!(place(&core), None, "{second}"),
            _ => {}
        }
    }
    pass(&mut core, 60..62, 2.0);
    assert_eq!(place(&core), Some(false), "it is back");
}

#[test]
fn a_decision_has_all_that_it_was_made_from() {
    let mut core = core();
    pass(&mut core, 0..30, 2.0);
    let before = core.steering["m"].state.clone();
    let decision = core.steering["m"].latest.clone().unwrap();
    assert_eq!(decision.state, before);
    let terms = decision.backends[2].terms;
    assert!(terms.trust == 1.0 && terms.in_flight.is_some() && terms.capacity_rps == 2.0, "{terms:?}");
    core.effects();
    let gone = Order::Drain { pool: "b".to_owned(), address: address(3) };
    core.take(Input::Order { at: at(31), order: gone }).unwrap();
    let row = core.effects().into_iter().find_map(|effect| match effect {
        Effect::Decided(row) if row.kind == "membership" => Some(row),
        _ => None,
    });
    let mut inputs = row.unwrap().inputs;
    let law: Law = serde_json::from_value(inputs["law"].take()).unwrap();
    let previous: WeightState = serde_json::from_value(inputs["previous"].take()).unwrap();
    let model = serde_json::from_value(inputs).unwrap();
    let again = decide_weights(&model, &previous, &law, at(31));
    assert_eq!(Some(again), core.steering["m"].latest, "the same again from what was stored");
}

#[test]
fn decisions_of_a_canary_are_made_again_for_the_part_that_it_steers() {
    // Two requests in flight are many enough for groups, and the tenth of them that is steered is not.
    for (settings, form) in
        [("", "groups"), (", rung: canary, canary: { share: 0.1, by: requests }", "endpoints")]
    {
        let mut core = core_of(settings);
        pass(&mut core, 0..60, 2.0);
        let gone = Order::Drain { pool: "a".to_owned(), address: address(2) };
        core.take(Input::Order { at: at(61), order: gone }).unwrap();
        let rows: Vec<_> = core.effects().into_iter().filter_map(decided).collect();
        assert_eq!(rows.last().unwrap().inputs["form"], form);
        for row in rows {
            assert_eq!(explain::explain(&row).err(), None, "{settings}: {}", row.summary);
        }
    }
}

#[test]
fn decisions_of_other_policies_are_read_from_their_records() {
    for (policy, parts) in
        [("round_robin", [1.0 / 3.0; 3]), ("weighted_round_robin", [3.0 / 7.0, 3.0 / 7.0, 1.0 / 7.0])]
    {
        let mut core = core_of(&format!(", balance: {{ policy: {policy} }}"));
        pass(&mut core, 0..10, 2.0);
        let row = core.effects().into_iter().find_map(decided).unwrap();
        let Explanation::Recorded(recorded) = explain::explain(&row).unwrap() else { panic!("{policy}") };
        assert_eq!(recorded.policy_name(), policy);
        for (number, part) in (1..).zip(parts) {
            let expected = recorded.expected(address(number)).unwrap();
            assert!((expected - part).abs() < 1e-3, "{policy}, {number}: {expected}");
            assert!(recorded.reason(address(number)).is_some());
        }
        let place = recorded.part(address(3)).unwrap();
        assert_eq!((place.group, place.of, place.members), ("b", WEIGHTS, 1));
        assert!((f64::from(place.weight) / f64::from(WEIGHTS) - parts[2]).abs() < 1e-3, "{place:?}");

        let gone = Order::Drain { pool: "b".to_owned(), address: address(3) };
        core.take(Input::Order { at: at(10), order: gone }).unwrap();
        let row = core.effects().into_iter().filter_map(decided).next_back().unwrap();
        let Explanation::Recorded(recorded) = explain::explain(&row).unwrap() else { panic!("{policy}") };
        assert_eq!((recorded.expected(address(3)), recorded.expected(address(9))), (None, None));
        assert!(recorded.part(address(3)).is_some() && recorded.part(address(9)).is_none());
        assert_eq!(recorded.reason(address(3)), Some("takes no new requests"));
    }
}

fn decided(effect: Effect) -> Option<crate::store::DecisionRow> {
    match effect {
        Effect::Decided(row) if matches!(row.kind.as_ref(), "membership" | "weights") => Some(*row),
        _ => None,
    }
}

#[test]
fn endpoints_have_weights_only_where_they_are_told_apart() {
    let mut core = core();
    pass(&mut core, 0..2, 2.0);
    let config = Arc::clone(core.config());
    let told = |steering: &Steering| {
        let intent = Intent {
            gateway: config.gateways().remove(0),
            models: vec![steering.intent(&config.models[0], &config)],
            access_log: None,
        };
        let groups = compile(&intent).assignments.remove(0).endpoints.into_iter();
        let endpoints = groups.flat_map(|group| group.lb_endpoints);
        endpoints
            .map(|endpoint| endpoint.load_balancing_weight.map(|weight| weight.value))
            .collect::<Vec<_>>()
    };
    let mut steering = core.steering["m"].clone();
    assert_eq!(told(&steering), [None; 3]);
    let mut decision = steering.latest.clone().unwrap();
    decision.form = Form::Endpoints;
    steering.published = groups(&decision, &BTreeMap::new());
    let weights: Vec<u32> = told(&steering).into_iter().flatten().collect();
    assert!(weights.len() == 3 && weights.iter().sum::<u32>() == 100_000, "{weights:?}");
}
