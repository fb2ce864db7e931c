use chrono::{DateTime, TimeDelta, Utc};

use crate::config;
use crate::envoy::{BackendLog, LogSummary};
use crate::telemetry::Sample;

use super::{Expiry, Fleet, FleetError, Health, Membership, Origin, Registration};

fn at(seconds: f64) -> DateTime<Utc> {
    DateTime::<Utc>::UNIX_EPOCH + TimeDelta::milliseconds((1_000_000.0 * 1000.0 + seconds * 1000.0) as i64)
}

fn sample(seconds: f64, arrived: f64) -> Sample {
    Sample {
        at: at(seconds),
        backend: "127.0.0.1:1".into(),
        interval_seconds: 1.0,
        queue_depth: Some(0.0),
        running: Some(1.0),
        arrived,
        completed: arrived,
        output_tokens: 2.0 * arrived,
        ..Sample::default()
    }
}

fn config(backends: &str) -> config::Config {
    let text =
        format!("models: [{{ name: m, pools: [p] }}]\npools: [{{ name: p, backends: [{backends}] }}]\n");
    config::parse(&text).unwrap()
}

#[test]
fn a_backend_that_leaves_the_configuration_drains_before_it_is_gone() {
    let mut fleet = Fleet::default();
    fleet.reconcile(&config("\"127.0.0.1:1\", \"127.0.0.1:2\""), at(0.0));
    fleet.reconcile(&config("\"127.0.0.1:1\""), at(1.0));
    let leaving = fleet.backend("127.0.0.1:2".parse().unwrap()).unwrap();
    assert!(matches!(leaving.membership, Membership::Leaving { .. }));
    assert!(fleet.sweep(30.0, at(30.0)).is_empty());
    assert_eq!(fleet.sweep(30.0, at(31.0)).len(), 1);
    assert_eq!(fleet.backends().count(), 1);
}

#[test]
fn a_configured_backend_that_was_removed_stays_away_until_it_is_registered_or_configured_anew() {
    let (with, without) = (config("\"127.0.0.1:1\", \"127.0.0.1:2\""), config("\"127.0.0.1:1\""));
    let address = "127.0.0.1:2".parse().unwrap();
    let is_active = |fleet: &Fleet| {
        fleet.backend(address).is_some_and(|backend| backend.membership == Membership::Active)
    };
    let mut fleet = Fleet::default();
    fleet.reconcile(&with, at(0.0));
    let remove = |fleet: &mut Fleet| {
        fleet.remove("p", address, at(1.0)).unwrap();
        fleet.reconcile(&with, at(2.0));
        assert!(!is_active(fleet), "not while it drains");
        fleet.sweep(30.0, at(40.0));
        fleet.reconcile(&with, at(41.0));
        assert!(fleet.backend(address).is_none(), "not afterwards");
    };
    remove(&mut fleet);
    fleet.register(&with, "p", address, at(42.0)).unwrap();
    assert!(is_active(&fleet));
    remove(&mut fleet);
    fleet.reconcile(&without, at(43.0));
    fleet.reconcile(&with, at(44.0));
    assert!(is_active(&fleet));
}

#[test]
fn a_registered_backend_survives_a_reload_and_can_come_back_from_draining() {
    let mut fleet = Fleet::default();
    let config = config("\"127.0.0.1:1\"");
    let address = "127.0.0.1:7".parse().unwrap();
    fleet.reconcile(&config, at(0.0));
    fleet.register(&config, "p", address, at(1.0)).unwrap();
    fleet.reconcile(&config, at(2.0));
    assert_eq!(fleet.backend(address).unwrap().membership, Membership::Active);
    fleet.drain("p", address, at(3.0)).unwrap();
    fleet.reconcile(&config, at(4.0));
    assert_eq!(fleet.backend(address).unwrap().membership, Membership::Draining { since: at(3.0) });
    fleet.register(&config, "p", address, at(5.0)).unwrap();
    assert_eq!(fleet.backend(address).unwrap().membership, Membership::Active);
    let missing = fleet.drain("nowhere", address, at(6.0)).unwrap_err();
    assert_eq!(missing, FleetError::NoSuchBackend { pool: "nowhere".to_owned(), address });
}

#[test]
fn health_follows_the_telemetry() {
    let mut fleet = Fleet::default();
    fleet.reconcile(&config("\"127.0.0.1:1\""), at(0.0));
    let address = "127.0.0.1:1".parse().unwrap();
    let health = |fleet: &Fleet, now| fleet.backend(address).unwrap().health(at(now));
    assert_eq!(health(&fleet, 0.0), Health::Waiting);
    assert!(!fleet.backend(address).unwrap().is_eligible(at(1.0)));
    assert!(fleet.backend(address).unwrap().is_eligible(at(16.0)), "metrics may be out of reach for ever");
    assert!(fleet.observe(address, sample(1.0, 3.0), at(1.0)));
    assert_eq!(health(&fleet, 2.0), Health::Ready);
    assert_eq!(health(&fleet, 7.0), Health::Stale);
    for _ in 0..3 {
        fleet.observe_failure(address, Some(true), "connection refused".to_owned());
    }
    assert_eq!(health(&fleet, 2.0), Health::Down);
}

#[test]
fn a_backend_that_ceases_to_push_is_down_until_it_pushes_again() {
    let text = "telemetry: { push: { http: 127.0.0.1:4318 } }\nmodels: [{ name: m, pools: [p, q] }]\npools:\n\
                - { name: p, telemetry: push, backends: [\"127.0.0.1:1\"] }\n\
                - { name: q, backends: [\"127.0.0.1:2\"] }\n";
    let mut fleet = Fleet::default();
    fleet.reconcile(&config::parse(text).unwrap(), at(0.0));
    let [pushes, is_scraped] = ["127.0.0.1:1", "127.0.0.1:2"].map(|address| address.parse().unwrap());
    let of = |fleet: &Fleet, address, now| fleet.backend(address).unwrap().health(at(now));
    assert_eq!(of(&fleet, pushes, 100.0), Health::Waiting, "it has never pushed");
    // A sender's clock that is 20 s behind makes its samples old, not its backend dead.
    for second in [100.0, 101.0] {
        fleet.observe(pushes, sample(second - 20.0, 1.0), at(second));
        fleet.observe(is_scraped, sample(second, 1.0), at(second));
    }
    assert_eq!(of(&fleet, pushes, 116.0), Health::Stale);
    assert_eq!(of(&fleet, pushes, 116.5), Health::Down);
    assert_eq!(of(&fleet, is_scraped, 1000.0), Health::Stale, "silence of a page says nothing");
    let backend = fleet.backend(pushes).unwrap();
    assert!(!backend.is_eligible(at(116.5)));
    assert_eq!(backend.trouble(at(121.0)).unwrap(), "no telemetry has been pushed for 20 s");
    assert_eq!(backend.trouble(at(116.0)), None);
    fleet.observe(pushes, sample(130.0, 1.0), at(130.0));
    assert_eq!(of(&fleet, pushes, 130.0), Health::Ready);

    // One that pushes once a minute may be silent for three.
    fleet.observe(pushes, Sample { interval_seconds: 60.0, ..sample(190.0, 1.0) }, at(190.0));
    assert_eq!(of(&fleet, pushes, 370.0), Health::Stale);
    assert_eq!(of(&fleet, pushes, 370.5), Health::Down);
    // Envoys tell that it answers: then its sender is what has failed.
    let log = BackendLog { requests: 3.0, errors: 1.0, ..BackendLog::default() };
    fleet.observe_log(&LogSummary { backends: [(pushes, log)].into(), ..LogSummary::default() }, at(400.0));
    assert_eq!(of(&fleet, pushes, 400.0), Health::Stale);
    let text = text.replace("telemetry: push,", "");
    fleet.reconcile(&config::parse(&text).unwrap(), at(1000.0));
    assert_eq!(of(&fleet, pushes, 1000.0), Health::Stale, "it is scraped from now on");
}

#[test]
fn backends_that_tell_of_themselves_in_their_answers_may_be_idle() {
    let addresses = ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3", "127.0.0.1:4"];
    let of = |pool: &str| {
        let text = format!(
            "telemetry: {{ push: {{ http: 127.0.0.1:4318 }} }}\nmodels: [{{ name: m, pools: [p] }}]\n\
             pools: [{{ name: p, {pool}backends: {addresses:?} }}]\n"
        );
        config::parse(&text).unwrap()
    };
    let config = of("telemetry: push, orca: { queue_depth: named_metrics.waiting }, ");
    let mut fleet = Fleet::default();
    // Scrapes were refused before the pool's answers were read.
    fleet.reconcile(&of(""), at(-10.0));
    let all = addresses.map(|address| address.parse().unwrap());
    for _ in 0..3 {
        fleet.observe_failure(all[0], Some(true), "connection refused".to_owned());
    }
    fleet.reconcile(&config, at(0.0));
    for (second, told) in [(0.0, &all[..]), (2.0, &all[..]), (22.0, &all[..2]), (24.0, &all[..2])] {
        let states: Vec<Health> = fleet.backends().map(|backend| backend.health(at(second))).collect();
        assert!(!states.contains(&Health::Down), "after {second} s: {states:?}");
        told.iter().for_each(|address| _ = fleet.observe(*address, sample(second, 1.0), at(second)));
    }
    for second in [24.0, 60.0, 3600.0] {
        assert!(fleet.backends().all(|backend| backend.is_eligible(at(second))), "after {second} s");
    }
    let health = |address| fleet.backend(address).unwrap().health(at(24.0));
    assert_eq!(all.map(health), [Health::Ready, Health::Ready, Health::Stale, Health::Stale]);
}

#[test]
fn a_lease_ends_but_not_that_of_the_last_backend() {
    let config = config("");
    let [first, second] = ["127.0.0.1:1", "127.0.0.1:2"].map(|address| address.parse().unwrap());
    let mut fleet = Fleet::default();
    fleet.reconcile(&config, at(0.0));
    let length = TimeDelta::seconds(10);
    let lease =
        |fleet: &mut Fleet, address, now| fleet.lease(&config, "p", address, length, at(now)).unwrap();
    assert_eq!(lease(&mut fleet, first, 0.0), Registration::New);
    assert_eq!(lease(&mut fleet, second, 1.0), Registration::New);
    assert_eq!(lease(&mut fleet, first, 5.0), Registration::Renewed);
    assert_eq!(fleet.expire(at(10.9)), Expiry::default());
    assert_eq!(fleet.expire(at(11.0)).left, [("p".to_owned(), second)]);
    fleet.reconcile(&config, at(11.0));
    let expiry = fleet.expire(at(15.0));
    assert_eq!((expiry.left.len(), expiry.kept), (0, vec![("p".to_owned(), first)]));
    assert_eq!(lease(&mut fleet, second, 16.0), Registration::New, "it comes back from leaving");
    assert_eq!(fleet.expire(at(17.0)).left, [("p".to_owned(), first)], "another one serves now");
    fleet.drain("p", second, at(18.0)).unwrap_err();
    fleet.register(&config, "p", second, at(19.0)).unwrap();
    assert_eq!(fleet.expire(at(1000.0)), Expiry::default(), "without a lease it stays");
}

#[test]
fn what_was_found_comes_and_goes_and_gives_way_to_the_file() {
    let dns = "discovery: { dns: { name: x.test, type: srv } }";
    let text = |more: &str| format!("models: [{{ name: m, pools: [p] }}]\npools: [{{ name: p, {more} }}]\n");
    let plain = config::parse(&text(dns)).unwrap();
    let listed = config::parse(&text(&format!("{dns}, backends: [\"127.0.0.1:1\"]"))).unwrap();
    let [first, second] = ["127.0.0.1:1", "127.0.0.1:2"].map(|address| address.parse().unwrap());
    let mut fleet = Fleet::default();
    let active = |fleet: &Fleet| -> Vec<(std::net::SocketAddr, Origin)> {
        let active = fleet.backends().filter(|backend| backend.membership == Membership::Active);
        active.map(|backend| (backend.address, backend.origin)).collect()
    };
    fleet.set_found("p", [first, second].into());
    fleet.reconcile(&plain, at(0.0));
    assert_eq!(active(&fleet), [(first, Origin::Dns), (second, Origin::Dns)]);
    fleet.set_found("p", [second].into());
    fleet.reconcile(&listed, at(1.0));
    assert_eq!(active(&fleet), [(first, Origin::Configured), (second, Origin::Dns)]);
    fleet.set_found("p", [first].into());
    fleet.reconcile(&plain, at(2.0));
    assert_eq!(active(&fleet), [(first, Origin::Dns)]);
    fleet.set_found("p", [first, second].into());
    fleet.reconcile(&plain, at(3.0));
    fleet.remove("p", second, at(4.0)).unwrap();
    fleet.reconcile(&plain, at(5.0));
    assert_eq!(active(&fleet), [(first, Origin::Dns)], "removed by hand, it stays away while it is in DNS");
    fleet.set_found("p", [first].into());
    fleet.reconcile(&plain, at(6.0));
    fleet.set_found("p", [first, second].into());
    fleet.reconcile(&plain, at(7.0));
    assert_eq!(active(&fleet).len(), 2, "and may come again later");
}
