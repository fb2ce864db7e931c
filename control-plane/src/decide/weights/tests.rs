use std::net::{Ipv4Addr, SocketAddr};

use proptest::prelude::*;

use super::{BackendInput, Law, WeightDecision, WeightState, decide_weights};

const LAW: Law = Law { correction_seconds: 6.0, smoothing: 0.3, floor: 0.1, dead_band: 0.02 };

fn address(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

fn backend(port: u16, pool: &str, capacity_rps: f64, wait: f64) -> BackendInput {
    BackendInput {
        address: address(port),
        pool: pool.to_owned(),
        capacity_rps,
        slowdown: 1.0,
        predicted_wait_seconds: Some(wait),
        age_seconds: Some(0.5),
    }
}

fn settle(inputs: &[BackendInput], rounds: usize) -> WeightDecision {
    let mut state = WeightState::default();
    let mut decision = decide_weights(inputs, 10.0, &state, &LAW);
    for _ in 0..rounds {
        state = decision.state.clone();
        decision = decide_weights(inputs, 10.0, &state, &LAW);
    }
    decision
}

fn share(decision: &WeightDecision, port: u16) -> f64 {
    decision.backends.iter().find(|backend| backend.address == address(port)).unwrap().share
}

#[test]
fn equal_waits_give_capacity_shares() {
    let decision = settle(&[backend(1, "fast", 6.0, 0.3), backend(2, "slow", 2.0, 0.3)], 0);
    assert!((share(&decision, 1) - 0.75).abs() < 1e-9);
    assert_eq!(decision.groups.len(), 2);
}

#[test]
fn a_longer_wait_loses_share_but_keeps_the_floor() {
    let decision = settle(&[backend(1, "a", 5.0, 0.2), backend(2, "a", 5.0, 1.2)], 30);
    assert!(share(&decision, 2) < 0.47, "{}", share(&decision, 2));
    let decision = settle(&[backend(1, "a", 5.0, 0.2), backend(2, "a", 5.0, 100.0)], 30);
    assert!((0.04..0.15).contains(&share(&decision, 2)), "{}", share(&decision, 2));
}

#[test]
fn a_backend_that_slows_down_gets_its_own_group_and_less_traffic_within_seconds() {
    let mut slow = backend(2, "a", 5.0, 0.8);
    let usual = settle(&[backend(1, "a", 5.0, 0.3), backend(2, "a", 5.0, 0.3)], 5);
    slow.slowdown = 4.0;
    let inputs = [backend(1, "a", 5.0, 0.3), slow];
    let mut decision = usual;
    for _ in 0..5 {
        decision = decide_weights(&inputs, 8.0, &decision.state, &LAW);
    }
    assert!(share(&decision, 2) < 0.25, "{}", share(&decision, 2));
    let groups: Vec<_> = decision.groups.iter().map(|group| group.group.as_str()).collect();
    assert_eq!(groups, ["a", "a/127.0.0.1:2"]);
    assert!(decision.backends[1].reason.contains("4.0 times slower"), "{}", decision.backends[1].reason);
}

#[test]
fn stale_telemetry_leads_back_to_the_capacity_share() {
    let mut silent = backend(2, "a", 5.0, 9.0);
    silent.age_seconds = Some(6.0);
    let decision = settle(&[backend(1, "a", 5.0, 0.2), silent], 30);
    assert!((share(&decision, 2) - 0.5).abs() < 0.01, "{}", share(&decision, 2));
}

#[test]
fn small_moves_are_not_published() {
    let decision = settle(&[backend(1, "a", 5.0, 0.30), backend(2, "a", 5.0, 0.31)], 10);
    assert!(!decision.publish);
}

#[test]
fn a_newcomer_rises_step_by_step() {
    let first = settle(&[backend(1, "a", 5.0, 0.3)], 3);
    let both = [backend(1, "a", 5.0, 0.3), backend(2, "a", 5.0, 0.3)];
    let second = decide_weights(&both, 5.0, &first.state, &LAW);
    assert!(second.publish);
    assert!((0.05..0.35).contains(&share(&second, 2)), "{}", share(&second, 2));
}

fn any_backend() -> impl Strategy<Value = BackendInput> {
    (
        1u16..200,
        0usize..3,
        0.01f64..50.0,
        0.25f64..16.0,
        proptest::option::of(0.0f64..600.0),
        proptest::option::of(0.0f64..100.0),
    )
        .prop_map(|(port, pool, capacity_rps, slowdown, predicted_wait_seconds, age_seconds)| {
            BackendInput {
                address: address(port),
                pool: ["a", "b", "c"][pool].to_owned(),
                capacity_rps,
                slowdown,
                predicted_wait_seconds,
                age_seconds,
            }
        })
}

proptest! {
    #[test]
    fn shares_are_finite_positive_and_sum_to_one(
        rounds in proptest::collection::vec(
            (proptest::collection::btree_map(1u16..200, any_backend(), 1..12), 0.0f64..1000.0), 1..8)
    ) {
        let mut state = WeightState::default();
        for (backends, demand) in rounds {
            let inputs: Vec<_> = backends
                .into_iter()
                .map(|(port, mut input)| { input.address = address(port); input })
                .collect();
            let decision = decide_weights(&inputs, demand, &state, &LAW);
            let sum: f64 = decision.backends.iter().map(|backend| backend.share).sum();
            prop_assert!((sum - 1.0).abs() < 1e-9);
            for backend in &decision.backends {
                prop_assert!(backend.share.is_finite() && backend.share > 0.0);
            }
            let of_groups: f64 = decision.groups.iter().map(|group| group.share).sum();
            prop_assert!((of_groups - 1.0).abs() < 1e-9);
            prop_assert_eq!(&decide_weights(&inputs, demand, &state, &LAW), &decision);
            state = decision.state;
        }
    }
}
