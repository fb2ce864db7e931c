use std::net::SocketAddr;
use std::time::Duration;

use crate::config::{self, Refresh, Span};

use super::super::check_address;
use super::super::schedule::pause;

fn pool(keys: &str) -> config::Pool {
    let text = format!("models: [{{ name: m, pools: [p] }}]\npools: [{{ name: p, {keys} }}]\n");
    config::parse(&text).unwrap().pools.remove(0)
}

fn allows(pool: &config::Pool, address: &str) -> bool {
    check_address(pool, address.parse::<SocketAddr>().unwrap()).is_ok()
}

#[test]
fn private_networks_and_neighbours_are_allowed_by_default() {
    let pool = pool("backends: [\"203.0.113.7:80\", \"[2001:db8::7]:80\"]");
    for address in [
        "127.0.0.1:1",
        "10.9.8.7:1",
        "172.31.0.1:1",
        "192.168.1.1:1",
        "100.64.3.2:1",
        "[::1]:1",
        "[fd00::1]:1",
    ] {
        assert!(allows(&pool, address), "{address}");
    }
    for address in ["203.0.113.200:80", "[2001:db8::ffff]:80", "[::ffff:10.0.0.1]:80"] {
        assert!(allows(&pool, address), "{address}");
    }
    for address in [
        "203.0.114.1:80",
        "8.8.8.8:53",
        "169.254.169.254:80",
        "[::ffff:169.254.169.254]:80",
        "[fe80::1]:1",
        "[2001:db8:0:1::1]:80",
        "224.0.0.1:1",
        "0.0.0.0:1",
    ] {
        assert!(!allows(&pool, address), "{address}");
    }
}

#[test]
fn given_networks_replace_the_default_and_the_refusal_says_how_to_mend_it() {
    let pool = pool("allowed_networks: [10.1.0.0/16, 2001:db8::/32], backends: [\"10.9.0.1:80\"]");
    assert!(allows(&pool, "10.1.2.3:80") && allows(&pool, "[2001:db8:9::1]:80"));
    assert!(allows(&pool, "10.9.0.1:80"), "a configured one is always allowed");
    assert!(!allows(&pool, "10.9.0.2:80") && !allows(&pool, "127.0.0.1:80"));
    let said = check_address(&pool, "8.8.8.8:53".parse().unwrap()).unwrap_err();
    assert!(said.contains("10.1.0.0/16") && said.contains("`allowed_networks`"), "{said}");
}

#[test]
fn the_ttl_is_kept_within_its_bounds_and_failures_are_tried_ever_more_slowly() {
    let refresh = Refresh { min: Span::seconds(5), max: Span::seconds(60) };
    let wait = |ttl: Option<u64>, failures, round| {
        pause(refresh, ttl.map(Duration::from_secs), failures, 7, round).as_secs_f64()
    };
    for round in 0..50 {
        assert!((30.0..=33.0).contains(&wait(Some(30), 0, round)), "never before the TTL is over");
        assert!((5.0..=5.5).contains(&wait(Some(0), 0, round)));
        assert!((60.0..=66.0).contains(&wait(Some(86_400), 0, round)));
    }
    assert!((5.0..=5.5).contains(&wait(None, 1, 0)) && (10.0..=11.0).contains(&wait(None, 2, 0)));
    assert!((60.0..=66.0).contains(&wait(None, u32::MAX, 0)));
    assert_eq!(wait(Some(30), 0, 1), wait(Some(30), 0, 1), "the seed decides");
    assert_ne!(wait(Some(30), 0, 1), wait(Some(30), 0, 2));
}

#[test]
fn faults_of_the_file_are_told() {
    let faults = |keys: &str| {
        let text = format!("models: [{{ name: m, pools: [p] }}]\npools: [{{ name: p, {keys} }}]\n");
        config::parse(&text).unwrap_err()
    };
    for (keys, words) in [
        ("discovery: { dns: { name: a.b, type: a } }", "set the backends' port"),
        ("discovery: { dns: { name: a.b, type: srv, port: 1 } }", "leave it out"),
        ("discovery: { dns: { name: \"a..b\", type: srv } }", "no name of DNS"),
        ("discovery: { dns: { name: a.b, type: mx } }", "unknown variant"),
        ("discovery: { dns: { name: a.b, type: srv, refresh: { min: 2m } } }", "refresh"),
        ("allowed_networks: [10.0.0.0/33]", "allowed_networks"),
    ] {
        let said = faults(keys);
        assert!(said.contains(words), "{keys}: {said}");
    }
    let text = "listen: { tokens: [{ token_env: X, pools: [q] }] }\n";
    let said = config::parse(text).unwrap_err();
    assert!(said.contains("listen.token_env") && said.contains("there is no pool `q`"), "{said}");
}
