use std::net::{Ipv4Addr, SocketAddr};

use chrono::TimeDelta;

use super::super::{Mix, Profile};
use super::*;

/// Prompts of 500 and outputs of 200 tokens.
pub(super) const MIX: Mix = Mix { prompt_tokens: 500.0, output_tokens: 200.0, resident_tokens: 700.0 };

pub(super) fn address(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

pub(super) fn at(second: i64) -> DateTime<Utc> {
    DateTime::<Utc>::UNIX_EPOCH + TimeDelta::seconds(1_700_000_000 + second)
}

/// Four generations of hardware: 18.6, 10.4, 6.0 and 3.1 requests/s of the mix above.
pub(super) fn class(number: usize) -> Profile {
    let (milliseconds, nanoseconds, places) = [
        ([10.0, 0.1, 0.02], 20.0, 96.0),
        ([14.0, 0.18, 0.04], 40.0, 80.0),
        ([20.0, 0.3, 0.07], 60.0, 64.0),
        ([30.0, 0.6, 0.12], 100.0, 48.0),
    ][number];
    Profile {
        fixed_seconds: 1e-3 * milliseconds[0],
        per_sequence_seconds: 1e-3 * milliseconds[1],
        per_prompt_token_seconds: 1e-3 * milliseconds[2],
        per_kv_token_seconds: 1e-9 * nanoseconds,
        max_sequences: Some(places),
        kv_tokens: None,
        token_budget: None,
    }
}

pub(super) fn backend(port: u16, pool: &str, profile: Profile, in_flight: f64) -> BackendInput {
    BackendInput {
        address: address(port),
        pool: pool.to_owned(),
        zone: "r/z".to_owned(),
        profile: Some(profile),
        capacity_rps: None,
        at_ease_rps: None,
        slowdown: 1.0,
        in_flight: Some(in_flight),
        age_seconds: Some(0.0),
        verdict: Verdict::Usual,
        warmed: 1.0,
        sign: None,
        price_per_hour: None,
    }
}

pub(super) fn model(backends: Vec<BackendInput>, arrivals_rps: f64) -> ModelInput {
    ModelInput { arrivals_rps, mix: MIX, envoys: 1, steered_part: 1.0, observed_seconds: 60.0, backends }
}

fn four(in_flight: [f64; 4]) -> Vec<BackendInput> {
    let pools = ["a", "b", "c", "d"];
    let one = |index: usize| backend(index as u16 + 1, pools[index], class(index), in_flight[index]);
    (0..4).map(one).collect()
}

fn shares(decision: &WeightDecision) -> Vec<f64> {
    decision.backends.iter().map(|backend| backend.share).collect()
}

fn share(decision: &WeightDecision, port: u16) -> f64 {
    decision.backends.iter().find(|backend| backend.address == address(port)).unwrap().share
}

pub(super) fn near(left: &[f64], right: &[f64], by: f64) -> bool {
    left.len() == right.len() && left.iter().zip(right).all(|(left, right)| (left - right).abs() <= by)
}

/// A fleet that serves what it is given: in-flight requests follow from shares, and shares from them, second by second.
struct Fleet {
    model: ModelInput,
    state: WeightState,
    second: i64,
}

impl Fleet {
    fn of(backends: Vec<BackendInput>, arrivals_rps: f64) -> Self {
        Self { model: model(backends, arrivals_rps), state: WeightState::default(), second: 0 }
    }

    fn decide(&mut self) -> WeightDecision {
        self.second += 1;
        let decision = decide_weights(&self.model, &self.state, &Law::default(), at(self.second));
        self.state = decision.state.clone();
        for (backend, decided) in self.model.backends.iter_mut().zip(&decision.backends) {
            let curve = Curve::of_profile(&backend.profile.unwrap(), &MIX).unwrap().slowed(backend.slowdown);
            let mut count = backend.in_flight.unwrap();
            for _ in 0..100 {
                let sent = self.model.arrivals_rps * decided.terms.smoothed_share;
                count += (sent - curve.rate(count)) / 100.0;
            }
            backend.in_flight = Some(count.max(0.0));
        }
        decision
    }

    fn after(&mut self, seconds: usize) -> WeightDecision {
        (1..seconds).for_each(|_| drop(self.decide()));
        self.decide()
    }
}

#[test]
fn what_serves_at_ease_is_not_taken_for_as_slow_as_what_waits() {
    let wanted = |at_ease_rps: Option<f64>, in_flight: f64| {
        let mut backends = four([in_flight, 30.0, 30.0, 30.0]);
        for (backend, capacity) in backends.iter_mut().zip([None, Some(0.6), Some(0.2), Some(0.1)]) {
            (backend.profile, backend.capacity_rps) = (None, capacity);
        }
        backends[0].at_ease_rps = at_ease_rps;
        let decision = decide_weights(&model(backends, 5.0), &WeightState::default(), &Law::default(), at(1));
        assert!(
            (decision.backends[0].capacity_share - 0.25).abs() < 1e-3,
            "what Envoys fall back to stands still"
        );
        decision.backends[0].terms.wanted_share
    };
    let by_mean = wanted(None, 2.0);
    assert!((by_mean - 0.25).abs() < 0.01, "{by_mean}");
    assert!(
        (wanted(Some(2.3), 2.0) - 0.82).abs() < 0.02,
        "nearly twice what it served: {}",
        wanted(Some(2.3), 2.0)
    );
    assert!(wanted(Some(2.3), 15.0) < wanted(Some(2.3), 2.0), "it has less room");
    assert_eq!(wanted(Some(2.3), 30.0), by_mean, "it has as many as those that wait");
    assert_eq!(wanted(Some(0.01), 2.0), by_mean, "it had little to serve");
}

#[test]
fn capacities_of_a_mix_make_shares() {
    let by_capacity: Vec<f64> = capacity_shares(&model(four([0.0; 4]), 1.0)).into_values().collect();
    assert!(near(&by_capacity, &[0.4886, 0.2713, 0.1580, 0.0821], 1e-4), "{by_capacity:?}");
    let mut mixed = four([0.0; 4]);
    for (backend, capacity) in mixed.iter_mut().zip([Some(6.0), Some(2.0), None, Some(f64::NAN)]) {
        (backend.profile, backend.capacity_rps) = (None, capacity);
    }
    let configured: Vec<f64> = capacity_shares(&model(mixed.clone(), 1.0)).into_values().collect();
    assert!(near(&configured, &[0.375, 0.125, 0.25, 0.25], 1e-9), "{configured:?}");
    mixed.iter_mut().for_each(|backend| backend.capacity_rps = None);
    let unknown: Vec<f64> = capacity_shares(&model(mixed, 1.0)).into_values().collect();
    assert_eq!(unknown, [0.25; 4]);
    assert!(capacity_shares(&model(Vec::new(), 1.0)).is_empty());
}

/// The numbers were computed apart from this code, from the formulas.
#[test]
fn four_speed_classes_share_by_what_one_more_request_costs() {
    // Load, level, in flight and shares where all is at rest. At half load the slowest is left idle, but for what is seen
    // of it; near capacity shares come near to those of capacity (.489 .271 .158 .082).
    let cases = [
        (0.5, 4.980, [43.11, 20.72, 6.21, 0.0], [0.6619, 0.2664, 0.0701, 0.0016]),
        (0.85, 11.591, [81.75, 53.93, 32.98, 15.40], [0.5384, 0.2716, 0.1372, 0.0528]),
        (0.95, 18.599, [97.34, 70.42, 47.58, 27.08], [0.5143, 0.2721, 0.1471, 0.0664]),
    ];
    for (load, level, in_flight, expected) in cases {
        let arrivals = load * 38.159_611_852;
        let decision = decide_weights(
            &model(four(in_flight), arrivals),
            &WeightState::default(),
            &Law::default(),
            at(0),
        );
        assert!((decision.level_seconds.unwrap() / level - 1.0).abs() < 0.02, "{load}: {decision:#?}");
        assert!(near(&shares(&decision), &expected, 0.005), "{load}: {:?}", shares(&decision));
        let from_empty = Fleet::of(four([0.0; 4]), arrivals).after(240);
        assert!(near(&shares(&from_empty), &expected, 0.01), "{load}: {:?}", shares(&from_empty));
    }
}

#[test]
fn a_backend_four_times_slower_loses_three_quarters_of_its_share_within_seconds() {
    for load in [0.5, 0.7] {
        let backends: Vec<_> = (1..=4).map(|port| backend(port, "a", class(0), 0.0)).collect();
        let mut fleet = Fleet::of(backends, load * 4.0 * 18.645);
        let usual = fleet.after(120);
        assert!(near(&shares(&usual), &[0.25; 4], 1e-6), "{:?}", shares(&usual));
        assert_eq!(usual.groups.len(), 1);

        fleet.model.backends[1].slowdown = 4.0;
        let eighth = fleet.after(8);
        let groups: Vec<_> = eighth.groups.iter().map(|group| group.group.as_str()).collect();
        assert_eq!(groups, ["a", "a/127.0.0.1:2"]);
        let reason = &eighth.backends[1].reason;
        assert!(reason.contains("4.0 times slower"), "{reason}");
        let last = share(&fleet.after(200), 2);
        assert!(last <= 0.25 * 0.25 * 1.1, "{load}: {last}");
        // On the way down it may get less for a time: what waits there is worked off.
        assert!(share(&eighth, 2) <= 1.2 * last.max(0.25 * 0.0625), "{load}: {} → {last}", share(&eighth, 2));
    }
}

#[test]
fn a_slow_backend_comes_back_to_its_group_once_it_has_been_well() {
    let backends: Vec<_> = (1..=2).map(|port| backend(port, "a", class(0), 0.0)).collect();
    let mut fleet = Fleet::of(backends, 25.0);
    fleet.after(30);
    for _ in 0..10 {
        fleet.model.backends[0].slowdown = 1.5;
        assert_eq!(fleet.after(2).groups.len(), 1, "a moment is chance");
        fleet.model.backends[0].slowdown = 1.0;
        fleet.decide();
    }
    fleet.model.backends[0].slowdown = 1.5;
    assert_eq!(fleet.after(3).groups.len(), 2);
    fleet.model.backends[0].slowdown = 1.3;
    assert_eq!(fleet.after(120).groups.len(), 2, "not well yet");
    fleet.model.backends[0].slowdown = 1.1;
    assert_eq!(fleet.after(55).groups.len(), 2, "not for long");
    fleet.model.backends[0].slowdown = 1.2;
    fleet.decide();
    fleet.model.backends[0].slowdown = 1.0;
    assert_eq!(fleet.after(59).groups.len(), 2, "it was not all the time");
    assert_eq!(fleet.after(3).groups.len(), 1);

    fleet.model.backends[0].slowdown = 2.0;
    fleet.after(60);
    (fleet.model.backends[0].slowdown, fleet.model.backends[0].in_flight) = (1.0, Some(0.0));
    assert_eq!(fleet.decide().groups.len(), 1, "without requests there is nothing to lose");

    fleet.model.backends[1].verdict = Verdict::Sick;
    assert_eq!(fleet.decide().groups.len(), 2);
}

#[test]
fn what_came_since_the_newest_sample_leads_no_further_than_it_would_for_good() {
    let in_flight = |now: f64, age: f64| {
        let mut one = backend(1, "a", class(0), now);
        one.age_seconds = Some(age);
        let published = BTreeMap::from([(one.address, 1.0)]);
        let before = WeightState { published, ..WeightState::default() };
        let decision = decide_weights(&model(vec![one], 10.0), &before, &Law::default(), at(1));
        decision.backends[0].terms.in_flight.unwrap()
    };
    let curve = Curve::of_profile(&class(0), &MIX).unwrap();
    let for_good = curve.in_flight_of_rate(10.0);
    assert!(in_flight(0.0, 0.01) < for_good, "so soon");
    assert!((in_flight(0.0, 4.0) - for_good).abs() < 1e-9, "not the 40 requests that came");
    let drained = in_flight(2.0 * for_good, 1.0);
    assert!(for_good < drained && drained < 2.0 * for_good, "{drained}");
}

#[test]
fn old_telemetry_leads_back_to_the_capacity_share() {
    let ended = |age: Option<f64>| {
        let mut backends: Vec<_> = (1..=4).map(|port| backend(port, "a", class(0), 20.0)).collect();
        (backends[1].slowdown, backends[1].in_flight, backends[1].age_seconds) = (4.0, Some(200.0), age);
        let decision =
            decide_weights(&model(backends, 40.0), &WeightState::default(), &Law::default(), at(0));
        (decision.backends[1].terms.wanted_share, decision.backends[1].reason.clone())
    };
    let by_age: Vec<f64> = [1.0, 4.0, 6.0, 10.0, 14.0, 15.0].map(|age| ended(Some(age)).0).to_vec();
    assert!(by_age.is_sorted(), "{by_age:?}");
    assert!(by_age[0] < 0.05 && (by_age[5] - 0.25).abs() < 1e-9, "{by_age:?}");
    assert_eq!(ended(Some(20.0)).1, "telemetry is stale: capacity share");
    assert_eq!(ended(None), (ended(Some(20.0)).0, "no telemetry: capacity share".to_owned()));
    assert!(ended(Some(10.0)).1.contains("10 s old"), "{}", ended(Some(10.0)).1);
}

#[test]
fn before_a_window_of_telemetry_capacity_decides_and_shares_that_are_known_stay() {
    let mut input = model(four([0.0, 0.0, 300.0, 0.0]), 20.0);
    input.observed_seconds = 2.0;
    let decision = decide_weights(&input, &WeightState::default(), &Law::default(), at(0));
    assert!(near(&shares(&decision), &[0.4886, 0.2713, 0.1580, 0.0821], 1e-4), "{:?}", shares(&decision));
    assert!(decision.backends[2].reason.contains("telemetry yet"), "{:?}", decision.backends[2]);
    let mut known = decision.state;
    known.shares = [(1, 0.4), (2, 0.3), (3, 0.2), (4, 0.1)].map(|(port, x)| (address(port), x)).into();
    known.published = known.shares.clone();
    let kept = decide_weights(&input, &known, &Law::default(), at(1));
    assert!(near(&shares(&kept), &[0.4, 0.3, 0.2, 0.1], 1e-12) && !kept.publish, "{:?}", shares(&kept));
}

#[test]
fn who_is_seen_first_does_not_keep_everything_until_the_law_decides() {
    let (law, mut state) = (Law::default(), WeightState::default());
    let mut input = model(Vec::new(), 20.0);
    for seen in 1..=4_usize {
        input.backends = four([5.0; 4])[4 - seen..].to_vec();
        input.observed_seconds = seen as f64 - 1.0;
        let decision = decide_weights(&input, &state, &law, at(seen as i64));
        let by_capacity: Vec<f64> = capacity_shares(&input).into_values().collect();
        assert!(decision.publish && near(&shares(&decision), &by_capacity, 1e-9), "{:?}", shares(&decision));
        state = decision.state;
    }
}

#[test]
fn a_newcomer_rises_step_by_step() {
    let mut fleet = Fleet::of(vec![backend(1, "a", class(0), 0.0), backend(2, "b", class(0), 0.0)], 10.0);
    fleet.after(30);
    fleet.model.backends.push(backend(3, "c", class(0), 0.0));
    let second = fleet.decide();
    assert!(second.publish);
    assert!((0.05..=0.1).contains(&share(&second, 3)), "{}", share(&second, 3));
}

#[test]
fn a_sick_backend_keeps_a_probing_share_within_seconds_however_old_its_telemetry_is() {
    let backends: Vec<_> = (1..=4).map(|port| backend(port, "a", class(0), 0.0)).collect();
    let mut fleet = Fleet::of(backends, 40.0);
    fleet.after(60);
    fleet.model.backends[1].verdict = Verdict::Sick;
    fleet.model.backends[1].sign = Some(clairvoy_forecaster::AnomalyKind::Silent);
    let first = fleet.decide();
    assert!(share(&first, 2) < 0.12 && first.publish, "{}", share(&first, 2));
    let fourth = fleet.after(3);
    assert!(share(&fourth, 2) < 0.02, "{}", share(&fourth, 2));
    let BackendShare { group, reason, terms, .. } = &fourth.backends[1];
    assert_eq!((group.as_str(), terms.clamp), ("a/127.0.0.1:2", Some(Clamp::Sick)));
    assert_eq!(reason, "is sick (silent); kept at 0.20 requests/s, to be seen well again");
    fleet.model.backends[1].age_seconds = Some(30.0);
    assert!(share(&fleet.after(10), 2) < 0.02, "silence does not make it well");
    (fleet.model.backends[1].verdict, fleet.model.backends[1].age_seconds) = (Verdict::Usual, Some(0.0));
    let well = fleet.after(30);
    assert!(share(&well, 2) > 0.2 && well.groups.len() == 2, "{well:#?}");
    assert_eq!(fleet.after(40).groups.len(), 1, "after a minute");

    fleet.model.backends.iter_mut().take(3).for_each(|backend| backend.verdict = Verdict::Sick);
    let most = fleet.after(5);
    assert!(near(&shares(&most), &[0.25; 4], 0.01) && most.groups.len() == 1, "{:?}", shares(&most));
    assert!(most.backends[0].reason.contains("as most do"), "{}", most.backends[0].reason);
}

#[test]
fn a_backend_that_warms_up_rises_to_its_share_unless_the_others_are_full() {
    let mut backends: Vec<_> = (1..=4).map(|port| backend(port, "a", class(0), 0.0)).collect();
    backends[3].verdict = Verdict::Warming;
    let part = |warmed: f64, arrivals: f64| {
        let mut backends = backends.clone();
        backends[3].warmed = warmed;
        let decision =
            decide_weights(&model(backends, arrivals), &WeightState::default(), &Law::default(), at(0));
        (decision.backends[3].terms.wanted_share / 0.25, decision)
    };
    let parts: Vec<f64> = [0.0, 0.25, 0.5, 1.0].map(|warmed| part(warmed, 40.0).0).to_vec();
    assert!(near(&parts, &[0.2, 0.4, 0.6, 1.0], 1e-6), "{parts:?}");
    let (_, decision) = part(0.5, 40.0);
    assert_eq!(decision.groups.len(), 2);
    assert_eq!(decision.backends[3].reason, "has just started; held at 6.00 requests/s while it warms up");
    // Four serve 74.6 requests/s. At 70 the other three would be above their capacity.
    assert!(part(0.0, 70.0).0 > 0.9, "{:?}", part(0.0, 70.0));

    // Once it is warm it is with its equals again after a minute, and stays there.
    let mut fleet = Fleet::of(backends, 40.0);
    fleet.model.backends[3].warmed = 0.5;
    assert_eq!(fleet.after(10).groups.len(), 2);
    (fleet.model.backends[3].verdict, fleet.model.backends[3].warmed) = (Verdict::Usual, 1.0);
    let groups: Vec<usize> = (0..120).map(|_| fleet.decide().groups.len()).collect();
    assert_eq!(groups, [[2_usize; 60], [1; 60]].concat());
}

#[test]
fn small_moves_are_not_published() {
    let mut fleet = Fleet::of(four([0.0; 4]), 25.0);
    fleet.after(200);
    assert!(!fleet.decide().publish);
    fleet.model.arrivals_rps = 25.3;
    assert!((0..5).all(|_| !fleet.decide().publish));
    // Among equals Envoy itself does better.
    let equals = (1..=2).map(|port| backend(port, "a", class(0), f64::from(port) * 30.0)).collect();
    let mut equals = Fleet::of(equals, 20.0);
    let first = equals.decide();
    assert!(first.publish && shares(&first) == [0.5, 0.5], "{:?}", shares(&first));
    assert!((0..20).all(|_| !equals.decide().publish));
}

#[test]
fn endpoints_get_weights_where_envoys_see_too_few_requests() {
    let mut input = model(four([12.0, 6.0, 3.0, 1.0]), 12.0);
    input.envoys = 64;
    let law = Law::default();
    let mut state = WeightState::default();
    let mut forms = Vec::new();
    for second in 0..40 {
        let decision = decide_weights(&input, &state, &law, at(second));
        forms.push(decision.form);
        state = decision.state;
    }
    assert_eq!(forms.iter().position(|form| *form == Form::Endpoints), Some(30), "once that has lasted");
    let decision = decide_weights(&input, &state, &law, at(40));
    assert_eq!(decision.backends.iter().map(|backend| backend.weight).sum::<u32>(), 100_000);
    let [first, second] = [&decision.backends[0], &decision.backends[1]];
    let raised = |backend: &BackendShare| {
        backend.terms.smoothed_share * (backend.terms.target_in_flight / 64.0 + 1.0).powi(2)
    };
    let ratio = f64::from(first.weight) / f64::from(second.weight);
    assert!((ratio / (raised(first) / raised(second)) - 1.0).abs() < 0.001, "{first:?} {second:?}");
    assert_eq!(first.share, first.terms.smoothed_share);
    // It takes clearly more requests to come back, and there is nothing to weigh among equals.
    input.envoys = 9;
    for second in 40..120 {
        state = decide_weights(&input, &state, &law, at(second)).state;
    }
    assert_eq!(state.form, Form::Endpoints, "0.6 an endpoint and Envoy");
    input.envoys = 4;
    for second in 120..200 {
        state = decide_weights(&input, &state, &law, at(second)).state;
    }
    assert_eq!(state.form, Form::Groups);
}

#[test]
fn whole_weights_add_up() {
    assert_eq!(whole_weights(&[0.75, 0.25], 10_000), [7500, 2500]);
    assert_eq!(whole_weights(&[1.0, 1.0, 1.0], 10_000), [3334, 3333, 3333]);
    assert_eq!(whole_weights(&[1.0, 0.0, f64::NAN], 10), [8, 1, 1]);
    assert_eq!(whole_weights(&[0.0; 3], 2), [1, 1, 1]);
    assert_eq!(whole_weights(&[], 10), [0; 0]);
}
