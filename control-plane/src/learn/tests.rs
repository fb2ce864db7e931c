use clairvoy_forecaster::AnomalyKind;

use super::*;

/// A pool of four equal backends under a load that comes and goes, scraped once a second.
struct Pool {
    learner: Learner,
    class: Arc<Class>,
    second: i64,
    /// How many times slower each one is.
    times: [f64; 4],
    /// How much there is to do.
    load: f64,
    /// What is wrong, by backend, as it was told last.
    findings: BTreeMap<SocketAddr, Findings>,
}

fn address(index: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], 8000 + index as u16))
}

fn at(second: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_700_000_000 + second, 0).unwrap()
}

fn class(pool: &str, ttft_seconds: f64) -> Arc<Class> {
    let target = LatencyTarget { ttft_seconds: Some(ttft_seconds), inter_token_seconds: None };
    Arc::new(Class { pool: pool.to_owned(), target })
}

impl Pool {
    fn new() -> Self {
        let learner = Learner::new(&Forecast::default());
        let (class, findings) = (class("a", 2.0), BTreeMap::new());
        Self { learner, class, second: 0, times: [1.0; 4], load: 1.0, findings }
    }

    fn sample(&self, index: usize) -> Sample {
        let wave = |pace: f64| (self.second as f64 * pace + 1.7 * index as f64).sin();
        let running = self.load * (6.0 + 3.0 * wave(0.13)) * (1.0 + 0.2 * wave(1.9));
        let times = self.times[index];
        let noise = 1.0 + 0.15 * wave(2.3);
        Sample {
            at: at(self.second),
            interval_seconds: if self.second == 0 { 0.0 } else { 1.0 },
            queue_depth: Some((self.load * (1.0 + wave(0.13))).round()),
            running: Some(running),
            kv_used: Some(0.02 * running),
            ttft_seconds: Some(times * self.load * (0.2 + 0.02 * running) * noise),
            ttft_count: 5.0,
            inter_token_seconds: Some(times * (0.01 + 0.001 * running) * noise),
            arrived: 5.0,
            completed: 5.0,
            prompt_tokens: 2000.0,
            output_tokens: 300.0 / times,
            ..Sample::default()
        }
    }

    /// Lets so many seconds pass, or fewer when `until` holds after one of them; returns how many.
    fn pass(&mut self, seconds: i64, until: impl Fn(&Self) -> bool) -> i64 {
        for passed in 1..=seconds {
            let samples = (0..4).map(|index| (address(index), self.sample(index))).collect::<Vec<_>>();
            let lesson =
                |(address, sample)| Lesson::Sample(address, Arc::clone(&self.class), Box::new(sample));
            let lessons = samples.into_iter().map(lesson).chain([Lesson::Tick(at(self.second))]);
            for insight in lessons.flat_map(|lesson| self.learner.learn(lesson)).collect::<Vec<_>>() {
                if let Insight::Anomaly(address, findings) = insight {
                    self.findings.insert(address, findings);
                }
            }
            self.second += 1;
            if until(self) {
                return passed;
            }
        }
        seconds
    }

    fn anomalous(&self) -> Vec<SocketAddr> {
        let is_anomalous = |(_, findings): &(&SocketAddr, &Findings)| !findings.anomalies.is_empty();
        self.findings.iter().filter(is_anomalous).map(|(address, _)| *address).collect()
    }
}

#[test]
fn a_slowed_backend_is_named_among_its_peers_and_let_go_when_it_is_well() {
    let mut pool = Pool::new();
    let passed = pool.pass(600, |pool| !pool.anomalous().is_empty());
    assert_eq!((passed, pool.anomalous()), (600, vec![]), "{:?}", pool.findings);

    pool.times[2] = 2.0;
    let passed = pool.pass(120, |pool| !pool.anomalous().is_empty());
    assert!(passed <= 45, "{passed} s: {:?}", pool.findings);
    assert_eq!(pool.anomalous(), [address(2)]);
    let _ = pool.pass(60, |_| false);
    assert_eq!(pool.anomalous(), [address(2)]);
    let anomalies = &pool.findings[&address(2)].anomalies;
    let slower = anomalies.iter().find(|found| found.kind == AnomalyKind::SlowerThanPeers).unwrap();
    assert!(slower.reason.contains("its 3 peers take"), "{}", slower.reason);

    pool.times[2] = 1.0;
    let passed = pool.pass(600, |pool| pool.anomalous().is_empty());
    assert!(passed < 200, "{passed} s: {:?}", pool.findings);
}

#[test]
fn none_is_named_when_all_slow_down_alike() {
    let mut pool = Pool::new();
    let _ = pool.pass(300, |_| false);
    (pool.times, pool.load) = ([1.5; 4], 2.0);
    let passed = pool.pass(600, |pool| !pool.anomalous().is_empty());
    assert_eq!((passed, pool.anomalous()), (600, vec![]), "{:?}", pool.findings);
}

#[test]
fn a_backend_that_falls_silent_is_named() {
    let mut pool = Pool::new();
    let _ = pool.pass(60, |_| false);
    let silent = |second: i64| Sample {
        at: at(second),
        interval_seconds: 1.0,
        queue_depth: Some(3.0),
        running: Some(8.0),
        ..Sample::default()
    };
    let mut named = None;
    for second in 60..120 {
        let sample = Lesson::Sample(address(0), Arc::clone(&pool.class), Box::new(silent(second)));
        let _ = pool.learner.learn(sample);
        for insight in pool.learner.learn(Lesson::Tick(at(second))) {
            if let Insight::Anomaly(found, findings) = insight
                && let Some(anomaly) = findings.anomalies.first()
            {
                named.get_or_insert((found, anomaly.kind, second));
            }
        }
    }
    let (found, kind, second) = named.unwrap();
    assert_eq!((found, kind), (address(0), AnomalyKind::Silent));
    assert!(second < 100, "{second}");
}

/// A server of 10 requests/s whose TTFT is 0.1 s / (1 - rate / 10).
fn lawful(second: i64) -> Sample {
    let wave = |pace: f64| (second as f64 * pace).sin();
    let rps = 5.2 + 4.6 * wave(0.011);
    let arrived = (rps * (1.0 + 0.3 * wave(1.7))).max(0.0);
    Sample {
        at: at(second),
        interval_seconds: 1.0,
        queue_depth: Some(0.0),
        running: Some(3.0 * rps),
        ttft_seconds: Some(0.1 / (1.0 - rps / 10.0) * (1.0 + 0.3 * wave(2.3))),
        ttft_count: arrived,
        inter_token_seconds: Some(0.02),
        arrived,
        completed: arrived,
        output_tokens: 30.0 * arrived,
        ..Sample::default()
    }
}

/// The last capacity that was told, and the last state of each kind that was kept, over some seconds.
fn capacity_over(
    learner: &mut Learner,
    seconds: std::ops::Range<i64>,
) -> (Option<CapacityEstimate>, Vec<(ModelKind, String, serde_json::Value)>) {
    let (mut capacity, mut kept) = (None, Vec::new());
    for second in seconds {
        let sample = Lesson::Sample(address(0), class("a", 0.5), Box::new(lawful(second)));
        for insight in learner.learn(sample).into_iter().chain(learner.learn(Lesson::Tick(at(second)))) {
            match insight {
                Insight::Capacity(_, estimate) => capacity = Some(estimate),
                Insight::Trained { kind, key, state, .. } => kept.push((kind, key, state)),
                _ => {}
            }
        }
    }
    (capacity, kept)
}

fn assert_eight(capacity: Option<CapacityEstimate>) {
    let Some(CapacityEstimate::Known { rps, lower_rps, upper_rps }) = capacity else {
        panic!("{capacity:?}");
    };
    // 0.1 s / (1 - 8 / 10) is the target of 0.5 s.
    assert!((rps - 8.0).abs() < 0.5, "{capacity:?}");
    assert!(lower_rps <= 8.0 && 8.0 <= upper_rps && upper_rps - lower_rps < 2.0, "{capacity:?}");
}

#[test]
fn the_capacity_of_a_backend_is_found_and_survives_a_restart() {
    let mut learner = Learner::new(&Forecast::default());
    let (unknown, _) = capacity_over(&mut learner, 0..200);
    assert_eq!(unknown, Some(CapacityEstimate::Unknown));
    let (capacity, kept) = capacity_over(&mut learner, 200..3600);
    assert_eight(capacity);

    let kinds = [ModelKind::Wait, ModelKind::Capacity, ModelKind::Anomaly];
    let mut restarted = Learner::new(&Forecast::default());
    for kind in kinds {
        let (_, key, state) = kept.iter().rfind(|(kept, ..)| *kept == kind).unwrap().clone();
        let refused = restarted.learn(Lesson::Restore(kind, key, state));
        assert!(refused.is_empty(), "{refused:?}");
    }
    let (capacity, _) = capacity_over(&mut restarted, 3600..3610);
    assert_eight(capacity);
    let refused = restarted.learn(Lesson::Restore(ModelKind::Anomaly, "nonsense".to_owned(), true.into()));
    assert!(matches!(refused.as_slice(), [Insight::Refused(_)]), "{refused:?}");
}

#[test]
fn a_backend_in_another_pool_starts_over() {
    let mut learner = Learner::new(&Forecast::default());
    let _ = capacity_over(&mut learner, 0..3600);
    let mut told = Vec::new();
    for second in 3600..3610 {
        let sample = Lesson::Sample(address(0), class("b", 0.5), Box::new(lawful(second)));
        told.extend(learner.learn(sample));
    }
    let capacity = told.iter().find(|insight| matches!(insight, Insight::Capacity(..))).unwrap();
    assert!(matches!(capacity, Insight::Capacity(_, CapacityEstimate::Unknown)), "{capacity:?}");
}
