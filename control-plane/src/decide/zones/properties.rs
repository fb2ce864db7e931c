//! What holds for all zones.

use proptest::prelude::*;

use super::tests::{group, input, node, settled, totals, zone};
use super::transport::least_cost;
use super::*;

const PLACES: [&str; 6] = ["eu/a", "eu/b", "us/a", "us/b", "as/a", "eu/c"];

/// Zones with Envoys, groups in places, and some rules.
fn site() -> impl Strategy<Value = ZonesInput> {
    let node = (0..PLACES.len(), 1u32..9, proptest::option::weighted(0.9, 0.0..100.0f64));
    let total = (0..PLACES.len(), 0u32..5000);
    let rule = (0..PLACES.len(), 0..PLACES.len(), 0.0..200.0f64);
    (
        prop::collection::vec(node, 1..6),
        prop::collection::vec(total, 1..8),
        prop::collection::vec(rule, 0..6),
        prop_oneof![Just(1.0), 0.01..1.0f64],
    )
        .prop_map(|(nodes, totals, rules, preference)| {
            let nodes = nodes.into_iter().map(|(place, envoys, requests_per_second)| NodeZone {
                zone: zone(PLACES[place]),
                envoys,
                requests_per_second,
            });
            let groups = totals
                .into_iter()
                .enumerate()
                .map(|(index, (place, weight))| group(&format!("g{index}"), PLACES[place], weight));
            let rule = |(from, to, ms): (usize, usize, f64)| LatencyRule {
                from: PLACES[from].to_owned(),
                to: PLACES[to].to_owned(),
                ms,
            };
            ZonesInput {
                rtt: rules.into_iter().map(rule).collect(),
                preference,
                ..input(nodes.collect(), groups.collect())
            }
        })
}

/// The least cost of all ways to fill a table with given sums.
fn least_by_trying(supply: &[u64], demand: &[u64], costs: &[Vec<i64>]) -> i64 {
    fn fill(
        row: usize,
        column: usize,
        left: u64,
        demand: &mut Vec<u64>,
        supply: &[u64],
        costs: &[Vec<i64>],
    ) -> i64 {
        if row == supply.len() {
            return 0;
        }
        if column + 1 == demand.len() {
            if left > demand[column] {
                return i64::MAX;
            }
            demand[column] -= left;
            let next = supply.get(row + 1).copied().unwrap_or(0);
            let rest = fill(row + 1, 0, next, demand, supply, costs);
            demand[column] += left;
            return rest.saturating_add(left as i64 * costs[row][column]);
        }
        (0..=left.min(demand[column]))
            .map(|sent| {
                demand[column] -= sent;
                let rest = fill(row, column + 1, left - sent, demand, supply, costs);
                demand[column] += sent;
                rest.saturating_add(sent as i64 * costs[row][column])
            })
            .min()
            .unwrap_or(i64::MAX)
    }
    fill(0, 0, supply[0], &mut demand.to_vec(), supply, costs)
}

/// A table of costs with supplies and demands of one sum.
fn table() -> impl Strategy<Value = (Vec<u64>, Vec<u64>, Vec<Vec<i64>>)> {
    (1usize..4, 1usize..4).prop_flat_map(|(rows, columns)| {
        let sums = (prop::collection::vec(0u64..5, rows), prop::collection::vec(0u64..5, columns));
        let costs = prop::collection::vec(prop::collection::vec(0i64..20, columns), rows);
        (sums, costs).prop_map(|((mut supply, mut demand), costs)| {
            let (given, taken): (u64, u64) = (supply.iter().sum(), demand.iter().sum());
            supply[0] += taken.saturating_sub(given);
            demand[0] += given.saturating_sub(taken);
            (supply, demand, costs)
        })
    })
}

/// The same of any size, with costs of which many are equal.
fn large_table() -> impl Strategy<Value = (Vec<u64>, Vec<u64>, Vec<Vec<i64>>)> {
    (1usize..13, 1usize..13, prop_oneof![Just(3i64), Just(1_000_000)]).prop_flat_map(
        |(rows, columns, most)| {
            let sums = (prop::collection::vec(0u64..1000, rows), prop::collection::vec(0u64..1000, columns));
            let costs = prop::collection::vec(prop::collection::vec(0..most, columns), rows);
            (sums, costs).prop_map(|((mut supply, mut demand), costs)| {
                let (given, taken): (u64, u64) = (supply.iter().sum(), demand.iter().sum());
                supply[0] += taken.saturating_sub(given);
                demand[0] += given.saturating_sub(taken);
                (supply, demand, costs)
            })
        },
    )
}

/// Whether a round over rows and columns would be cheaper: then, and only then, a flow is not the cheapest one.
fn can_be_cheaper(flow: &[Vec<u64>], costs: &[Vec<i64>]) -> bool {
    let (rows, columns) = (flow.len(), flow[0].len());
    let mut distance = vec![0_i64; rows + columns];
    for _ in 0..rows + columns {
        let mut is_nearer = false;
        for row in 0..rows {
            for column in 0..columns {
                let cost = costs[row][column];
                if distance[row] + cost < distance[rows + column] {
                    distance[rows + column] = distance[row] + cost;
                    is_nearer = true;
                }
                if flow[row][column] > 0 && distance[rows + column] - cost < distance[row] {
                    distance[row] = distance[rows + column] - cost;
                    is_nearer = true;
                }
            }
        }
        if !is_nearer {
            return false;
        }
    }
    true
}

proptest! {
    #[test]
    fn flows_are_the_cheapest_of_all((supply, demand, costs) in table()) {
        let flow = least_cost(supply.clone(), demand.clone(), &costs);
        for (row, supply) in flow.iter().zip(&supply) {
            prop_assert_eq!(row.iter().sum::<u64>(), *supply);
        }
        for (column, demand) in demand.iter().enumerate() {
            prop_assert_eq!(flow.iter().map(|row| row[column]).sum::<u64>(), *demand);
        }
        let cost: i64 = flow.iter().flatten().zip(costs.iter().flatten()).map(|(flow, cost)| *flow as i64 * cost).sum();
        prop_assert_eq!(cost, least_by_trying(&supply, &demand, &costs));
    }

    #[test]
    fn no_way_round_is_cheaper((supply, demand, costs) in large_table()) {
        let flow = least_cost(supply.clone(), demand.clone(), &costs);
        for (row, supply) in flow.iter().zip(&supply) {
            prop_assert_eq!(row.iter().sum::<u64>(), *supply);
        }
        for (column, demand) in demand.iter().enumerate() {
            prop_assert_eq!(flow.iter().map(|row| row[column]).sum::<u64>(), *demand);
        }
        prop_assert!(!can_be_cheaper(&flow, &costs));
    }

    #[test]
    fn rules_that_are_not_in_play_change_nothing(site in site()) {
        let to: Vec<&Zone> = site.groups.iter().map(|group| &group.zone).collect();
        let from: Vec<&Zone> = site.zones.iter().map(|zone| &zone.zone).collect();
        let in_play = ZonesInput { rtt: rules_in_play(&site.rtt, &from, &to), ..site.clone() };
        let [all, fewer] = [&site, &in_play].map(|site| decide_zones(site, &ZonesState::default()));
        prop_assert_eq!(all.terms, fewer.terms);
        prop_assert_eq!(all.state.zones, fewer.state.zones);
    }

    #[test]
    fn every_group_gets_what_the_law_gave_it(sites in prop::collection::vec(site(), 1..6)) {
        let mut state = ZonesState::default();
        for site in &sites {
            let decision = decide_zones(site, &state);
            state = decision.state;
            let weights: BTreeMap<&str, f64> =
                site.groups.iter().map(|group| (group.group.as_str(), f64::from(group.weight))).collect();
            let sum: f64 = weights.values().sum();
            if state.zones.is_empty() {
                prop_assert!(sum <= 0.0);
                continue;
            }
            for (group, total) in totals(&state) {
                // What is kept may be off by what is not worth a push.
                let off = (total - weights[group.as_str()] / sum).abs();
                prop_assert!(off <= if decision.publish { 1e-6 } else { 0.04 }, "{group}: off by {off}");
            }
            for (zone, flow) in &state.zones {
                let weights = state.weights(zone).unwrap();
                prop_assert_eq!(weights.values().sum::<u32>(), WEIGHTS);
                prop_assert!((flow.shares.values().sum::<f64>() - 1.0).abs() < 1e-9);
                for (weight, share) in weights.values().zip(flow.shares.values()) {
                    let off = (f64::from(*weight) - 10_000.0 * share).abs();
                    prop_assert!(*weight >= 1 && off <= 8.0, "{weight} for {share}");
                }
            }
        }
    }

    #[test]
    fn no_flow_takes_longer_than_the_shares_of_the_fleet(site in site()) {
        let (state, _) = settled(&site, &ZonesState::default());
        let terms = decide_zones(&site, &state).terms;
        let mean = |of: fn(&ZoneTerms) -> f64| terms.iter().map(|terms| terms.demand_share * of(terms)).sum::<f64>();
        prop_assert!(mean(|terms| terms.rtt_ms) <= mean(|terms| terms.fleet_rtt_ms) + 0.05);
    }

    #[test]
    fn every_zone_keeps_every_group(site in site()) {
        let (state, _) = settled(&site, &ZonesState::default());
        let sum: u32 = state.totals.values().sum();
        let least = 0.01f64.min(0.1 / state.totals.len().max(1) as f64);
        for flow in state.zones.values() {
            for (group, share) in &flow.shares {
                let of_fleet = f64::from(state.totals[group]) / f64::from(sum);
                prop_assert!(*share >= 0.9 * least.min(of_fleet), "{group}: {share}");
            }
        }
    }

    #[test]
    fn the_order_does_not_matter(site in site(), seed in any::<u64>()) {
        let mut mixed = site.clone();
        // Of two zones of one name the first counts: those that are there twice stay in order.
        mixed.zones.sort_by(|left, right| right.zone.cmp(&left.zone));
        mixed.groups.rotate_left(seed as usize % site.groups.len().max(1));
        mixed.rtt.reverse();
        let (left, right) = (settled(&site, &ZonesState::default()).0, settled(&mixed, &ZonesState::default()).0);
        prop_assert_eq!(serde_json::to_string(&left).unwrap(), serde_json::to_string(&right).unwrap());
    }

    #[test]
    fn what_is_saved_goes_on_as_it_was(site in site(), next in site()) {
        let first = decide_zones(&site, &ZonesState::default()).state;
        let read: ZonesState = serde_json::from_str(&serde_json::to_string(&first).unwrap()).unwrap();
        let input: ZonesInput = serde_json::from_str(&serde_json::to_string(&next).unwrap()).unwrap();
        prop_assert_eq!(decide_zones(&next, &first), decide_zones(&input, &read));
    }

    #[test]
    fn demand_that_wobbles_by_a_tenth_moves_nothing(
        base in prop::collection::vec(5.0..50.0f64, 2..5),
        wobble in prop::collection::vec(-0.1..0.1f64, 4 * 200),
        weights in prop::collection::vec(500u32..5000, 2..6),
    ) {
        let groups: Vec<_> = weights
            .iter()
            .enumerate()
            .map(|(index, weight)| group(&format!("g{index}"), PLACES[index % PLACES.len()], *weight))
            .collect();
        let at = |second: usize| {
            let rps = |index: usize| base[index] * if second == 0 { 1.0 } else { 1.0 + wobble[4 * second + index] };
            let zones = (0..base.len()).map(|index| node(PLACES[index], rps(index)));
            input(zones.collect(), groups.clone())
        };
        let (mut state, _) = settled(&at(0), &ZonesState::default());
        let before = state.clone();
        for second in 1..200 {
            let decision = decide_zones(&at(second), &state);
            prop_assert!(!decision.publish, "at {second}: {:?} {:?}", before, decision.state);
            state = decision.state;
        }
    }

    #[test]
    fn steps_are_bounded_where_the_sums_stand_still(site in site()) {
        let (settled, _) = settled(&site, &ZonesState::default());
        let other = ZonesInput {
            rtt: vec![LatencyRule { from: "eu/a".to_owned(), to: "eu/b".to_owned(), ms: 150.0 }],
            ..site
        };
        let next = decide_zones(&other, &settled).state;
        let moved: f64 = next.zones.iter().map(|(zone, flow)| {
            let before = &settled.zones[zone];
            let apart = flow.shares.iter().map(|(group, share)| (share - before.shares[group]).abs());
            before.demand_share * apart.sum::<f64>() / 2.0
        }).sum();
        prop_assert!(moved <= LARGEST_STEP + DEAD_BAND, "{moved}");
    }
}
