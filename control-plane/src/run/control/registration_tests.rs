use std::net::SocketAddr;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};

use super::*;
use crate::discovery::{Answer, Looked};
use crate::fleet::FleetError;

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_700_000_000 + seconds, 0).unwrap()
}

fn address(number: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, number], 8000))
}

fn core() -> Core {
    let config = crate::config::parse(
        "models: [{ name: m, pools: [a] }]\npools:\n- name: a\n  backends: [\"10.0.0.1:8000\"]\n  max_registered: 2\n  \
         discovery: { dns: { name: a.internal., type: a, port: 8000 } }\n",
    )
    .unwrap();
    let mut core = Core::new(Arc::new(config), at(0));
    core.reconcile(at(0));
    core.effects();
    core
}

/// Warnings and errors, and outcomes of registrations, since the last look.
fn told(core: &mut Core) -> (Vec<String>, Vec<&'static str>) {
    let (mut notes, mut outcomes) = (Vec::new(), Vec::new());
    for effect in core.effects() {
        match effect {
            Effect::Note("warning" | "error", message) => notes.push(message),
            Effect::Count(Counted::Registration(pool, outcome)) => {
                assert!(pool == "a" || outcome == "not_found", "{pool}");
                outcomes.push(outcome);
            }
            _ => {}
        }
    }
    (notes, outcomes)
}

fn order(core: &mut Core, order: Order, seconds: i64) -> Result<(), FleetError> {
    core.take(Input::Order { at: at(seconds), order }).map(drop)
}

fn register(pool: &str, address: SocketAddr) -> Order {
    Order::Register { pool: pool.to_owned(), address }
}

fn lease(address: SocketAddr) -> Order {
    Order::Lease { pool: "a".to_owned(), address, length: TimeDelta::seconds(600) }
}

#[test]
fn a_pool_has_no_more_registered_backends_than_it_may_have() {
    let mut core = core();
    assert_eq!(order(&mut core, register("a", address(2)), 0), Ok(()));
    assert_eq!(order(&mut core, lease(address(3)), 0), Ok(()));
    let full = Err(FleetError::Full { pool: "a".to_owned(), limit: 2 });
    assert_eq!(order(&mut core, register("a", address(4)), 0), full);
    assert_eq!(order(&mut core, lease(address(4)), 0), full);
    // Those that are there are renewed all the same, and one of the file takes no place.
    assert_eq!(order(&mut core, lease(address(3)), 1), Ok(()));
    assert_eq!(order(&mut core, register("a", address(1)), 1), Ok(()));
    let elsewhere = order(&mut core, register("made-up", address(4)), 1);
    assert_eq!(elsewhere, Err(FleetError::NoSuchPool("made-up".to_owned())));
    let (notes, outcomes) = told(&mut core);
    assert_eq!(outcomes, ["new", "new", "full", "full", "renewed", "new", "not_found"]);
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(notes[0].contains("max_registered"), "{notes:?}");
    // One that drains still takes a place, until it is gone.
    let gone = Order::Remove { pool: "a".to_owned(), address: address(2) };
    assert_eq!(order(&mut core, gone, 2), Ok(()));
    assert_eq!(order(&mut core, register("a", address(4)), 2), full);
    let _ = core.take(Input::Tick { at: at(100) });
    assert_eq!(order(&mut core, register("a", address(4)), 101), Ok(()));
}

#[test]
fn refused_registrations_do_not_crowd_out_other_events() {
    let mut core = core();
    let outside: SocketAddr = "8.8.8.8:53".parse().unwrap();
    for round in 0..1000 {
        assert!(order(&mut core, register("a", outside), round / 100).is_err());
    }
    let (notes, outcomes) = told(&mut core);
    assert_eq!((notes.len(), outcomes.len()), (1, 1000), "{notes:?}");
    assert!(order(&mut core, register("a", outside), 61).is_err());
    let (notes, _) = told(&mut core);
    assert!(notes.len() == 1 && notes[0].contains("999 others"), "{notes:?}");
}

#[test]
fn what_dns_has_beyond_the_bound_is_told_once() {
    let mut core = core();
    let asked = core.config.pools[0].dns().unwrap().clone();
    for (beyond, events) in [(7, 1), (9, 0), (0, 0), (3, 1)] {
        let answer = Answer::Backends([address(5)].into());
        let looked = Looked { pool: "a".to_owned(), asked: asked.clone(), answer, beyond };
        let _ = core.take(Input::Looked { at: at(1), looked });
        let effects = core.effects();
        let of_bound =
            |effect: &&Effect| matches!(effect, Effect::Note("error", message) if message.contains("10000"));
        assert_eq!(effects.iter().filter(of_bound).count(), events, "{beyond}");
        let counted = |effect: &&Effect| matches!(effect, Effect::Count(Counted::Looked(_, "too_many")));
        assert_eq!(effects.iter().filter(counted).count(), usize::from(beyond > 0));
    }
}
