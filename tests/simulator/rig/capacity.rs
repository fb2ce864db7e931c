//! What the machines can do, measured on their engines in virtual time.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, Exp1};
use serde::{Deserialize, Serialize};

use crate::engine::{Effects, Engine, EngineConfig, Iteration, NewRequest, Profile, TokenGap};
use crate::history::{RequestSize, SeriesError};

use super::cell::SizeSet;
use super::fleet::{Machine, capacity_shares, profile};
use super::gpu::Gpu;
use super::schedule::Arrival;
use super::statistics::Sample;

/// Requests that are given to a saturated engine.
const REQUESTS: usize = 1500;
/// Of the answers, those from this part on are counted: before it the engine fills.
const FROM: f64 = 0.15;
/// Up to here: after it the engine empties.
const UNTIL: f64 = 0.85;
/// An objective is this many times what is usual without much load.
const SLO_FACTOR: f64 = 2.0;
const SEED: u64 = 11;

/// What is promised for a request.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Slo {
    /// Longest time to the first token: twice the 99th percentile on idle machines.
    pub ttft_seconds: f64,
    /// Longest mean time between two tokens: twice the 95th percentile on half-loaded machines.
    pub tpot_seconds: f64,
}

/// Figures of the fleet for one set of sizes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Basis {
    /// The sizes.
    pub sizes: SizeSet,
    /// Requests per second that a saturated machine answers, by class in the order of [`Gpu::ALL`].
    pub rps: [f64; Gpu::ALL.len()],
    /// What is promised.
    pub slo: Slo,
}

impl Basis {
    /// Measures them, in virtual time; it takes seconds.
    ///
    /// # Errors
    /// When the compiled-in data is damaged.
    pub fn measure(set: SizeSet, machines: &[Machine]) -> Result<Self, SeriesError> {
        let sizes = set.sizes()?;
        let rps = Gpu::ALL.map(|class| saturated_rps(profile(class, 1.0), &sizes));
        let shares = class_shares(machines, &rps);
        let (mut ttfts, mut tpots) = (Vec::new(), Vec::new());
        for (class, share) in Gpu::ALL.into_iter().zip(shares) {
            let profile = profile(class, 1.0);
            let some = &sizes[..sizes.len().min(REQUESTS)];
            ttfts.extend(idle_ttfts(profile, some).into_iter().map(|ttft| (ttft, share, 0)));
            let loaded = tpots_at(profile, &sizes, rps[class as usize] / 2.0);
            let weight = share / loaded.len() as f64;
            tpots.extend(loaded.into_iter().map(|tpot| (tpot, weight, 0)));
        }
        let slo = Slo {
            ttft_seconds: SLO_FACTOR * Sample::weighted(ttfts).quantile(0.99),
            tpot_seconds: SLO_FACTOR * Sample::weighted(tpots).quantile(0.95),
        };
        Ok(Self { sizes: set, rps, slo })
    }
}

/// TTFT that each request would have on an idle machine of each class, in the order of [`Gpu::ALL`]; 0 where it can
/// never fit. Simulated seconds.
pub fn idle_seconds(arrivals: &[Arrival]) -> Vec<[f64; Gpu::ALL.len()]> {
    let sizes: Vec<RequestSize> = arrivals.iter().map(|arrival| arrival.size).collect();
    let by_class = Gpu::ALL.map(|class| idle_ttfts(profile(class, 1.0), &sizes));
    (0..arrivals.len()).map(|index| Gpu::ALL.map(|class| by_class[class as usize][index])).collect()
}

/// The part of the fleet's capacity that all machines of a class have.
pub(super) fn class_shares(machines: &[Machine], rps: &[f64; Gpu::ALL.len()]) -> [f64; Gpu::ALL.len()] {
    let mut shares = [0.0; Gpu::ALL.len()];
    for (machine, share) in machines.iter().zip(capacity_shares(machines, rps)) {
        shares[machine.class as usize] += share;
    }
    shares
}

fn engine(profile: Profile) -> Engine {
    Engine::new(EngineConfig { profile, effects: Effects::all(), seed: SEED })
}

fn request(size: RequestSize) -> NewRequest {
    NewRequest { prompt_tokens: size.prompt_tokens, output_tokens: size.output_tokens }
}

/// Requests per second that an engine answers while its queue is never empty. Requests that can never fit are left out.
fn saturated_rps(profile: Profile, sizes: &[RequestSize]) -> f64 {
    let mut engine = engine(profile);
    let mut taken = 0;
    for size in sizes.iter().cycle().take(REQUESTS) {
        taken += usize::from(engine.submit(0.0, request(*size)).is_ok());
    }
    let mut ends = Vec::with_capacity(taken);
    for iteration in engine.advance(f64::INFINITY) {
        let completed = iteration.outputs.iter().filter(|output| output.completion.is_some());
        ends.extend(completed.map(|_| iteration.ended_at));
    }
    let at = |part: f64| (part * ends.len() as f64) as usize;
    let (from, until) = (at(FROM), at(UNTIL));
    match (ends.get(from), ends.get(until)) {
        (Some(first), Some(last)) if last > first => (until - from) as f64 / (last - first),
        _ => 0.0,
    }
}

/// TTFT of each request alone on the machine, seconds; 0 where it can never fit.
fn idle_ttfts(profile: Profile, sizes: &[RequestSize]) -> Vec<f64> {
    let mut engine = engine(profile);
    let mut now = 0.0;
    let mut found = Vec::with_capacity(sizes.len());
    for size in sizes {
        let alone = RequestSize { output_tokens: 1, ..*size };
        // Refused: the iterations below are none.
        let _ = engine.submit(now, request(alone));
        let iterations = engine.advance(f64::INFINITY);
        now = iterations.last().map_or(now, |iteration| iteration.ended_at);
        found.push(ttfts(&iterations).next().unwrap_or(0.0));
    }
    found
}

fn ttfts(iterations: &[Iteration]) -> impl Iterator<Item = f64> {
    iterations.iter().flat_map(|iteration| &iteration.outputs).filter_map(|output| match output.gap {
        TokenGap::First { ttft_seconds, .. } => Some(ttft_seconds),
        TokenGap::Next { .. } => None,
    })
}

/// Mean seconds between two tokens of each request, at Poisson arrivals.
fn tpots_at(profile: Profile, sizes: &[RequestSize], rps: f64) -> Vec<f64> {
    let mut engine = engine(profile);
    let mut rng = StdRng::seed_from_u64(SEED);
    let (mut now, mut iterations) = (0.0, Vec::new());
    for _ in 0..REQUESTS {
        let gap: f64 = Exp1.sample(&mut rng);
        now += gap / rps;
        iterations.append(&mut engine.advance(now));
        // One that can never fit is left out.
        let _ = engine.submit(now, request(sizes[rng.random_range(0..sizes.len())]));
    }
    iterations.append(&mut engine.advance(f64::INFINITY));
    let mut first = std::collections::HashMap::new();
    let mut found = Vec::new();
    for iteration in &iterations {
        for output in &iteration.outputs {
            if matches!(output.gap, TokenGap::First { .. }) {
                first.insert(output.id, iteration.ended_at);
            }
            if let (Some(completion), Some(begin)) = (output.completion, first.get(&output.id))
                && completion.output_tokens > 1
            {
                found.push((iteration.ended_at - begin) / f64::from(completion.output_tokens - 1));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::fleet::machines;
    use super::*;

    #[test]
    fn faster_classes_take_more_of_either_sizes() {
        for set in SizeSet::ALL {
            let basis = Basis::measure(set, &machines()).unwrap();
            assert!(basis.rps.iter().rev().is_sorted() && basis.rps[3] > 0.0, "{basis:?}");
            assert!(basis.slo.ttft_seconds > 0.1 && basis.slo.tpot_seconds > 0.02, "{basis:?}");
        }
    }

    #[test]
    fn saturated_means_that_more_cannot_be_answered() {
        let sizes = SizeSet::Code.sizes().unwrap();
        let profile = profile(Gpu::A100, 1.0);
        let rps = saturated_rps(profile, &sizes);
        let answered_by = |rate: f64| {
            let mut engine = engine(profile);
            for index in 0..1000 {
                let now = index as f64 / rate;
                engine.advance(now);
                engine.submit(now, request(sizes[index])).unwrap();
            }
            engine.state().waiting
        };
        assert!(answered_by(rps * 0.9) < 50, "{rps}");
        assert!(answered_by(rps * 1.3) > 100, "{rps}");
    }

    #[test]
    fn an_idle_machine_answers_longer_prompts_later() {
        let arrival = |prompt_tokens| {
            let size = RequestSize { prompt_tokens, output_tokens: 9 };
            Arrival { at: 0.0, gateway: 0, sizes: SizeSet::Code, size }
        };
        let idle = idle_seconds(&[arrival(100), arrival(10_000)]);
        for class in Gpu::ALL {
            assert!(idle[0][class as usize] * 5.0 < idle[1][class as usize], "{idle:?}");
        }
        assert!(idle[1].is_sorted(), "slower classes answer later: {idle:?}");
    }

    /// Prints what the cells are made of.
    #[test]
    #[ignore = "an exhibit: run it with --ignored --nocapture"]
    fn print_bases() {
        for set in SizeSet::ALL {
            let basis = Basis::measure(set, &machines()).unwrap();
            println!(
                "{basis:?}: fleet {:.1} requests/s",
                super::super::capacity_rps(&machines(), &basis.rps)
            );
        }
    }
}
