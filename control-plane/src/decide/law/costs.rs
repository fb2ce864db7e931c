use std::collections::BTreeMap;

use super::super::curve::Curve;
use super::input::{BackendInput, Law};
use super::level::{Side, solve};

/// Halvings in the search for how far cheap backends can go first.
const STEPS: u32 = 20;

/// Costs that differ by less than this part of the least count only in proportion: what is learned of capacities wavers, and
/// who is the cheapest may change with it.
const LEAST_SPAN: f64 = 0.5;

/// Has cheaper backends go first, by the weight of costs, as far as none is filled beyond what keeps the objective.
///
/// A request costs the price of a pool's time by the requests that it serves at its usual speed. The level of the dearest is
/// taken to lie so much higher that, at weight 1, the cheapest are full before they get anything; that of the others by their
/// cost in between. Then the surcharge of all is lowered by one factor until no backend is loaded beyond [`Law::fill`], or beyond
/// what it would have without any: the dearer ones take what is more. One that is to gain and has as much without a surcharge
/// leaves none.
pub(super) fn prefer_cheap(
    sides: &mut [Side],
    backends: &[&BackendInput],
    usual: &[Curve],
    arrivals_rps: f64,
    law: &Law,
) {
    let Some(parts) = dearness(usual, backends).filter(|_| law.cost_weight > 0.0) else { return };
    // At usual speed: one that is slow now changes nothing for the others.
    let full = usual.iter().map(|curve| curve.cost_when_full(law.barrier)).fold(0.0, f64::max);
    let mut loads = |scale: f64| {
        for (side, part) in sides.iter_mut().zip(&parts) {
            side.surcharge_seconds = scale * law.cost_weight * full * part;
        }
        let level = solve(sides, arrivals_rps, law);
        sides.iter().map(|side| side.load(level, law)).collect::<Vec<f64>>()
    };
    let most: Vec<f64> = loads(0.0).into_iter().map(|load| load.max(law.fill) + 1e-9).collect();
    let mut holds = |scale: f64| loads(scale).iter().zip(&most).all(|(load, most)| load <= most);
    if holds(1.0) {
        return;
    }
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..STEPS {
        let middle = f64::midpoint(low, high);
        if holds(middle) { low = middle } else { high = middle }
    }
    holds(low);
}

/// How dear a request is at each backend, from 0 in the cheapest pool to 1; none where nothing is known or all cost the same.
/// The speed of the moment is left out: one that runs slow gets less as it is. A pool without a price costs as much as the
/// others in the mean.
fn dearness(usual: &[Curve], backends: &[&BackendInput]) -> Option<Vec<f64>> {
    let mut pools = BTreeMap::<&str, (f64, f64)>::new();
    for (backend, curve) in backends.iter().zip(usual) {
        let price = backend.price_per_hour.filter(|price| price.is_finite() && *price >= 0.0);
        if let Some(price) = price {
            let (prices, capacity) = pools.entry(backend.pool.as_str()).or_default();
            *prices += price;
            *capacity += curve.capacity_rps();
        }
    }
    let costs: BTreeMap<&str, f64> =
        pools.into_iter().map(|(pool, (prices, capacity))| (pool, prices / capacity)).collect();
    let mean = costs.values().sum::<f64>() / costs.len().max(1) as f64;
    let least = costs.values().copied().fold(f64::INFINITY, f64::min);
    let span = costs.values().copied().fold(0.0, f64::max) - least;
    let part = |backend: &&BackendInput| {
        let cost = costs.get(backend.pool.as_str()).copied().unwrap_or(mean);
        (cost - least) / span.max(LEAST_SPAN * least)
    };
    (span.is_finite() && span > 0.0).then(|| backends.iter().map(part).collect())
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use chrono::DateTime;
    use proptest::prelude::*;

    use super::super::{ModelInput, WeightState, decide_weights};
    use super::*;
    use crate::decide::{Mix, Profile, Verdict};

    fn backend(number: u16, price_per_hour: Option<f64>) -> BackendInput {
        BackendInput {
            address: SocketAddr::from(([10, 0, 0, 1], number)),
            pool: number.to_string(),
            zone: String::new(),
            profile: Some(Profile {
                fixed_seconds: 0.01,
                per_sequence_seconds: 0.000_2,
                per_prompt_token_seconds: 0.000_02,
                per_kv_token_seconds: 0.0,
                max_sequences: Some(64.0),
                kv_tokens: None,
                token_budget: None,
            }),
            capacity_rps: None,
            at_ease_rps: None,
            slowdown: 1.0,
            in_flight: None,
            age_seconds: Some(0.0),
            verdict: Verdict::Usual,
            warmed: 1.0,
            sign: None,
            price_per_hour,
        }
    }

    /// Shares of two equal backends, of which one costs four times as much, at a part of their capacity.
    fn shares(load: f64, cost_weight: f64) -> (f64, f64) {
        shares_at([Some(1.0), Some(4.0)], load, cost_weight)
    }

    fn shares_at(prices: [Option<f64>; 2], load: f64, cost_weight: f64) -> (f64, f64) {
        let backends = vec![backend(1, prices[0]), backend(2, prices[1])];
        let mix = Mix::of(500.0, 100.0);
        let capacity = backends[0].profile.map_or(0.0, |profile| profile.capacity_rps(&mix));
        let model = ModelInput {
            arrivals_rps: 2.0 * load * capacity,
            mix,
            envoys: 1,
            steered_part: 1.0,
            observed_seconds: 60.0,
            backends,
        };
        let law = Law { cost_weight, fill: 0.7, ..Law::default() };
        let decision = decide_weights(&model, &WeightState::default(), &law, DateTime::UNIX_EPOCH);
        (decision.backends[0].share, decision.backends[1].share)
    }

    #[test]
    fn the_cheap_one_is_filled_as_far_as_it_keeps_the_objective() {
        let (cheap, dear) = shares(0.2, 0.0);
        assert!((cheap - dear).abs() < 1e-6, "no weight, no difference: {cheap} {dear}");
        let (cheap, dear) = shares(0.2, 1.0);
        assert!(cheap > 0.95 && dear > 0.0, "{cheap} {dear}");
        // 0.5 of both: the cheap one takes 0.7 of its own, which is 0.7 of all.
        let (cheap, _) = shares(0.5, 1.0);
        assert!((0.66..0.71).contains(&cheap), "{cheap}");
        let (cheap, dear) = shares(0.9, 1.0);
        assert!((cheap - dear).abs() < 0.01, "beyond the objective both are needed: {cheap} {dear}");
    }

    #[test]
    fn without_prices_or_with_one_price_nothing_changes() {
        let sides_differ = |prices: [Option<f64>; 2]| {
            let backends = [backend(1, prices[0]), backend(2, prices[1])];
            let input = |cost_weight| {
                let model = ModelInput {
                    arrivals_rps: 2.0,
                    mix: Mix::of(500.0, 100.0),
                    envoys: 1,
                    steered_part: 1.0,
                    observed_seconds: 60.0,
                    backends: backends.to_vec(),
                };
                let law = Law { cost_weight, ..Law::default() };
                decide_weights(&model, &WeightState::default(), &law, DateTime::UNIX_EPOCH).state
            };
            input(0.0) != input(1.0)
        };
        assert!(!sides_differ([None, None]) && !sides_differ([Some(2.0), Some(2.0)]));
        assert!(!sides_differ([Some(2.0), None]), "what has no price costs as much as the others");
        assert!(sides_differ([Some(2.0), Some(3.0)]));
    }

    #[test]
    fn what_costs_nearly_the_same_is_nearly_treated_alike() {
        let of = |price| shares_at([Some(1.0), Some(price)], 0.2, 1.0).0;
        let (same, close, far) = (of(1.0), of(1.005), of(1.1));
        assert!((same - 0.5).abs() < 1e-6 && far > 0.95, "{same} {far}");
        assert!(close > 0.51 && close < 0.8, "{close}");
    }

    fn curve() -> Curve {
        Curve::of_profile(&backend(1, None).profile.unwrap(), &Mix::of(500.0, 100.0)).unwrap()
    }

    /// Seconds of two backends that take what they are given, looked at a second later: the share of the cheap one over time,
    /// and how full both are in the end.
    fn run(load: f64, noise: &[f64]) -> (Vec<f64>, [f64; 2]) {
        let mix = Mix::of(500.0, 100.0);
        let mut backends = [backend(1, Some(1.0)), backend(2, Some(4.0))];
        let (curve, arrivals_rps) = (curve(), 2.0 * load * curve().capacity_rps());
        let (mut state, mut in_flight, mut seen) = (WeightState::default(), [0.0; 2], [0.0; 2]);
        let law = Law { cost_weight: 1.0, fill: 0.7, ..Law::default() };
        let mut cheap = Vec::new();
        for (second, noise) in noise.iter().enumerate() {
            for (backend, seen) in backends.iter_mut().zip(seen) {
                (backend.in_flight, backend.age_seconds) = (Some(seen), Some(1.0));
            }
            let model = ModelInput {
                arrivals_rps,
                mix,
                envoys: 1,
                steered_part: 1.0,
                observed_seconds: 60.0,
                backends: backends.to_vec(),
            };
            let now = DateTime::UNIX_EPOCH + chrono::TimeDelta::seconds(second as i64);
            let decision = decide_weights(&model, &state, &law, now);
            seen = in_flight;
            let came = arrivals_rps * noise;
            for (in_flight, share) in in_flight.iter_mut().zip(&decision.backends) {
                for _ in 0..10 {
                    *in_flight += 0.1 * (came * share.share - curve.rate(*in_flight));
                    *in_flight = in_flight.max(0.0);
                }
            }
            cheap.push(decision.backends[0].share);
            state = decision.state;
        }
        (cheap, in_flight.map(|in_flight| in_flight / curve.places))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]
        #[test]
        fn it_comes_to_rest_and_nothing_waits(
            load in 0.05..0.9f64, noise in prop::collection::vec(0.8..1.2f64, 240),
        ) {
            let (cheap, filled) = run(load, &[1.0; 240]);
            let last = &cheap[180..];
            let swing = last.iter().copied().fold(0.0, f64::max) - last.iter().copied().fold(1.0, f64::min);
            prop_assert!(swing < 0.01, "{} {:?}", swing, last);
            prop_assert!(filled.iter().all(|filled| *filled < 1.0), "{:?}", filled);
            // All but the floor of the other one, or as much as fills it.
            let arrivals_rps = 2.0 * load * curve().capacity_rps();
            let floor = 0.1f64.min(0.05 * arrivals_rps).max(0.01 * arrivals_rps) / arrivals_rps;
            let wanted = (1.0 - floor).min(0.35 / load).max(0.5);
            prop_assert!((cheap[239] - wanted).abs() < 0.03, "{} instead of {}", cheap[239], wanted);
            // What comes by chance moves shares little.
            let (cheap, _) = run(load, &noise);
            let moved: f64 = cheap[120..].windows(2).map(|pair| (pair[1] - pair[0]).abs()).sum();
            prop_assert!(moved / 120.0 < 0.03, "{}", moved);
        }
    }

    proptest! {
        #[test]
        fn the_cheap_one_gains_with_the_weight_and_never_more_than_keeps_the_objective(
            load in 0.05..1.2f64, weight in 0.0..=1.0f64, more in 0.0..=1.0f64,
        ) {
            let (less, more) = (shares(load, weight.min(more)).0, shares(load, weight.max(more)).0);
            prop_assert!(more >= less - 0.01, "{} {}", less, more);
            prop_assert!(2.0 * load * more <= 0.71f64.max(1.02 * load) , "{} {}", load, more);
        }
    }
}
