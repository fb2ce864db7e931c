//! Measures the sustainable rate of each class in virtual time.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, LogNormal};

use super::{Effects, Engine, EngineConfig, NewRequest, Profile, SpeedClass, TokenGap};

const TRAFFIC_SECONDS: f64 = 1200.0;

/// 95th percentile of TTFT at a Poisson arrival rate.
fn ttft_p95(class: SpeedClass, rps: f64, seed: u64) -> f64 {
    let prompt = LogNormal::new(1469f64.ln(), 0.985).unwrap();
    let output = LogNormal::new(13f64.ln(), 1.2).unwrap();
    let profile = Profile { max_waiting: usize::MAX, ..class.profile() };
    let mut rng = StdRng::seed_from_u64(seed);
    let mut engine = Engine::new(EngineConfig { profile, effects: Effects::all(), seed });
    let mut ttfts = Vec::new();
    let mut collect = |iterations: Vec<super::Iteration>| {
        for output in iterations.into_iter().flat_map(|iteration| iteration.outputs) {
            if let TokenGap::First { ttft_seconds, .. } = output.gap {
                ttfts.push(ttft_seconds);
            }
        }
    };
    let mut now = 0.0;
    while now < TRAFFIC_SECONDS {
        now -= (1.0 - rng.random::<f64>()).ln() / rps;
        collect(engine.advance(now));
        let request = NewRequest {
            prompt_tokens: prompt.sample(&mut rng).clamp(3.0, 7437.0) as u32,
            output_tokens: output.sample(&mut rng).clamp(1.0, 1900.0) as u32,
        };
        engine.submit(now, request).unwrap();
    }
    collect(engine.advance(f64::INFINITY));
    ttfts.sort_by(f64::total_cmp);
    ttfts[ttfts.len() * 95 / 100]
}

/// The median over seeds, so that one unlucky burst does not decide.
fn typical_ttft_p95(class: SpeedClass, rps: f64) -> f64 {
    let mut values: Vec<f64> = (1..=5).map(|seed| ttft_p95(class, rps, seed)).collect();
    values.sort_by(f64::total_cmp);
    values[2]
}

#[test]
fn each_class_sustains_the_rate_that_its_documentation_states() {
    for class in SpeedClass::ALL {
        let rps = class.sustainable_rps();
        let (at, above) = (typical_ttft_p95(class, rps), typical_ttft_p95(class, rps * 1.1));
        assert!(at < 2.0, "{class}: TTFT p95 {at:.2} s at {rps} requests/s");
        assert!(above > 2.0, "{class}: TTFT p95 still {above:.2} s at 1.1 times {rps} requests/s");
    }
}

/// Prints the table from which the figures of [`SpeedClass`] come.
#[test]
#[ignore = "an exhibit: run it with --ignored --nocapture"]
fn print_sustainable_rates() {
    for class in SpeedClass::ALL {
        let (mut low, mut high) = (0.2, 15.0);
        for _ in 0..10 {
            let middle = (low + high) / 2.0;
            if typical_ttft_p95(class, middle) < 2.0 { low = middle } else { high = middle }
        }
        println!("{class}: sustains {low:.2} requests/s");
        for part in [0.5, 0.8, 0.9, 0.95, 1.0, 1.05, 1.1, 1.2] {
            let rps = part * low;
            println!("  at {rps:6.2} requests/s: TTFT p95 {:.2} s", typical_ttft_p95(class, rps));
        }
    }
}
