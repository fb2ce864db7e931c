use std::net::SocketAddr;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;

use crate::fleet::Membership;
use crate::run::database::Memory;
use crate::run::journal::Entry;
use crate::store::{RegisteredBackend, RegisteredState};

use super::*;

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_700_000_000 + seconds, 0).unwrap()
}

fn address(number: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, number], 8000))
}

fn core() -> Core {
    let config = crate::config::parse(
        "models: [{ name: m, pools: [a] }]\npools:\n- name: a\n  backends: [\"10.0.0.1:8000\"]\n",
    )
    .unwrap();
    let mut core = Core::new(Arc::new(config), at(0));
    core.reconcile(at(0));
    core.effects();
    core
}

fn order(core: &mut Core, order: Order, seconds: i64) {
    core.take(Input::Order { at: at(seconds), order }).unwrap();
}

fn register(number: u8) -> Order {
    Order::Register { pool: "a".to_owned(), address: address(number) }
}

fn lease(number: u8) -> Order {
    Order::Lease { pool: "a".to_owned(), address: address(number), length: TimeDelta::seconds(600) }
}

fn drain(number: u8) -> Order {
    Order::Drain { pool: "a".to_owned(), address: address(number) }
}

fn remove(number: u8) -> Order {
    Order::Remove { pool: "a".to_owned(), address: address(number) }
}

/// What was journaled of members since the last look, in order.
fn journaled(core: &mut Core) -> Vec<String> {
    let entry = |effect: Effect| match effect {
        Effect::Journal(Entry::Registered { address, state, .. }) => Some(format!("{address} {state:?}")),
        Effect::Journal(Entry::Unregistered { address, .. }) => Some(format!("{address} gone")),
        Effect::Journal(Entry::ModelState { kind: MEMBERSHIP, state, .. }) => {
            Some(format!("leases {}", state["leases"]))
        }
        _ => None,
    };
    core.effects().into_iter().filter_map(entry).collect()
}

#[test]
fn a_drain_of_a_backend_that_leaves_brings_it_back_nowhere() {
    let mut core = core();
    order(&mut core, register(2), 0);
    order(&mut core, remove(2), 1);
    core.effects();
    order(&mut core, drain(2), 2);
    assert_eq!(journaled(&mut core), [""; 0]);
    let leaves = Membership::Leaving { since: at(1) };
    assert_eq!(core.fleet.backend(address(2)).unwrap().membership, leaves);
    // The same after the end of a lease.
    order(&mut core, lease(3), 2);
    let _ = core.take(Input::Tick { at: at(700) });
    assert!(journaled(&mut core).contains(&"10.0.0.3:8000 gone".to_owned()));
    order(&mut core, drain(3), 701);
    assert_eq!(journaled(&mut core), [""; 0]);
}

#[test]
fn a_lease_is_journaled_before_its_backend() {
    let mut core = core();
    order(&mut core, lease(2), 0);
    let expected = ["leases {\"10.0.0.2:8000\":600.0}", "10.0.0.2:8000 Ready"];
    assert_eq!(journaled(&mut core), expected);
    order(&mut core, register(2), 1);
    assert_eq!(journaled(&mut core), ["leases {}", "10.0.0.2:8000 Ready"]);
    order(&mut core, remove(2), 2);
    assert_eq!(journaled(&mut core), ["10.0.0.2:8000 gone", "leases {}"]);
}

#[test]
fn orders_since_the_start_count_for_more_than_what_the_last_run_left() {
    let mut core = core();
    order(&mut core, register(2), 1);
    order(&mut core, lease(3), 1);
    order(&mut core, lease(4), 1);
    order(&mut core, register(5), 1);
    order(&mut core, remove(5), 2);
    let _ = core.take(Input::Tick { at: at(500) });
    assert!(core.fleet.backend(address(5)).is_none(), "its drain time is over");
    core.effects();
    let row = |number: u8, state: RegisteredState| RegisteredBackend {
        pool: "a".to_owned(),
        address: address(number).to_string(),
        state,
        registered_at: at(-100),
        updated_at: at(-100),
    };
    let registered = vec![
        row(2, RegisteredState::Draining),
        row(3, RegisteredState::Ready),
        row(4, RegisteredState::Draining),
        row(5, RegisteredState::Ready),
        row(6, RegisteredState::Draining),
        row(7, RegisteredState::Ready),
    ];
    let leases = json!({ "leases": { "10.0.0.2:8000": 60.0, "10.0.0.3:8000": 60.0, "10.0.0.7:8000": 60.0 } });
    let memory = Memory { registered, membership: vec![("a".to_owned(), leases)], ..Memory::default() };
    core.remember(memory, at(501));
    let backend = |number: u8| core.fleet.backend(address(number)).unwrap();
    let seconds = |number: u8| backend(number).lease.map(|lease| lease.length.num_seconds());
    assert_eq!(backend(2).membership, Membership::Active, "an operator registered it meanwhile");
    assert_eq!(seconds(2), None);
    assert_eq!(backend(3).membership, Membership::Active);
    assert_eq!(seconds(3), Some(600), "its owner renewed it meanwhile");
    assert!(backend(4).is_draining(), "who renews a lease is not who took it out of service");
    assert_eq!(seconds(4), Some(600));
    assert!(core.fleet.backend(address(5)).is_none(), "an operator removed it meanwhile");
    assert!(backend(6).is_draining());
    assert_eq!((backend(7).membership, seconds(7)), (Membership::Active, Some(60)));
    let leases = "leases {\"10.0.0.3:8000\":600.0,\"10.0.0.4:8000\":600.0,\"10.0.0.7:8000\":60.0}";
    assert_eq!(journaled(&mut core), ["10.0.0.4:8000 Draining", leases]);
}

#[test]
fn a_restart_has_the_profile_of_each_pool_at_once() {
    let mut core = core();
    let iteration_seconds = |running: f64, prompts: f64| 0.01 + 0.000_2 * running + 0.000_05 * prompts;
    let mut saved = Vec::new();
    for second in 1..120 {
        let running = f64::from(i32::try_from(second * 7 % 40).unwrap() + 1);
        let prompts = f64::from(i32::try_from(second * 13 % 50).unwrap());
        let seconds = iteration_seconds(running, prompts);
        let sample = crate::telemetry::Sample {
            at: at(second),
            backend: "10.0.0.1:8000".into(),
            interval_seconds: 1.0,
            running: Some(running),
            iterations: 1.0 / seconds,
            iteration_tokens: (running + prompts) / seconds,
            output_tokens: running / seconds,
            inter_token_seconds: Some(seconds),
            ..Default::default()
        };
        core.take(Input::Sample { at: at(second), sample: Box::new(sample) }).unwrap();
        core.take(Input::Tick { at: at(second) }).unwrap();
        let of_profile = |effect: Effect| match effect {
            Effect::Journal(Entry::ModelState { kind: PROFILE, key, state, .. }) => Some((key, state)),
            _ => None,
        };
        saved.extend(core.effects().into_iter().filter_map(of_profile));
    }
    assert_eq!(saved.len(), 2, "once a minute");
    let profile = |core: &Core| core.fleet.backend(address(1)).unwrap().profile();
    let last = profile(&core).unwrap();
    assert!((last.fixed_seconds / 0.01 - 1.0).abs() < 0.1, "{last:?}");

    let mut next = self::core();
    assert_eq!(profile(&next), None);
    let memory = Memory { profiles: vec![saved.pop().unwrap()], ..Memory::default() };
    next.remember(memory, at(200));
    let inherited = profile(&next).unwrap();
    let ratio = inherited.iteration_seconds(20.0, 30.0, 0.0) / iteration_seconds(20.0, 30.0);
    assert!((0.9..1.1).contains(&ratio), "{inherited:?}");
    next.take(Input::Tick { at: at(201) }).unwrap();
    assert!(profile(&next).is_some());
    next.effects();

    let other = json!({ "version": 99, "profile": saved[0].1["profile"] });
    let mut refusing = self::core();
    refusing.remember(Memory { profiles: vec![("a".to_owned(), other)], ..Memory::default() }, at(200));
    assert_eq!(profile(&refusing), None, "saved by another version");
}
