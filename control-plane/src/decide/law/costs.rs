use super::input::{BackendInput, Law};
use super::level::{Side, solve};

/// Halvings in the search for how far cheap backends can go first.
const STEPS: u32 = 10;

/// Has cheaper backends go first, by the weight of costs, as far as none is filled beyond what keeps the objective.
///
/// A request costs the price of its backend's time by the requests that it serves. The level of the dearest is taken to lie so
/// much higher that, at weight 1, the cheapest are full before they get anything; that of the others by their cost in between.
/// Then the surcharge is lowered until no backend is loaded beyond [`Law::fill`], or beyond what it would have without any: the
/// dearer ones take what is more.
pub(super) fn prefer_cheap(sides: &mut [Side], backends: &[&BackendInput], arrivals_rps: f64, law: &Law) {
    let Some(parts) = dearness(sides, backends).filter(|_| law.cost_weight > 0.0) else { return };
    let full = sides.iter().map(|side| side.curve.cost_when_full(law.barrier)).fold(0.0, f64::max);
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

/// How dear a request is at each backend, from 0 at the cheapest to 1; none where nothing is known or all cost the same.
/// What has no price costs as much as the others in the mean.
fn dearness(sides: &[Side], backends: &[&BackendInput]) -> Option<Vec<f64>> {
    let cost = |(side, backend): (&Side, &&BackendInput)| {
        let price = backend.price_per_hour.filter(|price| price.is_finite() && *price >= 0.0)?;
        Some(price / side.curve.capacity_rps())
    };
    let costs: Vec<Option<f64>> = sides.iter().zip(backends).map(cost).collect();
    let known: Vec<f64> = costs.iter().flatten().copied().collect();
    let mean = known.iter().sum::<f64>() / known.len().max(1) as f64;
    let least = known.iter().copied().fold(f64::INFINITY, f64::min);
    let span = known.iter().copied().fold(0.0, f64::max) - least;
    let differ = span.is_finite() && span > 1e-9 * mean;
    differ.then(|| costs.iter().map(|cost| (cost.unwrap_or(mean) - least) / span).collect())
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
            slowdown: 1.0,
            in_flight: None,
            age_seconds: Some(0.0),
            sent_since: None,
            completed_since: None,
            verdict: Verdict::Usual,
            warmed: 1.0,
            sign: None,
            price_per_hour,
        }
    }

    /// Shares of two equal backends, of which one costs four times as much, at a part of their capacity.
    fn shares(load: f64, cost_weight: f64) -> (f64, f64) {
        let backends = vec![backend(1, Some(1.0)), backend(2, Some(4.0))];
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
