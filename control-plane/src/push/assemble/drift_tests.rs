//! What is wrong with pushed telemetry is told as that of scraped pages is.

use crate::config::parse;
use crate::push::batch::{Growth, PointValue, Unknown};
use crate::telemetry::FaultKind;

use super::*;

const A: &str = "10.0.0.1:8000";
const NOW: i64 = 1_700_000_000_000;

const WAITING: &str = "vllm:num_requests_waiting";
const RUNNING: &str = "vllm:num_requests_running";
const CACHE: &str = "vllm:kv_cache_usage_perc";
const DONE: &str = "vllm:request_success_total";
const TOKENS: &str = "vllm:generation_tokens_total";

/// One backend that sends every second.
struct Sender {
    directory: Arc<Directory>,
    assembler: Assembler,
    second: i64,
}

impl Sender {
    fn new() -> Self {
        let config = parse(&format!(
            "telemetry: {{ push: {{ http: 127.0.0.1:4318 }} }}\nmodels: [{{ name: m, pools: [a] }}]\n\
             pools: [{{ name: a, engine: vllm, telemetry: push, backends: [\"{A}\"], limits: {{ max_num_seqs: 10 }} }}]\n"
        ))
        .unwrap();
        let pool = &config.pools[0];
        let directory = Arc::new(Directory::new(pool.backends.iter().map(|address| (*address, pool)), []));
        Self { directory, assembler: Assembler::new(Duration::from_millis(800), 100), second: 0 }
    }

    /// Sends one reading, unknown names only where they are wanted, and tells the events that it brought.
    fn send(&mut self, points: &[(&str, f64)], unknown: &[(&str, f64)]) -> Vec<String> {
        let at = NOW + 1000 * self.second;
        self.second += 1;
        let mut batch = Batch::new(Arc::clone(&self.directory));
        batch.wants_unknown = self.assembler.wants_names;
        for (series, value) in points {
            let text = batch.write_series(|text| text.push_str(series)).unwrap();
            let growth = if series.ends_with("_total") { Growth::SinceStart } else { Growth::None };
            batch.add(0, text, at, growth, PointValue::Number(*value));
        }
        if batch.wants_unknown {
            let told = |(name, value): &(&str, f64)| Unknown {
                member: 0,
                name: (*name).into(),
                kind: "unknown",
                value: *value,
            };
            batch.unknown = unknown.iter().map(told).collect();
        }
        let mut samples = self.assembler.take(batch, at);
        samples.extend(self.assembler.flush(at + 900));
        assert_eq!(samples.len(), usize::from(!points.is_empty()));
        let noticed = std::mem::take(&mut self.assembler.noticed);
        noticed.drift.iter().flat_map(|drifted| &drifted.events).map(ToString::to_string).collect()
    }

    fn step(&self) -> f64 {
        self.second as f64
    }
}

#[test]
fn a_gauge_that_is_renamed_is_told_with_its_new_name() {
    for (old, new) in [(CACHE, "vllm:kv_cache_used"), (RUNNING, "vllm:num_running_requests")] {
        let mut sender = Sender::new();
        let all = [(WAITING, 1.0), (RUNNING, 2.0), (CACHE, 0.3)];
        for _ in 0..5 {
            assert_eq!(sender.send(&all, &[("vllm:lora_requests_info", 1.0), ("python_info", 1.0)]), [""; 0]);
        }
        let left: Vec<_> = all.into_iter().filter(|(name, _)| *name != old).collect();
        let unknown = [("vllm:lora_requests_info", 1.0), ("python_info", 1.0), (new, 0.3)];
        let mut told = Vec::new();
        // A gauge lasts for five seconds; two readings without it follow.
        for _ in 0..7 {
            told.extend(sender.send(&left, &unknown));
        }
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].contains("is no longer") && told[0].contains(&format!(" {new}:")), "{told:?}");
        assert_eq!(sender.assembler.faults(A)[0].kind, FaultKind::Vanished);
        assert!(
            !sender.assembler.wants_names
                || sender.assembler.backends["10.0.0.1:8000"].watched.has_silent_gauge
        );
        let told = sender.send(&all, &[]);
        assert!(told.len() == 1 && told[0].starts_with("no longer: "), "{told:?}");
        assert!(sender.assembler.faults(A).is_empty());
    }
}

#[test]
fn telemetry_with_all_its_names_changed_is_explained() {
    let mut sender = Sender::new();
    for _ in 0..5 {
        assert_eq!(sender.send(&[(WAITING, 1.0), (RUNNING, 2.0), (CACHE, 0.3)], &[]), [""; 0]);
    }
    let unknown = [
        ("vllm_num_requests_waiting", 1.0),
        ("vllm_num_requests_running", 2.0),
        ("vllm_kv_cache_usage", 0.3),
    ];
    let told: Vec<String> = (0..15).flat_map(|_| sender.send(&[], &unknown)).collect();
    for (field, new) in ["queue_depth", "running", "kv_used"].into_iter().zip(unknown) {
        let told = told.iter().find(|told| told.starts_with(field)).unwrap();
        assert!(told.contains(new.0), "{told}");
    }
    assert_eq!(told.len(), 3, "{told:?}");
}

#[test]
fn silence_and_a_slow_sender_beside_a_fast_one_are_no_event() {
    let mut sender = Sender::new();
    for second in 0..60 {
        let mut points = vec![(WAITING, 0.0), (RUNNING, 0.0)];
        if second % 4 == 0 {
            points.push((CACHE, 0.0));
        }
        assert_eq!(sender.send(&points, &[]), [""; 0]);
    }
    for _ in 0..60 {
        assert_eq!(sender.send(&[], &[]), [""; 0]);
    }
}

#[test]
fn implausible_values_standstill_and_a_limit_are_told() {
    let mut sender = Sender::new();
    let told: Vec<String> =
        (0..6).flat_map(|_| sender.send(&[(WAITING, f64::NAN), (RUNNING, 2.0), (CACHE, 0.3)], &[])).collect();
    assert_eq!(told, ["queue_depth is dropped again and again: not_a_number"]);

    let mut sender = Sender::new();
    let told: Vec<String> = (0..6)
        .flat_map(|_| {
            let tokens = 90_000.0 * sender.step();
            sender.send(&[(WAITING, 0.0), (RUNNING, 1.0), (CACHE, 0.3), (DONE, 7.0), (TOKENS, tokens)], &[])
        })
        .collect();
    assert_eq!(told, ["completed stands still while output_tokens grows"]);

    let mut sender = Sender::new();
    let told: Vec<String> =
        (0..6).flat_map(|_| sender.send(&[(WAITING, 0.0), (RUNNING, 20.0), (CACHE, 0.3)], &[])).collect();
    assert_eq!(told, ["running is 20, above the limit of 10"]);

    let mut sender = Sender::new();
    let told: Vec<String> = (0..40)
        .flat_map(|_| sender.send(&[(WAITING, 1.0), (RUNNING, 2.0), (CACHE, 0.3), (DONE, 7.0)], &[]))
        .collect();
    assert_eq!(told, ["all numbers stand still with 2 requests running and 1 waiting"]);
}

#[test]
fn a_promised_metric_that_is_never_sent_is_told() {
    let mut sender = Sender::new();
    let told: Vec<String> =
        (0..3).flat_map(|_| sender.send(&[(WAITING, 0.0), (RUNNING, 1.0)], &[])).collect();
    assert_eq!(told, ["kv_used was never on the metrics page"]);
}
