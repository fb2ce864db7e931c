use std::sync::Arc;

use proptest::prelude::*;

use crate::config::parse;
use crate::push::batch::{Growth, PointValue};
use crate::telemetry::DropReason;

use super::*;

const A: &str = "10.0.0.1:8000";
const NOW: i64 = 1_700_000_000_000;
const FLUSH: Duration = Duration::from_secs(1);

fn directory() -> Arc<Directory> {
    let config = parse(&format!(
        "telemetry: {{ push: {{ http: 127.0.0.1:4318 }} }}\nmodels: [{{ name: m, pools: [a] }}]\n\
         pools: [{{ name: a, telemetry: push, backends: [\"{A}\"] }}]\n"
    ))
    .unwrap();
    let pool = &config.pools[0];
    Arc::new(Directory::new(pool.backends.iter().map(|address| (*address, pool)), []))
}

impl Assembler {
    /// Takes a whole request.
    pub(super) fn take(&mut self, batch: Batch, now_ms: i64) -> Vec<Sample> {
        let newest = Arc::clone(&batch.directory);
        let (mut taking, mut samples) = (self.begin(batch, newest, now_ms), Vec::new());
        while !taking.is_done() {
            samples.extend(self.go_on(&mut taking, now_ms));
        }
        samples
    }

    /// Closes all readings that have waited for the flush time.
    pub(super) fn flush(&mut self, now_ms: i64) -> Vec<Sample> {
        let (mut due, mut samples) = (self.due(now_ms), Vec::new());
        while !due.is_empty() {
            samples.extend(self.close_some(&mut due, now_ms));
        }
        self.look_around(now_ms);
        samples
    }
}

/// Points of the one backend: series, time after `NOW`, value.
fn batch(directory: &Arc<Directory>, points: &[(&str, i64, f64)]) -> Batch {
    let mut batch = Batch::new(Arc::clone(directory));
    for (series, after_ms, value) in points {
        let text = batch.write_series(|text| text.push_str(series)).unwrap();
        let growth = if *series == DONE { Growth::SinceStart } else { Growth::None };
        batch.add(0, text, NOW + after_ms, growth, PointValue::Number(*value));
    }
    batch
}

const WAITING: &str = "vllm:num_requests_waiting";
const RUNNING: &str = "vllm:num_requests_running";
const DONE: &str = "vllm:request_success_total{finished_reason=\"stop\"}";

#[test]
fn a_reading_ends_when_a_newer_one_begins_or_after_the_flush() {
    let directory = directory();
    let mut assembler = Assembler::new(FLUSH, 100);
    let take = |assembler: &mut Assembler, points: &[_], after| {
        assembler.take(batch(&directory, points), NOW + after)
    };
    assert_eq!(take(&mut assembler, &[(WAITING, 0, 1.0)], 5), []);
    assert_eq!(take(&mut assembler, &[(DONE, 3, 10.0)], 6), [], "of the same reading");
    let samples = take(&mut assembler, &[(WAITING, 1000, 2.0), (DONE, 1000, 14.0)], 1005);
    assert_eq!(samples.len(), 1);
    assert_eq!((samples[0].queue_depth, samples[0].interval_seconds), (Some(1.0), 0.0));
    assert_eq!(assembler.flush(NOW + 2000), []);
    let samples = assembler.flush(NOW + 2005);
    assert_eq!((samples[0].queue_depth, samples[0].completed), (Some(2.0), 4.0));
    assert!((samples[0].interval_seconds - 0.997).abs() < 1e-9, "from the sender's times");
    assert_eq!(samples[0].at.timestamp_millis(), NOW + 1000);
    assert_eq!(assembler.flush(NOW + 9000), [], "and then nothing");
}

#[test]
fn a_sender_that_catches_up_sends_series_by_series() {
    let directory = directory();
    let mut assembler = Assembler::new(FLUSH, 100);
    let points: Vec<(&str, i64, f64)> = [WAITING, DONE]
        .iter()
        .flat_map(|series| (0..4).map(move |step| (*series, 1000 * step, 10.0 * step as f64)))
        .collect();
    let mut samples = assembler.take(batch(&directory, &points), NOW + 4000);
    samples.extend(assembler.flush(NOW + 6000));
    let seen: Vec<_> = samples.iter().map(|sample| (sample.queue_depth.unwrap(), sample.completed)).collect();
    assert_eq!(seen, [(0.0, 0.0), (10.0, 10.0), (20.0, 10.0), (30.0, 10.0)]);
}

#[test]
fn points_that_come_twice_or_late_count_once() {
    let directory = directory();
    let mut assembler = Assembler::new(FLUSH, 100);
    for points in [[(DONE, 0, 10.0)], [(DONE, 0, 10.0)], [(DONE, 2000, 30.0)], [(DONE, 1000, 20.0)]] {
        assembler.take(batch(&directory, &points), NOW + 2000);
    }
    let samples = assembler.flush(NOW + 3000);
    assert_eq!((samples[0].completed, samples[0].interval_seconds), (20.0, 2.0));
    assert_eq!(assembler.noticed.late, 2);
    // A restart of the engine.
    assembler.take(batch(&directory, &[(DONE, 3000, 1.0)]), NOW + 3000);
    let samples = assembler.flush(NOW + 4000);
    assert_eq!((samples[0].completed, assembler.noticed.restarts), (0.0, 1));
}

#[test]
fn a_series_that_ended_or_fell_silent_is_gone() {
    let directory = directory();
    let mut assembler = Assembler::new(FLUSH, 100);
    let mut first = batch(&directory, &[(WAITING, 0, 1.0), (DONE, 0, 1.0)]);
    assembler.take(first.clone(), NOW);
    assembler.flush(NOW + 1000);
    assembler.take(batch(&directory, &[(DONE, 10_000, 5.0)]), NOW + 10_000);
    let samples = assembler.flush(NOW + 11_000);
    assert_eq!((samples[0].queue_depth, samples[0].completed), (None, 4.0));
    for point in &mut first.points {
        (point.at_ms, point.value) = (NOW + 20_000, PointValue::Ended);
    }
    assembler.take(first, NOW + 20_000);
    assert_eq!(assembler.flush(NOW + 21_000), [], "there is nothing to tell");
}

const LENGTH: &str = "vllm:request_success_total{finished_reason=\"length\"}";

#[test]
fn a_counter_that_falls_silent_and_comes_back_counts_once() {
    let directory = directory();
    let mut assembler = Assembler::new(FLUSH, 100);
    let mut push = |after: i64, points: &[(&str, f64)], ended: bool| {
        let points: Vec<_> = points.iter().map(|(series, value)| (*series, after, *value)).collect();
        let mut batch = batch(&directory, &points);
        for point in &mut batch.points {
            point.growth = Growth::SinceStart;
            if ended {
                point.value = PointValue::Ended;
            }
        }
        assembler.take(batch, NOW + after);
        let completed = assembler.flush(NOW + after + 1000).first().map(|sample| sample.completed);
        (completed, assembler.noticed.restarts)
    };
    assert_eq!(push(0, &[(DONE, 1000.0), (LENGTH, 50.0)], false), (Some(0.0), 0));
    // For ten minutes only one of them is told of.
    for minute in 1..10 {
        let done = 1000.0 + minute as f64;
        assert_eq!(push(60_000 * minute, &[(DONE, done)], false), (Some(1.0), 0), "minute {minute}");
    }
    assert_eq!(push(600_000, &[(DONE, 1010.0), (LENGTH, 53.0)], false), (Some(4.0), 0));
    // Prometheus says of all series that they have ended when one scrape fails.
    assert_eq!(push(601_000, &[(DONE, 0.0), (LENGTH, 0.0)], true), (None, 0));
    assert_eq!(push(605_000, &[(DONE, 1012.0), (LENGTH, 53.0)], false), (Some(2.0), 0));
    assert_eq!(push(606_000, &[(LENGTH, 0.0)], true).1, 0);
    assert_eq!(push(607_000, &[(DONE, 1013.0)], false), (Some(1.0), 0));
    assert_eq!(push(608_000, &[(DONE, 1014.0), (LENGTH, 54.0)], false), (Some(2.0), 0));
    // It fell: now that is a restart.
    assert_eq!(push(609_000, &[(DONE, 2.0), (LENGTH, 1.0)], false), (Some(0.0), 1));
}

/// Times and values of points, and since when each counts; 0 where that is not told.
fn counted(points: &[(&str, i64, f64, i64)]) -> (Vec<f64>, Drops) {
    let directory = directory();
    let mut assembler = Assembler::new(FLUSH, 100);
    let mut completed = Vec::new();
    for at in points.iter().map(|point| point.1).collect::<std::collections::BTreeSet<i64>>() {
        let mut batch = Batch::new(Arc::clone(&directory));
        for (series, _, value, started_ms) in points.iter().filter(|point| point.1 == at) {
            let text = batch.write_series(|text| text.push_str(series)).unwrap();
            batch.started_ms = *started_ms;
            batch.add(0, text, NOW + at, Growth::SinceStart, PointValue::Number(*value));
        }
        let mut samples = assembler.take(batch, NOW + at);
        samples.extend(assembler.flush(NOW + at + 1000));
        completed.extend(samples.iter().map(|sample| sample.completed));
    }
    (completed, assembler.noticed.drops)
}

#[test]
fn a_series_that_was_left_out_at_first_brings_no_past() {
    // After a restart of Clairvoy the first reading holds a part of the series.
    let (completed, _) = counted(&[(DONE, 0, 1e6, 0), (DONE, 5000, 1e6 + 3.0, 0), (LENGTH, 5000, 4e4, 0)]);
    assert_eq!(completed, [0.0, 3.0]);
    // Long after, one with new labels has begun since.
    let later = [(DONE, 0, 1e6, 0), (DONE, 90_000, 1e6 + 3.0, 0), (LENGTH, 90_000, 4.0, 0)];
    assert_eq!(counted(&later).0, [0.0, 7.0]);
    for (started, after, expected) in [
        (NOW - 1000, 90_000, 3.0), // before the sender was first heard
        (NOW + 3000, 5000, 7.0),   // since
        (NOW + 5000, 5000, 3.0),   // with its first point: its sender does not know
    ] {
        let points =
            [(DONE, 0, 1e6, NOW - 9000), (DONE, after, 1e6 + 3.0, NOW - 9000), (LENGTH, after, 4.0, started)];
        assert_eq!(counted(&points).0, [0.0, expected], "{started} {after}");
    }
}

#[test]
fn growth_that_cannot_be_is_dropped_and_counted() {
    let steps = [(DONE, 0, 10.0, 0), (DONE, 2000, 5e6, 0), (DONE, 4000, 5e6 + 8.0, 0)];
    let (completed, drops) = counted(&steps);
    assert_eq!(completed, [0.0, 0.0, 8.0]);
    let told: Vec<_> = drops.iter().collect();
    assert_eq!(told, [(Field::Completed, DropReason::TooLarge, 1)]);
}

#[test]
fn times_of_more_than_can_be_are_dropped_with_their_count() {
    let directory = directory();
    let mut assembler = Assembler::new(FLUSH, 100);
    let mut samples = Vec::new();
    for (after, count) in [(0, 10.0), (2000, 5e8), (4000, 5e8 + 4.0)] {
        let mut batch = Batch::new(Arc::clone(&directory));
        for name in ["time_to_first_token", "inter_token_latency", "request_queue_time"] {
            let text = batch.write_series(|text| text.push_str(&format!("vllm:{name}_seconds"))).unwrap();
            let buckets = batch.add_buckets([(1.0, count), (f64::INFINITY, count)]);
            let value = PointValue::Histogram { sum: Some(count / 2.0), count, buckets, trimmed: false };
            batch.add(0, text, NOW + after, Growth::SinceStart, value);
        }
        assembler.take(batch, NOW + after);
        samples.extend(assembler.flush(NOW + after + 1000));
    }
    let told: Vec<_> = samples
        .iter()
        .map(|sample| {
            let means = [sample.ttft_seconds, sample.inter_token_seconds, sample.queue_wait_seconds];
            let quantiles =
                [sample.ttft_p50_seconds, sample.ttft_p95_seconds, sample.inter_token_p95_seconds];
            (sample.ttft_count, means, quantiles.map(|quantile| quantile.is_some()))
        })
        .collect();
    let nothing = (0.0, [None; 3], [false; 3]);
    assert_eq!(told, [nothing, nothing, (4.0, [Some(0.5); 3], [true; 3])]);
    let dropped: Vec<_> = assembler.noticed.drops.iter().map(|(field, ..)| field).collect();
    assert_eq!(dropped, [Field::TtftCount, Field::InterTokenCount, Field::QueueWaitCount]);
}

#[test]
fn the_state_of_a_backend_is_bounded() {
    let directory = directory();
    let mut assembler = Assembler::new(FLUSH, 100);
    for round in 0..50 {
        let names: Vec<String> =
            (0..100).map(|index| format!("{WAITING}{{engine=\"{round}-{index}\"}}")).collect();
        let points: Vec<_> = names.iter().map(|name| (name.as_str(), round, 1.0)).collect();
        assembler.take(batch(&directory, &points), NOW + round);
    }
    let samples = assembler.flush(NOW + 2000);
    assert!(samples[0].queue_depth.unwrap() <= 100.0);
    assert!(assembler.noticed.evicted >= 4900, "{:?}", assembler.noticed);
    assembler.retain(&Directory::default());
    assert_eq!(assembler.backends(), 0);
}

#[test]
fn series_of_many_bytes_are_bounded_and_so_are_the_readings_of_one_request() {
    let directory = directory();
    let mut assembler = Assembler::new(FLUSH, 2000);
    let mut wide = Batch::new(Arc::clone(&directory));
    for index in 0..2000 {
        let label = "x".repeat(400);
        let write = |text: &mut String| {
            text.push_str(&format!("vllm:time_to_first_token_seconds{{engine=\"{index}{label}\"}}"));
        };
        let text = wide.write_series(write).unwrap();
        let buckets = wide.add_buckets((0..64).map(|bucket| (f64::from(bucket), 1.0)));
        let value = PointValue::Histogram { sum: Some(1.0), count: 1.0, buckets, trimmed: false };
        wide.add(0, text, NOW, Growth::SinceStart, value);
    }
    assembler.take(wide, NOW);
    assert!(assembler.noticed.evicted > 1500, "{:?}", assembler.noticed);
    assert_eq!(assembler.flush(NOW + 1000).len(), 1);
    assert!(assembler.page.capacity() <= KEPT_PAGE_BYTES);

    let points: Vec<_> = (1..1000).map(|step| (DONE, 1000 * step, 10.0 * step as f64)).collect();
    let mut samples = assembler.take(batch(&directory, &points), NOW + 999_000);
    assert_eq!(samples.len(), MOST_CLOSED_AT_ONCE as usize);
    samples.extend(assembler.flush(NOW + 1_000_000));
    let counted: f64 = samples.iter().map(|sample| sample.completed).sum();
    assert_eq!(counted, 9980.0, "and nothing is lost");
}

#[test]
fn large_requests_are_taken_in_pieces_and_close_as_much_as_they_may() {
    let of = (1..=40).map(|host| format!("\"10.0.1.{host}:8000\"")).collect::<Vec<_>>().join(", ");
    let config = parse(&format!(
        "telemetry: {{ push: {{ http: 127.0.0.1:4318 }} }}\nmodels: [{{ name: m, pools: [a] }}]\n\
         pools: [{{ name: a, telemetry: push, backends: [{of}] }}]\n"
    ))
    .unwrap();
    let pool = &config.pools[0];
    let directory = Arc::new(Directory::new(pool.backends.iter().map(|address| (*address, pool)), []));
    let mut assembler = Assembler::new(FLUSH, 2000);
    // Pages of nearly 3 MiB.
    for member in 0..40 {
        let mut wide = Batch::new(Arc::clone(&directory));
        for index in 0..90 {
            let label = "x".repeat(400);
            let text = wide.write_series(|text| {
                text.push_str(&format!("vllm:time_to_first_token_seconds{{engine=\"{index}{label}\"}}"));
            });
            let buckets = wide.add_buckets((0..64).map(|bucket| (f64::from(bucket), 1.0)));
            let value = PointValue::Histogram { sum: Some(1.0), count: 1.0, buckets, trimmed: false };
            wide.add(member, text.unwrap(), NOW, Growth::SinceStart, value);
        }
        let text = wide.write_series(|text| text.push_str(DONE)).unwrap();
        wide.add(member, text, NOW, Growth::SinceStart, PointValue::Number(0.0));
        assembler.take(wide, NOW);
    }
    assert_eq!(assembler.noticed.evicted, 0);
    let mut small = Batch::new(Arc::clone(&directory));
    for member in 0..40 {
        for step in 1..=20 {
            let text = small.write_series(|text| text.push_str(DONE)).unwrap();
            let value = PointValue::Number(10.0 * f64::from(step));
            small.add(member, text, NOW + 1000 * i64::from(step), Growth::SinceStart, value);
        }
    }
    let mut taking = assembler.begin(small, Arc::clone(&directory), NOW + 20_000);
    let (mut closed, mut pieces) = (Vec::new(), 0);
    while !taking.is_done() {
        let samples = assembler.go_on(&mut taking, NOW + 20_000);
        assert!(samples.len() <= 2, "a piece closed {} large readings", samples.len());
        closed.extend(samples);
        pieces += 1;
    }
    // One of each backend, and a few more.
    assert!((50..80).contains(&closed.len()) && pieces >= 40, "{} in {pieces} pieces", closed.len());
    let done =
        closed.iter().chain(&assembler.flush(NOW + 30_000)).map(|sample| sample.completed).sum::<f64>();
    assert_eq!(done, 40.0 * 200.0, "and nothing is lost");
}

#[test]
fn a_clock_that_is_set_back_makes_nobody_deaf() {
    let directory = directory();
    let mut assembler = Assembler::new(FLUSH, 100);
    let mut samples = Vec::new();
    let push = |assembler: &mut Assembler, clock_ms: i64, done: f64| {
        let mut batch = batch(&directory, &[(DONE, clock_ms, done)]);
        batch.decoded_ms = NOW + clock_ms;
        assembler.take(batch, NOW + clock_ms)
    };
    for step in 0..5 {
        samples.extend(push(&mut assembler, 1000 * step, 10.0 * step as f64));
    }
    // An hour back, 300 ms later; a request that was decoded before is still to come.
    let back = -3_600_000;
    let mut queued = batch(&directory, &[(DONE, 4200, 45.0)]);
    queued.decoded_ms = NOW + 4200;
    samples.extend(assembler.flush(NOW + back + 4300));
    samples.extend(assembler.take(queued, NOW + back + 4300));
    for step in 5..8 {
        samples.extend(push(&mut assembler, back + 1000 * step, 10.0 * step as f64));
    }
    samples.extend(assembler.flush(NOW + back + 9000));
    assert_eq!(assembler.noticed.late, 0);
    assert_eq!(samples.iter().map(|sample| sample.completed).sum::<f64>(), 70.0);
    let last = &samples[samples.len() - 1];
    assert_eq!((last.at.timestamp_millis(), last.interval_seconds), (NOW + back + 7000, 1.0));
}

#[test]
fn a_backend_that_left_does_not_come_back_with_a_request_that_waited() {
    let directory = directory();
    let mut assembler = Assembler::new(FLUSH, 100);
    let newest = Arc::new(Directory::default());
    let mut taking = assembler.begin(batch(&directory, &[(DONE, 0, 1.0)]), newest, NOW);
    assert_eq!(assembler.go_on(&mut taking, NOW), []);
    assert!(taking.is_done());
    assert_eq!(assembler.backends(), 0);
    let mut taking = assembler.begin(batch(&directory, &[(DONE, 0, 1.0)]), self::directory(), NOW);
    assembler.go_on(&mut taking, NOW);
    assert_eq!(assembler.backends(), 1, "of another directory that has it");
}

#[test]
fn what_was_learned_of_an_engine_ends_with_it() {
    let directory = directory();
    let mut assembler = Assembler::new(FLUSH, 100);
    for (after, running, done) in [(0, 200.0, 10.0), (2000, 200.0, 20.0), (4000, 3.0, 1.0)] {
        let points = [(RUNNING, after, running), (DONE, after, done)];
        assembler.take(batch(&directory, &points), NOW + after);
        assembler.flush(NOW + after + 1000);
    }
    assert_eq!(assembler.noticed.restarts, 1);
    assert_eq!(assembler.limits(A).max_running.unwrap().value, 3.0);
}

#[test]
fn plain_fields_fill_in_what_the_engine_does_not_tell() {
    let directory = directory();
    let mut assembler = Assembler::new(FLUSH, 100);
    let points = [
        (WAITING, 0, 1.0),
        ("clairvoy:queue_depth", 0, 9.0),
        ("clairvoy:running", 0, 4.0),
        ("clairvoy:kv_used", 0, 0.5),
    ];
    assembler.take(batch(&directory, &points), NOW);
    let samples = assembler.flush(NOW + 1000);
    let sample = &samples[0];
    assert_eq!((sample.queue_depth, sample.running, sample.kv_used), (Some(1.0), Some(4.0), Some(0.5)));
}

proptest! {
    #[test]
    fn counts_add_up_however_points_are_cut_and_repeated(
        steps in proptest::collection::vec((1_i64..3000, 0_u32..20), 2..20),
        twice in any::<bool>(),
    ) {
        let directory = directory();
        let mut assembler = Assembler::new(FLUSH, 100);
        let (mut at, mut total, mut samples) = (0, 0.0, Vec::new());
        for (pause, done) in &steps {
            at += pause;
            total += f64::from(*done);
            for _ in 0..=u32::from(twice) {
                samples.extend(assembler.take(batch(&directory, &[(DONE, at, total)]), NOW + at));
            }
        }
        samples.extend(assembler.flush(NOW + at + 5000));
        let counted: f64 = samples.iter().map(|sample| sample.completed).sum();
        // All but what was there at the first reading, which takes in what came within its half second.
        let (mut first, mut first_at) = (0.0, 0);
        for (index, (pause, done)) in steps.iter().enumerate() {
            if index == 0 {
                first = f64::from(*done);
            } else {
                first_at += pause;
                if first_at >= SAME_READING_MS {
                    break;
                }
                first += f64::from(*done);
            }
        }
        prop_assert_eq!(counted, total - first);
    }
}
