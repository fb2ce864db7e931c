use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;

mod load;

/// An engine whose iterations take `a + b n + c p + d kv`, and more beyond a knee.
#[derive(Clone, Copy)]
struct Truth {
    profile: Profile,
    beyond_knee: f64,
    knee: f64,
}

const fn truth(fixed: f64, per_sequence: f64, per_prompt_token: f64, per_kv_token: f64) -> Truth {
    let profile = Profile {
        fixed_seconds: fixed,
        per_sequence_seconds: per_sequence,
        per_prompt_token_seconds: per_prompt_token,
        per_kv_token_seconds: per_kv_token,
        max_sequences: Some(128.0),
        kv_tokens: Some(400_000.0),
        token_budget: Some(2048.0),
    };
    Truth { profile, beyond_knee: 0.0, knee: 0.0 }
}

/// Four classes that are no multiples of each other.
const CLASSES: [Truth; 4] = [
    truth(0.008, 0.000_16, 0.000_04, 0.000_000_08),
    truth(0.012, 0.000_25, 0.000_07, 0.000_000_13),
    truth(0.018, 0.000_4, 0.000_12, 0.000_000_2),
    truth(0.035, 0.000_6, 0.000_1, 0.000_000_35),
];

/// Draws iterations: load and mix wander, noise is log-normal.
struct Traffic {
    random: StdRng,
    noise: f64,
    load: f64,
    context: f64,
    prefill: f64,
}

impl Traffic {
    fn new(seed: u64, noise: f64) -> Self {
        Self { random: StdRng::seed_from_u64(seed), noise, load: 0.5, context: 0.5, prefill: 0.5 }
    }

    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.random.random::<f64>()).sum::<f64>() - 6.0
    }

    /// The next second of a load that may go from 0 to `most` sequences.
    fn next(&mut self, truth: &Truth, most: f64, times: f64) -> Iteration {
        for index in 0..3 {
            let step = 0.25 * self.normal();
            let state = [&mut self.load, &mut self.context, &mut self.prefill];
            let value = state.into_iter().nth(index).unwrap();
            *value = (*value + step).rem_euclid(2.0);
        }
        // A triangle wave keeps what wanders within 0 and 1, and dwells nowhere.
        let fold = |value: f64| if value > 1.0 { 2.0 - value } else { value };
        let sequences = (most * fold(self.load)).max(1.0);
        let resident_tokens = sequences * (100.0 + 5000.0 * fold(self.context).powi(2));
        let prompt_tokens = 700.0 * fold(self.prefill).powi(2);
        self.iteration(truth, sequences, prompt_tokens, resident_tokens, times)
    }

    fn iteration(
        &mut self,
        truth: &Truth,
        sequences: f64,
        prompt_tokens: f64,
        resident_tokens: f64,
        times: f64,
    ) -> Iteration {
        let beyond = (sequences - truth.knee).max(0.0);
        let seconds = truth.profile.iteration_seconds(sequences, prompt_tokens, resident_tokens)
            + truth.beyond_knee * beyond * beyond;
        let noise = (self.noise * self.normal()).exp();
        Iteration {
            seconds: times * noise * seconds,
            sequences,
            prompt_tokens,
            resident_tokens,
            weight: 1.0,
            interval_seconds: 1.0,
        }
    }
}

fn trained(truth: &Truth, seed: u64, seconds: usize) -> (Learner, Traffic) {
    let (mut learner, mut traffic) = (Learner::default(), Traffic::new(seed, 0.05));
    for _ in 0..seconds {
        let iteration = traffic.next(truth, 100.0, 1.0);
        learner.observe(&iteration);
    }
    (learner, traffic)
}

fn size() -> EngineSize {
    EngineSize { max_sequences: Some(128.0), kv_tokens: Some(400_000.0), token_budget: Some(2048.0) }
}

#[test]
fn parameters_of_four_classes_are_found_within_two_minutes() {
    for (class, truth) in CLASSES.iter().enumerate() {
        for seed in 0..10 {
            let (learner, _) = trained(truth, seed, 120);
            let found = learner.profile(&size()).unwrap();
            let parts = |profile: &Profile| {
                [
                    profile.fixed_seconds,
                    profile.per_sequence_seconds,
                    profile.per_prompt_token_seconds,
                    profile.per_kv_token_seconds,
                ]
            };
            for (part, (found, expected)) in parts(&found).into_iter().zip(parts(&truth.profile)).enumerate()
            {
                let ratio = found / expected;
                assert!((0.9..1.1).contains(&ratio), "class {class} seed {seed} part {part}: {ratio}");
            }
            let mix = Mix::of(1000.0, 200.0);
            let ratio = found.capacity_rps(&mix) / truth.profile.capacity_rps(&mix);
            assert!((0.93..1.07).contains(&ratio), "capacity of class {class}: {ratio}");
            assert!(learner.certainty().relative_error < 0.1 && learner.certainty().observations > 100.0);
        }
    }
}

#[test]
fn a_change_of_mix_and_load_is_no_slowdown() {
    let bent = Truth { beyond_knee: 0.000_01, knee: 50.0, ..CLASSES[0] };
    for truth in CLASSES.iter().chain([&bent]) {
        for seed in 0..5 {
            let (mut learner, mut traffic) = (Learner::default(), Traffic::new(seed, 0.08));
            for second in 0..1200_u32 {
                // Short conversations at light load; long prompts; a full batch with long contexts; and back.
                let (most, prefill, context) = match second / 200 % 4 {
                    0 => (10.0, 30.0, 300.0),
                    1 => (40.0, 900.0, 2500.0),
                    2 => (100.0, 200.0, 3500.0),
                    _ => (60.0, 20.0, 500.0),
                };
                let part = 0.2 + 0.8 * traffic.random.random::<f64>();
                let sequences = (most * part).max(1.0);
                let prompt_tokens = prefill * 2.0 * traffic.random.random::<f64>();
                let iteration = traffic.iteration(truth, sequences, prompt_tokens, sequences * context, 1.0);
                learner.observe(&iteration);
                let slowdown = learner.slowdown();
                assert!((0.7..1.4).contains(&slowdown), "seed {seed}, second {second}: {slowdown}");
            }
        }
    }
}

#[test]
fn silent_throttling_shows_within_seconds_and_is_not_learned() {
    for truth in &CLASSES {
        for seed in 0..5 {
            let (mut learner, mut traffic) = trained(truth, seed, 300);
            let usual = learner.profile(&size()).unwrap();
            let observe = |learner: &mut Learner, traffic: &mut Traffic, times: f64| {
                let iteration = traffic.next(truth, 100.0, times);
                learner.observe(&iteration);
                learner.slowdown()
            };
            let after_8_s = (0..8).map(|_| observe(&mut learner, &mut traffic, 4.0)).last().unwrap();
            let later: Vec<f64> = (0..300).map(|_| observe(&mut learner, &mut traffic, 4.0)).collect();
            assert!((3.2..4.8).contains(&after_8_s), "after 8 s: {after_8_s}");
            assert!(later.iter().all(|slowdown| (3.2..4.8).contains(slowdown)), "{later:?}");
            let same = learner.profile(&size()).unwrap();
            let mix = Mix::default();
            assert!((same.capacity_rps(&mix) / usual.capacity_rps(&mix) - 1.0).abs() < 0.05);
            let well = (0..8).map(|_| observe(&mut learner, &mut traffic, 1.0)).last().unwrap();
            assert!((0.85..1.18).contains(&well), "well again: {well}");
        }
    }
}

#[test]
fn a_slowdown_is_not_explained_by_the_longer_batch_that_it_causes() {
    // A light, even load: one or two requests run. Four times slower, there are three or four, which was never seen.
    let light = |step: u32, times: f64| {
        let sequences = f64::from(step % 2) + if times > 1.0 { 3.0 } else { 1.0 };
        Iteration {
            seconds: times * 0.0083,
            sequences,
            prompt_tokens: 300.0 * sequences / 180.0,
            resident_tokens: 400.0 * sequences,
            weight: 1.0,
            interval_seconds: 1.0,
        }
    };
    for seconds_known in [20, 40, 200] {
        let mut learner = Learner::default();
        (0..seconds_known).for_each(|step| learner.observe(&light(step, 1.0)));
        (0..10).for_each(|step| learner.observe(&light(step, 4.0)));
        assert!(learner.slowdown() > 2.5, "after {seconds_known} s: {}", learner.slowdown());
    }
}

#[test]
fn a_few_tokens_with_long_prompts_beside_them_are_no_slowdown() {
    let (mut learner, mut traffic) = (Learner::default(), Traffic::new(4, 0.05));
    for step in 0..300 {
        let times = if step % 5 == 0 { 3.0 } else { 0.8 };
        let iteration = traffic.next(&CLASSES[0], 12.0, times);
        learner.observe(&Iteration { weight: 0.8, ..iteration });
        assert!(learner.slowdown() < 1.5, "step {step}: {}", learner.slowdown());
    }
}

#[test]
fn what_lasts_becomes_usual_and_the_class_stays() {
    let (mut learner, mut traffic) = trained(&CLASSES[1], 1, 300);
    let class = ClassProfile::of([(&learner, size())], None).unwrap();
    learner.inherit(Some(&class));
    let usual = learner.profile(&size()).unwrap();
    for _ in 0..700 {
        let iteration = traffic.next(&CLASSES[1], 100.0, 2.0);
        learner.observe(&iteration);
    }
    assert!((0.9..1.1).contains(&learner.slowdown()), "{}", learner.slowdown());
    let now = learner.profile(&size()).unwrap();
    let ratio = now.iteration_seconds(40.0, 100.0, 50_000.0) / usual.iteration_seconds(40.0, 100.0, 50_000.0);
    assert!((1.8..2.2).contains(&ratio), "{ratio}");
    // Well again, it is learned to be, within minutes.
    for _ in 0..300 {
        let iteration = traffic.next(&CLASSES[1], 100.0, 1.0);
        learner.observe(&iteration);
    }
    let well = learner.profile(&size()).unwrap();
    let ratio =
        well.iteration_seconds(40.0, 100.0, 50_000.0) / usual.iteration_seconds(40.0, 100.0, 50_000.0);
    assert!((0.85..1.2).contains(&(ratio * learner.slowdown())), "{ratio} {}", learner.slowdown());
}

#[test]
fn a_newcomer_has_the_profile_of_its_class_and_departs_with_evidence() {
    let members: Vec<Learner> = (0..3).map(|seed| trained(&CLASSES[0], seed, 200).0).collect();
    let class = ClassProfile::of(members.iter().map(|member| (member, size())), None).unwrap();
    let mut newcomer = Learner::default();
    assert_eq!(newcomer.profile(&EngineSize::default()), None);
    newcomer.inherit(Some(&class));
    let inherited = newcomer.profile(&EngineSize::default()).unwrap();
    assert_eq!(inherited.max_sequences, Some(128.0), "the engine says nothing of itself yet");
    let seconds = |profile: &Profile| profile.iteration_seconds(40.0, 100.0, 60_000.0);
    let expected = seconds(&CLASSES[0].profile);
    assert!((seconds(&inherited) / expected - 1.0).abs() < 0.05);
    // It is a little slower than the others: one second of that says little, some minutes say all.
    let mut slower = CLASSES[0];
    slower.profile.fixed_seconds *= 1.2;
    slower.profile.per_sequence_seconds *= 1.2;
    slower.profile.per_prompt_token_seconds *= 1.2;
    slower.profile.per_kv_token_seconds *= 1.2;
    let mut traffic = Traffic::new(9, 0.05);
    let iteration = traffic.next(&slower, 100.0, 1.0);
    newcomer.observe(&iteration);
    assert!(seconds(&newcomer.profile(&size()).unwrap()) < 1.06 * expected);
    for _ in 0..400 {
        let iteration = traffic.next(&slower, 100.0, 1.0);
        newcomer.observe(&iteration);
    }
    let ratio = seconds(&newcomer.profile(&size()).unwrap()) / expected;
    assert!((1.15..1.25).contains(&ratio), "{ratio}");
    // One that is throttled from its first second is seen to be.
    let mut throttled = Learner::default();
    throttled.inherit(Some(&class));
    for _ in 0..10 {
        let iteration = traffic.next(&CLASSES[0], 100.0, 4.0);
        throttled.observe(&iteration);
    }
    assert!(throttled.slowdown() > 2.5, "{}", throttled.slowdown());
}

#[test]
fn one_throttled_member_does_not_drag_its_class() {
    let mut throttled = CLASSES[0];
    throttled.profile.fixed_seconds *= 4.0;
    throttled.profile.per_sequence_seconds *= 4.0;
    throttled.profile.per_prompt_token_seconds *= 4.0;
    throttled.profile.per_kv_token_seconds *= 4.0;
    for healthy in 1..4 {
        let mut members: Vec<Learner> = (0..healthy).map(|seed| trained(&CLASSES[0], seed, 200).0).collect();
        members.push(trained(&throttled, 77, 200).0);
        let class = ClassProfile::of(members.iter().map(|member| (member, size())), None).unwrap();
        let mut newcomer = Learner::default();
        newcomer.inherit(Some(&class));
        let mix = Mix::default();
        let ratio =
            newcomer.profile(&size()).unwrap().capacity_rps(&mix) / CLASSES[0].profile.capacity_rps(&mix);
        assert!((0.93..1.07).contains(&ratio), "{healthy} healthy: {ratio}");
    }
}

#[test]
fn an_even_load_keeps_what_was_known() {
    let (mut learner, mut traffic) = trained(&CLASSES[1], 3, 300);
    let before = learner.profile(&size()).unwrap();
    for _ in 0..5000 {
        let iteration = traffic.iteration(&CLASSES[1], 20.0, 50.0, 20_000.0, 1.0);
        learner.observe(&iteration);
    }
    let after = learner.profile(&size()).unwrap();
    for (n, prompt, resident) in [(1.0, 0.0, 500.0), (20.0, 50.0, 20_000.0), (100.0, 400.0, 100_000.0)] {
        let ratio =
            after.iteration_seconds(n, prompt, resident) / before.iteration_seconds(n, prompt, resident);
        assert!((0.85..1.15).contains(&ratio), "{n}: {ratio}");
    }
}

#[test]
fn single_outliers_move_little() {
    let (mut learner, mut traffic) = trained(&CLASSES[2], 5, 300);
    for second in 0..300 {
        let times = if second % 25 == 0 { 30.0 } else { 1.0 };
        let iteration = traffic.next(&CLASSES[2], 100.0, times);
        learner.observe(&iteration);
    }
    let found = learner.profile(&size()).unwrap();
    let mix = Mix::default();
    let ratio = found.capacity_rps(&mix) / CLASSES[2].profile.capacity_rps(&mix);
    assert!((0.85..1.1).contains(&ratio), "{ratio}");
}

#[test]
fn the_capacity_is_that_of_the_largest_batch() {
    let profile = Profile { token_budget: None, ..CLASSES[0].profile };
    let mix = Mix { prompt_tokens: 1000.0, output_tokens: 200.0, resident_tokens: 1100.0 };
    assert_eq!(profile.batch(&mix), 128.0);
    let iteration = profile.iteration_seconds(128.0, 128.0 * 5.0, 128.0 * 1100.0);
    assert!((profile.capacity_rps(&mix) - 128.0 / (200.0 * iteration)).abs() < 1e-9);
    let small = Profile { kv_tokens: Some(44_000.0), ..profile };
    assert!((small.batch(&mix) - 0.97 * 40.0).abs() < 1e-9);
    let budget = Profile { token_budget: Some(120.0), ..profile };
    assert!((budget.batch(&mix) - 20.0).abs() < 1e-9);
    let unlimited = Profile { max_sequences: None, kv_tokens: None, ..profile };
    assert_eq!(unlimited.batch(&mix), 256.0);
}

#[test]
fn a_configured_capacity_is_that_of_the_profile() {
    let mix = Mix::of(1000.0, 200.0);
    for Truth { profile, .. } in CLASSES {
        let capacity = profile.capacity_rps(&mix);
        for part in [0.01, 0.3, 0.9, 1.0, 1.5] {
            let set = profile.of_capacity(part * capacity, &mix);
            let ratio = set.capacity_rps(&mix) / (part * capacity);
            assert!((ratio - 1.0).abs() < 1e-9, "{part}: {ratio}");
            // Below, requests take as long as was seen, with fewer at a time; but one takes all of what serves less than that.
            let is_slower = set.fixed_seconds > 1.001 * profile.fixed_seconds;
            assert_eq!(is_slower, part == 0.01, "{part}: {set:?}");
            assert_eq!(set.batch(&mix) < 0.999 * profile.batch(&mix), part < 1.0, "{part}: {set:?}");
        }
        assert_eq!(profile.of_capacity(f64::NAN, &mix), profile);
        assert_eq!(profile.of_capacity(0.0, &mix), profile);
    }
}

fn any_number() -> impl Strategy<Value = f64> {
    prop_oneof![
        any::<f64>(),
        Just(f64::NAN),
        Just(f64::INFINITY),
        Just(0.0),
        Just(1e300),
        0.0..1.0_f64,
        1.0..1e4_f64,
        -10.0..0.0_f64,
    ]
}

fn any_iteration() -> impl Strategy<Value = Iteration> {
    let parts = (any_number(), any_number(), any_number(), any_number(), any_number(), any_number());
    let plausible = (1e-5..10.0_f64, 0.0..1e4_f64, 0.0..1e6_f64, 0.0..1e9_f64, 0.01..1.0_f64, 0.1..100.0_f64);
    let of = |(seconds, sequences, prompt_tokens, resident_tokens, weight, interval_seconds)| Iteration {
        seconds,
        sequences,
        prompt_tokens,
        resident_tokens,
        weight,
        interval_seconds,
    };
    prop_oneof![1 => parts.prop_map(of), 4 => plausible.prop_map(of)]
}

proptest! {
    #[test]
    fn whatever_is_observed_numbers_stay_sound(
        iterations in proptest::collection::vec(any_iteration(), 1..150),
        fills in proptest::collection::vec((any_number(), any_number(), any_number(), any_number()), 0..10),
        mix in (any_number(), any_number(), any_number()),
    ) {
        let mut learner = Learner::default();
        for (running, waiting, used, tokens) in fills {
            learner.observe_fill(running, waiting, Some(used), tokens);
        }
        let (prompt_tokens, output_tokens, resident_tokens) = mix;
        let mix = Mix { prompt_tokens, output_tokens, resident_tokens };
        for iteration in &iterations {
            learner.observe(iteration);
            prop_assert!((0.25..=16.0).contains(&learner.slowdown()));
            prop_assert!(learner.certainty().relative_error.is_finite());
            if let Some(profile) = learner.profile(&EngineSize::default()) {
                let parts = [
                    profile.fixed_seconds,
                    profile.per_sequence_seconds,
                    profile.per_prompt_token_seconds,
                    profile.per_kv_token_seconds,
                    profile.max_sequences.unwrap_or(1.0),
                    profile.kv_tokens.unwrap_or(1.0),
                ];
                prop_assert!(parts.iter().all(|part| part.is_finite() && *part >= 0.0), "{:?}", profile);
                let rps = profile.capacity_rps(&mix);
                prop_assert!(rps.is_finite() && rps >= 0.0, "{} of {:?}", rps, profile);
            }
            let class = ClassProfile::of([(&learner, EngineSize::default())], None);
            prop_assert!(class.as_ref().is_none_or(ClassProfile::is_usable), "{:?}", class);
            learner.inherit(class.as_ref());
        }
    }

    #[test]
    fn a_saved_learner_goes_on_as_if_it_had_never_been_saved(seed in any::<u64>(), seconds in 1_usize..120) {
        let (mut learner, mut traffic) = trained(&CLASSES[0], seed, seconds);
        let class = ClassProfile::of([(&learner, size())], None);
        learner.inherit(class.as_ref());
        let text = serde_json::to_string(&learner).unwrap();
        let mut resumed: Learner = serde_json::from_str(&text).unwrap();
        for step in 0..40 {
            let iteration = traffic.next(&CLASSES[0], 100.0, if step > 20 { 4.0 } else { 1.0 });
            learner.observe(&iteration);
            resumed.observe(&iteration);
        }
        prop_assert_eq!(serde_json::to_string(&learner).unwrap(), serde_json::to_string(&resumed).unwrap());
    }

    #[test]
    fn the_order_of_members_does_not_change_their_class(seed in any::<u64>(), turn in 0_usize..6) {
        let mut members: Vec<Learner> =
            (0..6).map(|number| trained(&CLASSES[number % 2], seed.wrapping_add(number as u64), 60).0).collect();
        let class = |members: &[Learner]| ClassProfile::of(members.iter().map(|member| (member, size())), None);
        let before = class(&members);
        prop_assert!(before.is_some());
        members.rotate_left(turn);
        members.swap(0, 3);
        prop_assert_eq!(before, class(&members));
    }
}
