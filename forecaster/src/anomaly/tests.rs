use proptest::prelude::*;

use super::*;

/// Noise without a generator of the library: a linear congruential one (Knuth, MMIX).
struct Noise(u64);

impl Noise {
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Heavy tails on both sides: a Laplace variable of mean size one.
    fn laplace(&mut self) -> f64 {
        let u = self.uniform() - 0.5;
        -u.signum() * (1.0 - 2.0 * u.abs()).max(1e-12).ln()
    }
}

/// What a healthy backend shows: load that comes and goes, a cache that goes with it.
fn healthy(turn: u32, noise: &mut Noise) -> Vitals {
    let running = 20.0 + 15.0 * (f64::from(turn) / 40.0).sin() + 3.0 * noise.laplace().clamp(-2.0, 2.0);
    Vitals {
        interval_seconds: 1.0,
        up_seconds: Some(10_000.0 + f64::from(turn)),
        waiting: Some(0.0),
        running: Some(running),
        kv_used: Some(running / 64.0 + 0.02 * noise.laplace().clamp(-4.0, 4.0)),
        completed: Some((5.0 + noise.laplace()).max(0.0).round()),
        tokens: Some(400.0),
        pace_seconds: Some(0.025 * (0.1 * noise.laplace()).exp()),
        prefix_hits: Some((0.6 + 0.1 * noise.laplace()).clamp(0.0, 1.0)),
    }
}

fn watch(turns: u32, seed: u64) -> (AnomalyWatch, Noise) {
    let mut noise = Noise(seed);
    let mut watch = AnomalyWatch::default();
    for turn in 0..turns {
        watch.observe(&healthy(turn, &mut noise));
        watch.observe_outcome(noise.laplace(), f64::from(turn));
    }
    (watch, noise)
}

fn kinds(verdict: &Verdict) -> Vec<AnomalyKind> {
    verdict.anomalies.iter().map(|anomaly| anomaly.kind).collect()
}

/// Runs a fault until it is found; returns after how many observations, and the finding.
fn found_after(
    mut watch: AnomalyWatch,
    peers: &[&AnomalyWatch],
    mut fault: impl FnMut(u32, &mut AnomalyWatch),
    kind: AnomalyKind,
) -> (u32, Anomaly) {
    for turn in 1..=1000 {
        fault(turn, &mut watch);
        let class: Vec<&AnomalyWatch> = std::iter::once(&watch).chain(peers.iter().copied()).collect();
        if let Some(found) = judge(&class)[0].anomalies.iter().find(|anomaly| anomaly.kind == kind) {
            return (turn, found.clone());
        }
    }
    panic!("{kind:?} was not found");
}

#[test]
fn waits_that_double_are_found_within_a_minute() {
    let (healthy_watch, mut noise) = watch(600, 1);
    // The spread of a good model is about 30 %: twice the wait is 2.3 of its errors.
    let fault = |turn, watch: &mut AnomalyWatch| {
        watch.observe_outcome(2.3 + noise.laplace(), f64::from(600 + turn));
    };
    let (after, found) = found_after(healthy_watch, &[], fault, AnomalyKind::GettingSlower);
    assert!(after <= 60, "{after}");
    assert!(found.reason.contains("later than its own wait model expects"), "{}", found.reason);
}

/// A surge of load that no model foresees makes first tokens late everywhere.
#[test]
fn what_is_late_everywhere_is_no_fault_of_one_backend() {
    let mut class: Vec<AnomalyWatch> = (0..4).map(|seed| watch(600, 20 + seed).0).collect();
    let mut noise = Noise(30);
    for now in 600..660 {
        class.iter_mut().for_each(|watch| watch.observe_outcome(2.3 + noise.laplace(), f64::from(now)));
    }
    let scores = judge(&class.iter().collect::<Vec<_>>()).into_iter().map(|verdict| verdict.score);
    assert!(scores.clone().all(|score| score < 1.0), "{:?}", scores.collect::<Vec<_>>());
}

#[test]
fn an_alarm_ends_when_the_fault_does() {
    let (mut watch, mut noise) = watch(600, 2);
    (600..700).for_each(|now| watch.observe_outcome(3.0 + noise.laplace(), f64::from(now)));
    assert_eq!(kinds(&judge(&[&watch])[0]), [AnomalyKind::GettingSlower]);
    (700..1000).for_each(|now| watch.observe_outcome(noise.laplace(), f64::from(now)));
    assert_eq!(kinds(&judge(&[&watch])[0]), []);
}

#[test]
fn a_slow_gpu_is_found_among_its_peers_within_fifty_scrapes() {
    let peers: Vec<AnomalyWatch> = (0..4).map(|seed| watch(100, seed).0).collect();
    let mut noise = Noise(9);
    let fault = |turn, watch: &mut AnomalyWatch| {
        let vitals = healthy(turn, &mut noise);
        watch.observe(&Vitals { pace_seconds: vitals.pace_seconds.map(|pace| 1.4 * pace), ..vitals });
    };
    let peers: Vec<&AnomalyWatch> = peers.iter().collect();
    let (after, found) = found_after(watch(100, 8).0, &peers, fault, AnomalyKind::SlowerThanPeers);
    assert!(after <= 50, "{after}");
    assert!(found.reason.contains("its 4 peers take 2"), "{}", found.reason);
}

#[test]
fn two_backends_cannot_tell_which_of_them_is_slow() {
    let (mut slow, mut noise) = watch(100, 3);
    for turn in 0..100 {
        slow.observe(&Vitals { pace_seconds: Some(0.2), ..healthy(turn, &mut noise) });
    }
    assert_eq!(kinds(&judge(&[&slow, &watch(100, 4).0])[0]), []);
}

#[test]
fn a_leak_of_a_cache_is_found_within_240_scrapes_and_growing_load_is_none() {
    let (healthy_watch, mut noise) = watch(480, 5);
    let mut load_noise = Noise(6);
    let fault = |turn, watch: &mut AnomalyWatch| {
        let vitals = healthy(480 + turn, &mut noise);
        let leaked = 0.001 * f64::from(turn);
        watch.observe(&Vitals { kv_used: vitals.kv_used.map(|used| used + leaked), ..vitals });
    };
    let (after, found) = found_after(healthy_watch.clone(), &[], fault, AnomalyKind::KvLeak);
    assert!(after <= 240, "{after}");
    assert!(found.reason.contains("at the same number of running requests"), "{}", found.reason);

    let mut growing = healthy_watch;
    for turn in 0..300 {
        let vitals = healthy(480 + turn, &mut load_noise);
        let more = 0.1 * f64::from(turn);
        let (running, kv_used) = (vitals.running.map(|n| n + more), vitals.kv_used.map(|n| n + more / 64.0));
        growing.observe(&Vitals { running, kv_used, ..vitals });
        assert_eq!(kinds(&judge(&[&growing])[0]), [], "after {turn}");
    }
}

#[test]
fn a_cold_cache_is_told_from_a_slow_gpu() {
    let (healthy_watch, mut noise) = watch(600, 7);
    let fault = |turn, watch: &mut AnomalyWatch| {
        watch.observe(&Vitals { prefix_hits: Some(0.02), ..healthy(600 + turn, &mut noise) });
        watch.observe_outcome(2.5 + noise.laplace(), f64::from(600 + turn));
    };
    let (after, found) = found_after(healthy_watch, &[], fault, AnomalyKind::ColdCache);
    assert!(after <= 60, "{after}");
    assert!(found.reason.contains("prefix cache hits fell to"), "{}", found.reason);

    let (mut young, mut noise) = watch(200, 8);
    for turn in 200..300 {
        let vitals = Vitals { up_seconds: Some(60.0), prefix_hits: None, ..healthy(turn, &mut noise) };
        young.observe(&vitals);
        young.observe_outcome(3.0 + noise.laplace(), f64::from(turn));
    }
    let verdict = judge(&[&young]).remove(0);
    assert_eq!(kinds(&verdict), [AnomalyKind::ColdCache]);
    assert!(verdict.anomalies[0].reason.starts_with("it started 60 s ago"), "{verdict:?}");
}

#[test]
fn silence_under_load_is_found_within_twenty_seconds_and_idleness_is_none() {
    let (healthy_watch, mut noise) = watch(300, 9);
    let mut idle = healthy_watch.clone();
    let fault = |turn, watch: &mut AnomalyWatch| {
        let vitals = healthy(300 + turn, &mut noise);
        watch.observe(&Vitals { completed: Some(0.0), tokens: Some(0.0), ..vitals });
    };
    let (after, found) = found_after(healthy_watch, &[], fault, AnomalyKind::Silent);
    assert!(after <= 20, "{after}");
    assert!(found.reason.contains("nothing came out for"), "{}", found.reason);
    for _ in 0..300 {
        let nothing = Some(0.0);
        let vitals =
            Vitals { interval_seconds: 1.0, running: nothing, waiting: nothing, ..Vitals::default() };
        idle.observe(&Vitals { completed: nothing, tokens: nothing, ..vitals });
        assert_eq!(kinds(&judge(&[&idle])[0]), []);
    }
}

#[test]
fn a_long_answer_is_no_silence() {
    let (mut watch, mut noise) = watch(300, 10);
    for turn in 0..200 {
        watch.observe(&Vitals { completed: Some(0.0), tokens: Some(30.0), ..healthy(turn, &mut noise) });
        assert_eq!(kinds(&judge(&[&watch])[0]), []);
    }
}

/// Forty classes of five for a thousand scrapes and outcomes each: not one backend in fifty has a false alarm in that
/// time, and not one judgement in a thousand is one.
#[test]
fn healthy_noise_is_seldom_an_alarm() {
    let (mut alarms, mut alarmed, mut judged) = (0, 0, 0);
    for seed in 0..40 {
        let mut noise = Noise(100 + seed);
        let mut class: Vec<AnomalyWatch> = (0..5).map(|_| AnomalyWatch::default()).collect();
        let mut ever = [false; 5];
        for turn in 0..1000 {
            for watch in &mut class {
                watch.observe(&healthy(turn, &mut noise));
                watch.observe_outcome(noise.laplace(), f64::from(turn));
            }
            if turn % 10 == 9 {
                let verdicts = judge(&class.iter().collect::<Vec<_>>());
                for (verdict, ever) in verdicts.iter().zip(&mut ever) {
                    judged += 1;
                    alarms += usize::from(!verdict.anomalies.is_empty());
                    *ever |= !verdict.anomalies.is_empty();
                }
            }
        }
        alarmed += ever.iter().filter(|ever| **ever).count();
    }
    assert!(alarms * 1000 <= judged, "{alarms} of {judged}");
    assert!(alarmed * 50 <= 200, "{alarmed} of 200 backends");
}

#[test]
fn memory_is_bounded_and_a_saved_watch_goes_on() {
    let (mut one, mut noise) = watch(5003, 11);
    let saved = serde_json::to_string(&one).unwrap();
    assert!(saved.len() < 6000, "{}", saved.len());
    let mut other: AnomalyWatch = serde_json::from_str(&saved).unwrap();
    assert_eq!(one, other);
    for turn in 0..100 {
        let (vitals, residual) = (healthy(turn, &mut noise), noise.laplace());
        for watch in [&mut one, &mut other] {
            watch.observe(&vitals);
            watch.observe_outcome(residual, f64::from(5003 + turn));
        }
    }
    assert_eq!(judge(&[&one]), judge(&[&other]));
    assert!(
        serde_json::from_str::<AnomalyWatch>(&saved.replacen("\"version\":1", "\"version\":7", 1)).is_err()
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_vitals_give_a_lawful_score(
        rows in prop::collection::vec(prop::collection::vec(prop::num::f64::ANY, 10), 0..400),
    ) {
        let mut watch = AnomalyWatch::default();
        for row in &rows {
            watch.observe(&Vitals {
                interval_seconds: row[0],
                up_seconds: Some(row[1]),
                waiting: Some(row[2]),
                running: Some(row[3]),
                kv_used: Some(row[4]),
                completed: Some(row[5]),
                tokens: Some(row[6]),
                pace_seconds: Some(row[7]),
                prefix_hits: Some(row[8]),
            });
            watch.observe_outcome(row[9], row[0]);
        }
        for verdict in judge(&[&watch, &watch, &AnomalyWatch::default()]) {
            prop_assert!((0.0..=SCORE_LIMIT).contains(&verdict.score), "{:?}", verdict);
            prop_assert!(verdict.anomalies.iter().all(|found| (1.0..=SCORE_LIMIT).contains(&found.score)));
        }
    }
}

const SCORE_LIMIT: f64 = 10.0;
