//! Load as it was never seen before: what is slowness then, and what is not.

use super::*;

/// The first seconds of a simulated engine: a few short requests, then a full batch with long prompts. Milliseconds, sequences,
/// prompt tokens and thousands of resident ones of an iteration, and its weight.
#[rustfmt::skip]
const FIRST_LOAD: [(f64, f64, f64, f64, f64); 36] = [
    (28.0, 1.3, 275.0, 6.5, 1.0), (16.0, 1.2, 778.0, 6.6, 0.6), (20.0, 1.6, 115.0, 3.1, 1.0), (15.0, 1.0, 0.0, 3.1, 1.0),
    (16.0, 1.5, 4.0, 3.2, 1.0), (19.0, 1.0, 26.0, 2.7, 1.0), (24.0, 2.7, 208.0, 1.7, 1.0), (15.0, 1.0, 0.0, 4.8, 0.5),
    (16.0, 1.4, 308.0, 3.3, 1.0), (16.0, 1.2, 72.0, 1.5, 1.0), (20.0, 1.5, 68.0, 1.5, 1.0), (23.0, 1.5, 117.0, 1.7, 1.0),
    (17.0, 1.5, 143.0, 4.0, 1.0), (16.0, 1.0, 436.0, 6.7, 0.6), (18.0, 1.4, 122.0, 7.7, 1.0), (26.0, 2.0, 211.0, 0.3, 1.0),
    (24.0, 1.9, 134.0, 4.8, 1.0), (22.0, 3.0, 98.0, 0.6, 1.0), (19.0, 2.0, 67.0, 3.2, 1.0), (28.0, 3.8, 162.0, 10.9, 1.0),
    (143.0, 4.3, 2044.0, 17.3, 1.0), (167.0, 10.2, 2039.0, 29.3, 1.0), (143.0, 16.0, 1908.0, 24.8, 1.0), (143.0, 17.1, 2032.0, 36.6, 1.0),
    (167.0, 18.0, 2031.0, 46.5, 1.0), (143.0, 18.9, 2030.0, 41.4, 1.0), (167.0, 22.2, 2028.0, 54.4, 1.0), (167.0, 26.0, 1998.0, 46.6, 1.0),
    (167.0, 25.7, 2024.0, 52.6, 1.0), (167.0, 26.5, 2023.0, 49.8, 1.0), (167.0, 26.0, 2022.0, 51.9, 1.0), (167.0, 24.0, 2025.0, 53.8, 1.0),
    (143.0, 23.0, 2026.0, 51.5, 1.0), (167.0, 21.8, 2027.0, 47.9, 1.0), (167.0, 23.5, 2026.0, 55.7, 1.0), (167.0, 27.5, 2022.0, 33.8, 1.0),
];

/// What an iteration costs under load was never seen before, and is no slowness.
#[test]
fn the_first_load_after_calm_is_learned_and_no_slowdown() {
    let mut learner = Learner::default();
    for (milliseconds, sequences, prompt_tokens, resident_thousands, weight) in FIRST_LOAD {
        learner.observe(&Iteration {
            seconds: milliseconds / 1000.0,
            sequences,
            prompt_tokens,
            resident_tokens: 1000.0 * resident_thousands,
            weight,
            interval_seconds: 1.0,
        });
        assert!(learner.slowdown() < 1.5, "{}", learner.slowdown());
    }
    // An iteration of 27 sequences with 2,022 tokens of prompts takes 0.16 s: 6.2 requests/s.
    let capacity = learner.profile(&size()).unwrap().capacity_rps(&Mix::of(2050.0, 27.0));
    assert!((4.5..8.0).contains(&capacity), "{capacity}");
}

/// Throttled, so that its batch fills: every interval is of a kind that was never seen, and yet it is slow.
#[test]
fn throttling_shows_though_the_batch_is_as_never_before() {
    for (class, truth) in CLASSES.iter().enumerate() {
        for (calm_seconds, fills_in, seed) in [(40, 5.0, 0), (40, 5.0, 1), (300, 20.0, 2), (300, 1.0, 3)] {
            let (mut learner, mut traffic) = (Learner::default(), Traffic::new(seed, 0.05));
            let mut interval = |sequences: f64, times: f64| {
                let prompt_tokens = times * (1.0 + 4.0 * traffic.random.random::<f64>());
                let resident = sequences * (240.0 + 320.0 * traffic.random.random::<f64>());
                traffic.iteration(truth, sequences, prompt_tokens, resident, times)
            };
            for second in 0..calm_seconds {
                learner.observe(&interval(1.0 + f64::from(second % 3), 1.0));
            }
            for second in 1..=30 {
                let sequences = (60.0 * f64::from(second) / fills_in).clamp(3.0, 60.0);
                learner.observe(&interval(sequences, 4.0));
                let slowdown = learner.slowdown();
                assert!(
                    second < 8 || slowdown > 1.4,
                    "class {class}, {calm_seconds} s, {second}: {slowdown}"
                );
            }
        }
    }
}

/// All that was seen were steps full of prompts, so it is not known what a step costs without any: for a while that looks like slowness.
#[test]
fn a_profile_that_was_wrong_is_told_from_slowness() {
    let odd = truth(0.06, 0.000_2, 0.000_05, 0.000_000_1);
    for seed in 0..10 {
        let (mut learner, mut traffic) = (Learner::default(), Traffic::new(seed, 0.05));
        for _ in 0..100 {
            learner.observe(&traffic.iteration(&odd, 3.0, 2040.0, 6000.0, 1.0));
        }
        let mut slowdowns = Vec::new();
        for second in 0..60 {
            let prompt_tokens = if second % 3 == 0 { 2000.0 } else { 0.0 };
            learner.observe(&traffic.iteration(&odd, 2.0, prompt_tokens, 4000.0, 1.0));
            slowdowns.push(learner.slowdown());
        }
        assert!(slowdowns[20..].iter().all(|slowdown| *slowdown < 1.4), "seed {seed}: {slowdowns:?}");
        let decoding = learner.profile(&size()).unwrap().iteration_seconds(2.0, 0.0, 4000.0);
        assert!((0.045..0.075).contains(&decoding), "seed {seed}: {decoding}");
        // And slowness is slowness.
        for second in 0..20 {
            let prompt_tokens = if second % 3 == 0 { 2000.0 } else { 0.0 };
            learner.observe(&traffic.iteration(&odd, 2.0, prompt_tokens, 4000.0, 4.0));
        }
        assert!(learner.slowdown() > 2.5, "seed {seed}: {}", learner.slowdown());
    }
}

/// A clock that is raised in steps: slow by another factor is slow.
#[test]
fn what_recovers_in_part_is_still_slow() {
    for seed in 0..5 {
        let (mut learner, mut traffic) = trained(&CLASSES[0], seed, 300);
        let mut observe = |times: f64| {
            let iteration = traffic.next(&CLASSES[0], 100.0, times);
            learner.observe(&iteration);
            learner.slowdown()
        };
        for _ in 0..300 {
            observe(4.0);
        }
        let after: Vec<f64> = (0..60).map(|_| observe(2.0)).collect();
        assert!(after.iter().all(|slowdown| *slowdown > 1.5), "seed {seed}: {after:?}");
        assert!((1.7..2.3).contains(&after[59]), "seed {seed}: {}", after[59]);
    }
}

/// Throttled while it had little to do, and well again when the first load comes.
#[test]
fn what_was_slow_in_calm_is_well_again_under_its_first_load() {
    for seed in 0..20 {
        let (mut learner, mut traffic) = (Learner::default(), Traffic::new(seed, 0.08));
        for second in 0..300 {
            let sequences = 1.0 + 2.0 * traffic.random.random::<f64>();
            let prompt_tokens = 60.0 + 200.0 * traffic.random.random::<f64>();
            let times = if second < 240 { 1.0 } else { 4.0 };
            let calm = traffic.iteration(&CLASSES[0], sequences, prompt_tokens, 1500.0 * sequences, times);
            learner.observe(&calm);
        }
        assert!(learner.slowdown() > 2.5, "seed {seed}: {} while throttled", learner.slowdown());
        for _ in 0..8 {
            let sequences = 8.0 + 8.0 * traffic.random.random::<f64>();
            let loaded = traffic.iteration(&CLASSES[0], sequences, 600.0, 1500.0 * sequences, 1.0);
            learner.observe(&loaded);
        }
        assert!(learner.slowdown() < 1.4, "seed {seed}: {} when well", learner.slowdown());
    }
}

/// An engine that serves what comes: requests/s of 10 and of 1,200 tokens, with prompts of 12.
struct Serving {
    traffic: Traffic,
    /// Tokens that are left of each answer, and those that it has in the cache.
    running: Vec<(u32, f64)>,
    prompt_tokens: f64,
}

impl Serving {
    const RATES: [(f64, u32); 2] = [(6.0, 10), (0.3, 1200)];

    /// The mean iteration of a second in which each takes so many `times` longer than usual.
    fn second(&mut self, truth: &Truth, times: f64) -> Option<Iteration> {
        let (mut clock, mut iterations) = (0.0, Vec::new());
        while clock < 1.0 {
            let mut seconds = 0.005;
            if !self.running.is_empty() {
                let resident = self.running.iter().map(|(_, resident)| resident).sum();
                let (count, prompts) = (self.running.len() as f64, std::mem::take(&mut self.prompt_tokens));
                let iteration = self.traffic.iteration(truth, count, prompts, resident, times);
                seconds = iteration.seconds;
                iterations.push(iteration);
                self.running
                    .iter_mut()
                    .for_each(|(left, resident)| (*left, *resident) = (*left - 1, *resident + 1.0));
                self.running.retain(|(left, _)| *left > 0);
            }
            clock += seconds;
            for (rate, tokens) in Self::RATES {
                if self.traffic.random.random::<f64>() < rate * seconds {
                    self.running.push((tokens, 12.0));
                    self.prompt_tokens += 12.0;
                }
            }
        }
        let count = iterations.len() as f64;
        let mean = |of: fn(&Iteration) -> f64| iterations.iter().map(of).sum::<f64>() / count;
        (count > 0.0).then(|| Iteration {
            seconds: mean(|one| one.seconds),
            sequences: mean(|one| one.sequences),
            prompt_tokens: mean(|one| one.prompt_tokens),
            resident_tokens: mean(|one| one.resident_tokens),
            weight: (count / 20.0).min(1.0),
            interval_seconds: 1.0,
        })
    }
}

/// Half a minute of requests is enough to know what is slow, though those that then pile up are more than were ever there.
#[test]
fn throttling_after_half_a_minute_of_requests_shows_and_stays() {
    for seed in 0..50 {
        let mut engine =
            Serving { traffic: Traffic::new(seed, 0.05), running: Vec::new(), prompt_tokens: 0.0 };
        let mut learner = Learner::default();
        let mut slowdowns = Vec::new();
        for second in 0..70 {
            let times = if second < 30 { 1.0 } else { 4.0 };
            engine.second(&CLASSES[0], times).iter().for_each(|iteration| learner.observe(iteration));
            slowdowns.push(learner.slowdown());
        }
        assert!(slowdowns[38..].iter().all(|slowdown| *slowdown > 1.5), "seed {seed}: {slowdowns:?}");
    }
}
