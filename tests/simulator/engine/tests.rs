use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

fn profile() -> Profile {
    SpeedClass::Fast.profile()
}

fn engine(profile: Profile, effects: Effects) -> Engine {
    Engine::new(EngineConfig { profile, effects, seed: 7 })
}

fn request(prompt_tokens: u32, output_tokens: u32) -> NewRequest {
    NewRequest { prompt_tokens, output_tokens }
}

fn ttfts(iterations: &[Iteration]) -> Vec<f64> {
    let outputs = iterations.iter().flat_map(|iteration| &iteration.outputs);
    outputs
        .filter_map(|output| match output.gap {
            TokenGap::First { ttft_seconds, .. } => Some(ttft_seconds),
            TokenGap::Next { .. } => None,
        })
        .collect()
}

#[test]
fn plain_iteration_time_is_the_linear_law() {
    let profile = profile();
    let mut engine = engine(profile, Effects::none());
    engine.submit(0.0, request(100, 3)).unwrap();
    let iterations = engine.advance(f64::INFINITY);
    let expected = [(100, 0), (0, 100), (0, 101)].map(|(prefill, kv)| {
        profile.base_seconds
            + profile.sequence_seconds
            + profile.prefill_token_seconds * f64::from(prefill)
            + profile.kv_token_seconds * f64::from(kv)
    });
    let seconds: Vec<f64> = iterations.iter().map(Iteration::seconds).collect();
    assert_eq!(seconds.len(), 3);
    for (seconds, expected) in seconds.iter().zip(expected) {
        assert!((seconds - expected).abs() < 1e-12, "{seconds} instead of {expected}");
    }
}

#[test]
fn long_prompt_is_computed_in_chunks_beside_decodes() {
    let mut engine = engine(profile(), Effects::none());
    engine.submit(0.0, request(16, 50)).unwrap();
    engine.advance(0.02);
    engine.submit(0.02, request(5000, 1)).unwrap();
    let iterations = engine.advance(f64::INFINITY);
    let chunks: Vec<u32> = iterations.iter().map(|i| i.prefill_tokens).filter(|&tokens| tokens > 0).collect();
    assert_eq!(chunks, [2047, 2047, 906]);
    assert!(iterations.iter().all(|i| i.prefill_tokens as usize + i.sequences <= 2048 + 1));
}

#[test]
fn ttft_grows_with_the_queue() {
    let mut engine = engine(profile(), Effects::none());
    for _ in 0..40 {
        engine.submit(0.0, request(2048, 4)).unwrap();
    }
    let ttfts = ttfts(&engine.advance(f64::INFINITY));
    assert_eq!(ttfts.len(), 40);
    assert!(ttfts.is_sorted());
    assert!(ttfts[39] > 20.0 * ttfts[0], "first {} s, last {} s", ttfts[0], ttfts[39]);
}

#[test]
fn slow_factor_4_makes_iterations_4_times_longer() {
    let run = |factor| {
        let mut engine = engine(profile(), Effects::all());
        engine.set_slow_factor(factor);
        for _ in 0..10 {
            engine.submit(0.0, request(500, 20)).unwrap();
        }
        let iterations = engine.advance(f64::INFINITY);
        iterations.iter().map(Iteration::seconds).collect::<Vec<_>>()
    };
    let (healthy, slow) = (run(1.0), run(4.0));
    assert_eq!(healthy.len(), slow.len());
    for (healthy, slow) in healthy.iter().zip(&slow) {
        assert!((slow / healthy - 4.0).abs() < 1e-9);
    }
}

#[test]
fn small_kv_cache_preempts_the_newest_and_all_complete() {
    let small = Profile { num_blocks: 20, ..profile() };
    let mut engine = engine(small, Effects { preemption: true, ..Effects::none() });
    let ids: Vec<RequestId> = (0..4).map(|_| engine.submit(0.0, request(64, 100)).unwrap()).collect();
    let iterations = engine.advance(f64::INFINITY);
    assert!(engine.state().totals.preemptions > 0);
    let done: HashMap<RequestId, Completion> = iterations
        .iter()
        .flat_map(|iteration| &iteration.outputs)
        .filter_map(|output| Some((output.id, output.completion?)))
        .collect();
    assert_eq!(done.len(), 4);
    assert_eq!(done[&ids[0]].preemptions, 0, "the oldest is never preempted");
    assert!(done.values().all(|completion| completion.output_tokens == 100));
}

#[test]
fn without_preemption_a_request_waits_until_its_whole_length_fits() {
    let small = Profile { num_blocks: 20, ..profile() };
    let mut engine = engine(small, Effects::none());
    for _ in 0..4 {
        engine.submit(0.0, request(64, 100)).unwrap();
    }
    let iterations = engine.advance(f64::INFINITY);
    assert_eq!(engine.state().totals.preemptions, 0);
    assert!(iterations.iter().all(|iteration| iteration.sequences == 1));
}

#[test]
fn prefix_cache_saves_prefill() {
    let prefill = |effects| {
        let mut engine = engine(profile(), effects);
        for _ in 0..100 {
            engine.submit(0.0, request(2000, 1)).unwrap();
        }
        let tokens: u32 =
            engine.advance(f64::INFINITY).iter().map(|iteration| iteration.prefill_tokens).sum();
        (tokens, engine.state().totals)
    };
    let (without, none) = prefill(Effects::none());
    let (with, totals) = prefill(Effects { prefix_cache: true, ..Effects::none() });
    assert_eq!((without, none.prefix_hits), (200_000, 0));
    assert_eq!(u64::from(with), 200_000 - totals.prefix_hits);
    assert!(totals.prefix_hits > 10_000 && totals.prefix_queries == 200_000);
}

#[test]
fn large_batches_cost_more_than_the_linear_law() {
    let seconds = |effects| {
        let mut engine = engine(profile(), effects);
        for _ in 0..60 {
            engine.submit(0.0, request(16, 30)).unwrap();
        }
        engine.advance(f64::INFINITY).iter().map(Iteration::seconds).sum::<f64>()
    };
    let (linear, full) = (seconds(Effects::none()), seconds(Effects { nonlinear: true, ..Effects::none() }));
    assert!(full > 1.1 * linear, "{full} s against {linear} s");
}

#[test]
fn noise_is_seeded_and_has_mean_one() {
    let total = |effects, seed| {
        let mut engine = Engine::new(EngineConfig { profile: profile(), effects, seed });
        engine.submit(0.0, request(10, 5000)).unwrap();
        engine.advance(f64::INFINITY).iter().map(Iteration::seconds).sum::<f64>()
    };
    let noisy = Effects { noise: true, ..Effects::none() };
    assert_eq!(total(noisy, 3), total(noisy, 3));
    assert_ne!(total(noisy, 3), total(noisy, 4));
    assert!((total(noisy, 3) / total(Effects::none(), 3) - 1.0).abs() < 0.01);
}

#[test]
fn stall_delays_the_iteration_in_flight() {
    let mut engine = engine(profile(), Effects::none());
    engine.submit(0.0, request(10, 1)).unwrap();
    engine.stall_until(5.0);
    assert!(engine.advance(4.9).is_empty());
    assert_eq!(ttfts(&engine.advance(5.0)), [5.0]);
}

#[test]
fn impossible_requests_are_refused() {
    let tiny = Profile { num_blocks: 10, max_waiting: 1, max_num_seqs: 1, ..profile() };
    let mut engine = engine(tiny, Effects::all());
    assert_eq!(engine.submit(0.0, request(150, 11)), Err(SubmitError::TooLong { tokens: 161, limit: 160 }));
    engine.submit(0.0, request(10, 10)).unwrap();
    engine.submit(0.0, request(10, 10)).unwrap();
    assert_eq!(engine.submit(0.0, request(10, 10)), Err(SubmitError::QueueFull { limit: 1 }));
    assert_eq!(engine.state().totals.refused, 1);
}

proptest! {
    /// Whatever is submitted and cancelled, each request ends exactly once, with all its tokens, in order of
    /// time, and the cache is empty afterwards.
    #[test]
    fn each_request_completes_or_is_cancelled(
        requests in prop::collection::vec((1u32..300, 1u32..60, 0.0..0.2, prop::option::of(0.0..1.0)), 1..60),
        num_blocks in 23u32..60,
        preemption: bool,
        seed: u64,
    ) {
        let profile = Profile { num_blocks, max_num_seqs: 8, token_budget: 64, ..profile() };
        let effects = Effects { preemption, ..Effects::all() };
        let mut engine = Engine::new(EngineConfig { profile, effects, seed });
        let mut now = 0.0;
        let mut iterations = Vec::new();
        let mut cancels: Vec<(f64, RequestId)> = Vec::new();
        let mut cancelled = 0;
        for &(prompt_tokens, output_tokens, gap, cancel_after) in &requests {
            now += gap;
            iterations.extend(engine.advance(now));
            cancels.retain(|&(at, id)| {
                let due = at <= now;
                cancelled += u64::from(due && engine.cancel(id));
                !due
            });
            let id = engine.submit(now, request(prompt_tokens, output_tokens)).unwrap();
            cancels.extend(cancel_after.map(|after| (now + after, id)));
            let state = engine.state();
            prop_assert!(state.running <= 8 && (0.0..=1.0).contains(&state.kv_used));
        }
        iterations.extend(engine.advance(f64::INFINITY));

        let mut tokens: HashMap<RequestId, u32> = HashMap::new();
        let mut completed = 0;
        let mut clock = 0.0;
        for iteration in &iterations {
            prop_assert!(iteration.started_at >= clock && iteration.ended_at > iteration.started_at);
            clock = iteration.ended_at;
            for output in &iteration.outputs {
                *tokens.entry(output.id).or_default() += 1;
                if let Some(completion) = output.completion {
                    completed += 1;
                    prop_assert_eq!(tokens.remove(&output.id), Some(completion.output_tokens));
                    prop_assert!(completion.queue_seconds >= 0.0 && completion.queue_seconds < completion.e2e_seconds);
                }
            }
        }
        let state = engine.state();
        prop_assert_eq!(completed + cancelled, requests.len() as u64);
        prop_assert_eq!((state.totals.completed, state.totals.cancelled), (completed, cancelled));
        prop_assert_eq!((state.running, state.waiting, state.kv_used), (0, 0, 0.0));
        prop_assert!(preemption || state.totals.preemptions == 0);
    }
}
