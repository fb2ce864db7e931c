use super::transport::least_cost;
use super::*;

pub(super) fn zone(name: &str) -> Zone {
    name.parse().unwrap()
}

pub(super) fn node(name: &str, rps: f64) -> NodeZone {
    NodeZone { zone: zone(name), envoys: 1, requests_per_second: Some(rps) }
}

pub(super) fn group(name: &str, place: &str, weight: u32) -> GroupTotal {
    GroupTotal { group: name.to_owned(), zone: zone(place), weight }
}

pub(super) fn input(zones: Vec<NodeZone>, groups: Vec<GroupTotal>) -> ZonesInput {
    ZonesInput {
        zones,
        groups,
        rtt: Vec::new(),
        same_region_ms: SAME_REGION_MS,
        other_region_ms: OTHER_REGION_MS,
        preference: 1.0,
    }
}

/// Evaluates for a hundred seconds; returns the last state and how many were published.
pub(super) fn settled(input: &ZonesInput, from: &ZonesState) -> (ZonesState, usize) {
    let (mut state, mut published) = (from.clone(), 0);
    for _ in 0..100 {
        let decision = decide_zones(input, &state);
        state = decision.state;
        published += usize::from(decision.publish);
    }
    (state, published)
}

pub(super) fn share(state: &ZonesState, zone_name: &str, group: &str) -> f64 {
    state.zones[&zone(zone_name)].shares[group]
}

/// What each group gets of all requests.
pub(super) fn totals(state: &ZonesState) -> BTreeMap<String, f64> {
    let mut totals = BTreeMap::new();
    for flow in state.zones.values() {
        for (group, share) in &flow.shares {
            *totals.entry(group.clone()).or_default() += flow.demand_share * share;
        }
    }
    totals
}

#[test]
fn each_zone_sends_to_its_own_backends_as_far_as_the_law_lets_it() {
    let zones = vec![node("eu/a", 10.0), node("eu/b", 10.0)];
    let even = input(zones.clone(), vec![group("a", "eu/a", 5000), group("b", "eu/b", 5000)]);
    let (state, published) = settled(&even, &ZonesState::default());
    // From an even split, half of all requests changes its way, by a tenth at a time.
    assert_eq!(published, 5);
    assert!((share(&state, "eu/a", "a") - 0.99).abs() < 1e-6, "{state:?}");
    let weights = state.weights(&zone("eu/a")).unwrap();
    assert_eq!(weights, BTreeMap::from([("a".to_owned(), 9900), ("b".to_owned(), 100)]));
    assert_eq!(state.weights(&zone("eu/c")), None);

    let uneven = input(zones, vec![group("a", "eu/a", 2500), group("b", "eu/b", 7500)]);
    let (state, _) = settled(&uneven, &state);
    assert!((share(&state, "eu/b", "a") - 0.01).abs() < 1e-6, "{state:?}");
    assert!((share(&state, "eu/a", "a") - 0.49).abs() < 1e-6, "what is left of a: {state:?}");
    assert!((totals(&state)["a"] - 0.25).abs() < 1e-9);
}

#[test]
fn what_it_saves_is_told() {
    let zones = vec![node("eu/a", 10.0), node("us/a", 30.0)];
    let mut input = input(zones, vec![group("e", "eu/b", 5000), group("u", "us/a", 5000)]);
    input.rtt = vec![
        LatencyRule { from: "us".to_owned(), to: "eu".to_owned(), ms: 80.0 },
        LatencyRule { from: "us/a".to_owned(), to: "eu".to_owned(), ms: 70.0 },
    ];
    let mut state = ZonesState::default();
    let mut last = decide_zones(&input, &state);
    for _ in 0..20 {
        state = last.state;
        last = decide_zones(&input, &state);
    }
    let [eu, us] = &last.terms[..] else { panic!("{last:?}") };
    assert_eq!((eu.demand_share, us.demand_share), (0.25, 0.75));
    // The rule of the zone holds in the other direction, too: half of 1 ms and half of 70 ms.
    assert!((eu.fleet_rtt_ms - 35.5).abs() < 1e-9 && (us.fleet_rtt_ms - 35.0).abs() < 1e-9, "{eu:?} {us:?}");
    assert!((eu.rtt_ms - (0.99 + 0.7)).abs() < 1e-6, "{eu:?}");
    // A third of its requests finds no room near: 0.5 - 0.2475 of 0.75.
    assert!((us.rtt_ms - 70.0 * 0.2525 / 0.75).abs() < 1e-6, "{us:?}");
}

#[test]
fn without_a_preference_there_is_nothing_and_half_of_one_is_half_way() {
    let zones = vec![node("eu/a", 10.0), node("eu/b", 10.0)];
    let mut input = input(zones, vec![group("a", "eu/a", 5000), group("b", "eu/b", 5000)]);
    let (full, _) = settled(&input, &ZonesState::default());
    input.preference = 0.5;
    let (half, _) = settled(&input, &full);
    assert!((share(&half, "eu/a", "a") - 0.745).abs() < 1e-6, "{half:?}");
    input.preference = 0.0;
    let off = decide_zones(&input, &half);
    assert!(off.publish && off.state == ZonesState::default() && off.terms.is_empty());
    assert!(!decide_zones(&input, &off.state).publish);
}

#[test]
fn equals_share_alike() {
    // Two zones without backends of their own, and two groups in one place.
    let zones = vec![node("eu/x", 10.0), node("eu/y", 30.0), node("eu/a", 20.0)];
    let groups = vec![group("a1", "eu/a", 2000), group("a2", "eu/a", 4000), group("u", "us/a", 4000)];
    let (state, _) = settled(&input(zones, groups), &ZonesState::default());
    for name in ["a1", "a2", "u"] {
        assert!((share(&state, "eu/x", name) - share(&state, "eu/y", name)).abs() < 1e-9, "{state:?}");
    }
    let [one, two] = ["a1", "a2"].map(|name| share(&state, "eu/a", name) - 0.01);
    assert!((two / one - 0.39 / 0.19).abs() < 1e-6, "in proportion, beside what is kept: {state:?}");
}

#[test]
fn a_zone_that_is_gone_leaves_its_flows_to_the_others_at_once() {
    let zones = vec![node("eu/a", 10.0), node("eu/b", 10.0), node("eu/c", 10.0)];
    let groups = vec![group("a", "eu/a", 3400), group("b", "eu/b", 3300), group("c", "eu/c", 3300)];
    let (state, _) = settled(&input(zones, groups), &ZonesState::default());
    assert!(share(&state, "eu/a", "a") > 0.95, "{state:?}");
    // Its backends and its Envoys.
    let left = input(
        vec![node("eu/a", 15.0), node("eu/b", 15.0)],
        vec![group("a", "eu/a", 5000), group("b", "eu/b", 5000)],
    );
    let decision = decide_zones(&left, &state);
    assert!(decision.publish);
    for (group, total) in totals(&decision.state) {
        assert!((total - 0.5).abs() < 1e-9, "{group}: {total}");
    }
    // Its backends alone: its Envoys go elsewhere in the same push.
    let zones = vec![node("eu/a", 10.0), node("eu/b", 10.0), node("eu/c", 10.0)];
    let decision =
        decide_zones(&input(zones, vec![group("a", "eu/a", 5000), group("b", "eu/b", 5000)]), &state);
    assert!((totals(&decision.state)["a"] - 0.5).abs() < 1e-9);
    assert!((share(&decision.state, "eu/c", "a") - 0.5).abs() < 0.1, "{decision:?}");
}

#[test]
fn little_demand_counts_for_a_tenth_of_what_its_envoys_would_have() {
    let zones = vec![node("eu/a", 0.0), node("eu/b", 100.0)];
    let groups = vec![group("a", "eu/a", 5000), group("b", "eu/b", 5000)];
    let decision = decide_zones(&input(zones, groups), &ZonesState::default());
    let share = decision.state.zones[&zone("eu/a")].demand_share;
    assert!((share - 0.05 / 1.05).abs() < 1e-9, "{share}");
}

#[test]
fn unknown_demand_is_by_envoys_and_then_as_it_was_seen() {
    let unknown = |name: &str, envoys| NodeZone { envoys, requests_per_second: None, ..node(name, 0.0) };
    let groups = vec![group("a", "eu/a", 5000), group("b", "eu/b", 5000)];
    let seen = |decision: &ZonesDecision| {
        decision.state.zones.values().map(|flow| flow.demand_share).collect::<Vec<_>>()
    };
    let first = decide_zones(
        &input(vec![unknown("eu/a", 3), unknown("eu/b", 1)], groups.clone()),
        &ZonesState::default(),
    );
    assert_eq!(seen(&first), [0.75, 0.25]);
    let told = input(vec![node("eu/a", 20.0), node("eu/b", 20.0)], groups.clone());
    let (state, _) = settled(&told, &first.state);
    let silent = decide_zones(&input(vec![unknown("eu/a", 3), unknown("eu/b", 1)], groups.clone()), &state);
    assert!((seen(&silent)[0] - 0.5).abs() < 0.03, "{silent:?}");
    // A newcomer counts as an Envoy of the others.
    let zones = vec![unknown("eu/a", 1), unknown("eu/b", 1), unknown("eu/c", 1)];
    let three = decide_zones(&input(zones, groups), &state);
    assert!((seen(&three)[2] - 1.0 / 3.0).abs() < 1e-9, "{three:?}");
}

#[test]
fn a_zone_that_tells_nothing_for_a_while_keeps_its_part_beside_those_that_tell() {
    let groups = vec![group("a", "eu/a", 5000), group("b", "eu/b", 5000)];
    let told = input(vec![node("eu/a", 30.0), node("eu/b", 10.0)], groups.clone());
    let (state, _) = settled(&told, &ZonesState::default());
    // Its Envoys are gone for a moment, or have just come back.
    for envoys in [0, 1] {
        let unknown = NodeZone { envoys, requests_per_second: None, ..node("eu/a", 0.0) };
        let (later, published) = settled(&input(vec![unknown, node("eu/b", 10.0)], groups.clone()), &state);
        assert!((later.zones[&zone("eu/a")].demand_share - 0.75).abs() < 1e-6, "{later:?}");
        assert_eq!(published, 0);
    }
    // When it tells again that counts.
    let (later, _) = settled(&input(vec![node("eu/a", 10.0), node("eu/b", 10.0)], groups), &state);
    assert!((later.zones[&zone("eu/a")].demand_share - 0.5).abs() < 0.03, "{later:?}");
}

#[test]
fn rules_for_zones_go_before_rules_for_regions() {
    let rule = |from: &str, to: &str, ms| LatencyRule { from: from.to_owned(), to: to.to_owned(), ms };
    let zones = ["eu/a", "eu/b", "us/a"].map(|name| node(name, 1.0)).to_vec();
    let groups = vec![group("e", "eu/a", 1), group("u", "us/b", 1)];
    let mut input = input(zones, groups);
    input.rtt = vec![rule("eu", "us", 90.0), rule("us/b", "eu/b", 70.0), rule("eu", "eu", 2.0)];
    let zones: Vec<&NodeZone> = input.zones.iter().collect();
    let groups: Vec<(&GroupTotal, f64)> = input.groups.iter().map(|group| (group, 0.5)).collect();
    let costs = Costs::new(&input, &zones, &groups);
    let all: Vec<Vec<f64>> =
        (0..3).map(|zone| (0..2).map(|group| costs.milliseconds(zone, group)).collect()).collect();
    assert_eq!(all, [[0.0, 90.0], [2.0, 70.0], [90.0, 1.0]]);
}

#[test]
fn the_cheapest_flow_goes_back_over_what_was_sent_before() {
    // The first row takes the first column, and has to give it up.
    let flow = least_cost(vec![4, 4], vec![4, 4], &[vec![1, 2], vec![2, 9]]);
    assert_eq!(flow, [[0, 4], [4, 0]]);
}

#[test]
fn as_many_zones_as_there_may_be_are_decided_on() {
    let name = |number: usize| format!("r{}/z{number}", number % 7);
    let zones = (0..MOST_ZONES).map(|number| node(&name(number), 1.0 + (number * 37 % 11) as f64));
    let groups = (0..MOST_ZONES)
        .map(|number| group(&format!("g{number}"), &name(number), 100 + (number * 53 % 97) as u32));
    let mut input = input(zones.collect(), groups.collect());
    input.rtt = (0..MOST_ZONES)
        .map(|number| LatencyRule {
            from: name(number),
            to: name(number * 5 % MOST_ZONES + 1),
            ms: 1.0 + (number * 29 % 13) as f64,
        })
        .collect();
    let began = std::time::Instant::now();
    let decision = decide_zones(&input, &ZonesState::default());
    println!("{} zones and groups: {:?}", MOST_ZONES, began.elapsed());
    let (state, published) = settled(&input, &decision.state);
    assert!((5..20).contains(&published) && state.settled.is_some(), "{published}");
    let began = std::time::Instant::now();
    assert!(!decide_zones(&input, &state).publish);
    println!("once more: {:?}", began.elapsed());
    for (group, total) in totals(&state) {
        let wanted = f64::from(state.totals[&group]) / f64::from(state.totals.values().sum::<u32>());
        assert!((total - wanted).abs() < 1e-6, "{group}: {total} for {wanted}");
    }
}

#[test]
fn a_group_is_shared_by_the_envoys_that_send_to_it() {
    let at = |name: &str, envoys| NodeZone { envoys, ..node(name, 1.0) };
    let zones = vec![at("eu/a", 4), at("eu/b", 16)];
    let flow = |demand_share, a: f64| ZoneFlow {
        seen: demand_share,
        demand_share,
        shares: BTreeMap::from([("a".to_owned(), a), ("b".to_owned(), 1.0 - a)]),
    };
    let state = |near: f64, far: f64, of_a: f64| ZonesState {
        zones: BTreeMap::from([(zone("eu/a"), flow(of_a, near)), (zone("eu/b"), flow(1.0 - of_a, far))]),
        ..ZonesState::default()
    };
    let envoys = |state: ZonesState| (100.0 * state.envoys_of_a_group(&zones).unwrap()).round() / 100.0;
    assert_eq!(envoys(state(0.5, 0.5, 0.2)), 20.0, "all zones do the same: the fleet");
    // Half of the requests meet 4 Envoys, half 16.
    assert_eq!(envoys(state(1.0, 0.0, 0.5)), 6.4);
    assert_eq!(envoys(state(1.0, 0.0, 1.0)), 4.0);
    assert_eq!(ZonesState::default().envoys_of_a_group(&zones), None);
}

#[test]
fn only_rules_in_play_are_kept_and_they_say_the_same() {
    let rule = |from: &str, to: &str, ms| LatencyRule { from: from.to_owned(), to: to.to_owned(), ms };
    let rules = [
        rule("eu", "us", 90.0),
        rule("us/b", "eu/b", 70.0),
        rule("eu/b", "us/b", 60.0),
        rule("as", "eu", 200.0),
        rule("us/x", "eu/a", 80.0),
    ];
    let kept = rules_in_play(&rules, &[&zone("eu/a"), &zone("eu/b")], &[&zone("us/b"), &zone("eu/a")]);
    assert_eq!(kept, [rules[0].clone(), rules[2].clone()]);
    assert!(rules_in_play(&rules, &[], &[&zone("us/b")]).is_empty());
}

#[test]
fn a_zone_is_written_as_region_and_zone() {
    for text in ["eu/a", "/a", "eu/", "eu/a/b"] {
        assert_eq!(zone(text).to_string(), text);
    }
    assert_eq!(serde_json::to_string(&zone("eu/a")).unwrap(), "\"eu/a\"");
    assert!("eu".parse::<Zone>().is_err() && serde_json::from_str::<Zone>("\"eu\"").is_err());
    assert_eq!(Zone::new("a/b", "c"), None);
    assert_eq!(Zone::of_node("", ""), None);
    assert_eq!(Zone::of_node("", &"x".repeat(101)), None);
}
