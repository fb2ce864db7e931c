//! A zone dies: what the law gives the others, and what the flows make of it.

use std::net::SocketAddr;

use chrono::{DateTime, TimeDelta, Utc};

use super::super::Mix;
use super::super::law::{
    BackendInput, Law, ModelInput, Verdict, WeightDecision, WeightState, decide_weights,
};
use super::tests::{group, input, node, totals, zone};
use super::*;

const ZONES: [&str; 3] = ["eu/a", "eu/b", "eu/c"];
/// Requests/s that a zone's backends serve, each.
const CAPACITIES: [[f64; 2]; 3] = [[9.0, 9.0], [12.0, 6.0], [14.0, 4.0]];

/// A fleet whose backends have as many requests as the law wants them to have.
struct Fleet {
    state: WeightState,
    flows: ZonesState,
    in_flight: BTreeMap<SocketAddr, f64>,
    second: i64,
}

impl Fleet {
    fn new() -> Self {
        Self {
            state: WeightState::default(),
            flows: ZonesState::default(),
            in_flight: BTreeMap::new(),
            second: 0,
        }
    }

    /// One second in which the zones of Envoys have so many requests/s, with backends in the first few zones.
    fn pass(&mut self, rps: &[f64], zones: usize) -> WeightDecision {
        let now = DateTime::<Utc>::UNIX_EPOCH + TimeDelta::seconds(1_700_000_000 + self.second);
        self.second += 1;
        let backends =
            (0..zones).flat_map(|zone| (0..2).map(move |index| (zone, index))).map(|(zone, index)| {
                let address = address(zone, index);
                BackendInput {
                    address,
                    pool: pool(zone, index),
                    zone: ZONES[zone].to_owned(),
                    profile: None,
                    capacity_rps: Some(CAPACITIES[zone][index]),
                    at_ease_rps: None,
                    slowdown: 1.0,
                    in_flight: Some(self.in_flight.get(&address).copied().unwrap_or(0.0)),
                    age_seconds: Some(0.0),
                    verdict: Verdict::Usual,
                    warmed: 1.0,
                    sign: None,
                    price_per_hour: None,
                }
            });
        let model = ModelInput {
            arrivals_rps: rps.iter().sum(),
            mix: Mix::default(),
            envoys: rps.len(),
            steered_part: 1.0,
            observed_seconds: 60.0,
            backends: backends.collect(),
        };
        let decision = decide_weights(&model, &self.state, &Law::default(), now);
        self.state = decision.state.clone();
        let told = decision.backends.iter().map(|backend| (backend.address, backend.terms.target_in_flight));
        self.in_flight = told.collect();
        let shares: Vec<f64> = decision.groups.iter().map(|group| group.share).collect();
        let weights = whole_weights(&shares, WEIGHTS);
        let place = |name: &str| ZONES[digit(name, 1)];
        let groups = decision.groups.iter().zip(weights);
        let groups = groups.map(|(one, weight)| group(&one.group, place(&one.group), weight));
        let nodes = ZONES.iter().zip(rps).map(|(zone, rps)| node(zone, *rps));
        self.flows = decide_zones(&input(nodes.collect(), groups.collect()), &self.flows).state;
        decision
    }

    /// Requests/s by the capacity of each pool, as the flows send them.
    fn loads(&self, rps: f64) -> BTreeMap<String, f64> {
        let capacity = |name: &str| CAPACITIES[digit(name, 1)][digit(name, 2)];
        totals(&self.flows)
            .into_iter()
            .map(|(name, share)| (name.clone(), rps * share / capacity(&name)))
            .collect()
    }
}

fn pool(zone: usize, index: usize) -> String {
    format!("p{zone}{index}")
}

/// A number in the name of a pool.
fn digit(name: &str, at: usize) -> usize {
    usize::from(name.as_bytes()[at] - b'0')
}

fn address(zone: usize, index: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, zone as u8, index as u8], 8000))
}

/// Zone c dies at a load; its Envoys may die with it. Returns the loads right after and a minute later.
fn killed(load: f64, envoys_die: bool) -> [BTreeMap<String, f64>; 2] {
    let capacity: f64 = CAPACITIES.iter().flatten().sum();
    let rps = load * capacity;
    let mut fleet = Fleet::new();
    for _ in 0..60 {
        fleet.pass(&[0.4 * rps, 0.3 * rps, 0.3 * rps], 3);
    }
    let own = fleet.flows.zones[&zone("eu/a")].shares["p00"];
    assert!(own > 0.3, "it prefers what is near: {:?}", fleet.flows);
    let left: Vec<f64> =
        if envoys_die { vec![0.55 * rps, 0.45 * rps] } else { vec![0.4 * rps, 0.3 * rps, 0.3 * rps] };
    fleet.pass(&left, 2);
    let at_once = fleet.loads(rps);
    for _ in 0..60 {
        fleet.pass(&left, 2);
    }
    [at_once, fleet.loads(rps)]
}

#[test]
fn no_group_has_more_than_its_capacity_while_another_has_room() {
    for envoys_die in [false, true] {
        // The zones serve as much each: 0.6 of all is 0.9 of what is left.
        for load in [0.3, 0.45, 0.6] {
            for loads in killed(load, envoys_die) {
                assert_eq!(loads.len(), 4, "{loads:?}");
                assert!(loads.values().all(|load| *load <= 1.0), "at {load}: {loads:?}");
            }
        }
    }
}

#[test]
fn what_is_more_than_all_can_serve_is_shared_in_equal_parts() {
    for envoys_die in [false, true] {
        let [_, loads] = killed(0.9, envoys_die);
        let mean = loads.values().sum::<f64>() / loads.len() as f64;
        assert!(mean > 1.3, "{loads:?}");
        for load in loads.values() {
            assert!((load / mean - 1.0).abs() < 0.05, "{loads:?}");
        }
    }
}
