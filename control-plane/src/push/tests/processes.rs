use axum::http::StatusCode;
use chrono::Utc;
use prost::Message as _;

use crate::telemetry::Sample;

use super::proto::{ExportRequest, attribute, export, gauge, sum};
use super::site::{A, Site};

const PROTOBUF: (&str, &str) = ("content-type", "application/x-protobuf");

/// What one worker of the backend shows.
struct Worker<'a> {
    pid: &'a str,
    running: f64,
    kv_used: f64,
    tokens: f64,
}

fn worker(pid: &str, running: f64, kv_used: f64, tokens: f64) -> Worker<'_> {
    Worker { pid, running, kv_used, tokens }
}

impl Worker<'_> {
    fn exported(&self, at_ms: i64) -> ExportRequest {
        let attributes = vec![
            attribute("server.address", "10.0.0.1"),
            attribute("server.port", "8000"),
            attribute("process.pid", self.pid),
        ];
        export(
            attributes,
            vec![
                gauge("vllm:num_requests_running", at_ms, self.running),
                gauge("vllm:kv_cache_usage_perc", at_ms, self.kv_used),
                sum("vllm:generation_tokens", at_ms, self.tokens, 2),
            ],
        )
    }
}

/// Pushes what each worker shows, a part of a second after each other, and returns the sample.
async fn push(site: &mut Site, at_ms: i64, workers: &[Worker<'_>]) -> Sample {
    for (index, worker) in (0..).zip(workers) {
        let body = worker.exported(at_ms + 300 * index).encode_to_vec();
        assert_eq!(site.post("/v1/metrics", &[PROTOBUF], body).await.status(), StatusCode::OK);
    }
    site.sample().await
}

#[tokio::test]
async fn the_processes_of_a_backend_are_counted_each_by_itself() {
    let mut site = Site::new(|_| {}).assemble();
    let begin = Utc::now().timestamp_millis() - 20_000;
    let first = push(&mut site, begin, &[worker("1", 4.0, 0.2, 1000.0)]).await;
    assert_eq!((&*first.backend, first.running, first.output_tokens), (A, Some(4.0), 0.0));

    // One comes whose counter has run for long: nothing is known of when.
    let both = [worker("1", 4.0, 0.2, 1010.0), worker("2", 6.0, 0.4, 500_000.0)];
    let sample = push(&mut site, begin + 1000, &both).await;
    assert_eq!((sample.running, sample.output_tokens, sample.arrived), (Some(10.0), 10.0, 0.0));
    assert!((sample.kv_used.unwrap() - 0.3).abs() < 1e-12, "a part is averaged: {sample:?}");
    assert_eq!(sample.kv_used_max, Some(0.4));

    let both = [worker("1", 4.0, 0.2, 1030.0), worker("2", 6.0, 0.4, 500_007.0)];
    let sample = push(&mut site, begin + 2000, &both).await;
    assert_eq!((sample.output_tokens, sample.interval_seconds), (27.0, 1.0));

    // One begins anew, and has made 5 since.
    let both = [worker("1", 4.0, 0.2, 5.0), worker("2", 6.0, 0.4, 500_010.0)];
    let sample = push(&mut site, begin + 3000, &both).await;
    assert_eq!((sample.output_tokens, sample.interval_seconds), (8.0, 1.0));

    // One is gone, and with it what it had running; its tokens were made all the same.
    let sample = push(&mut site, begin + 4000, &[worker("2", 6.0, 0.4, 500_020.0)]).await;
    assert_eq!((sample.output_tokens, sample.running), (10.0, Some(10.0)));
    let both = [worker("2", 6.0, 0.4, 500_025.0), worker("1", 4.0, 0.2, 9.0)];
    let sample = push(&mut site, begin + 5000, &both).await;
    assert_eq!((sample.output_tokens, sample.running), (9.0, Some(10.0)), "it comes back where it was");
}

#[tokio::test]
async fn processes_that_come_and_go_are_bounded() {
    let mut site = Site::new(|_| {}).assemble();
    let begin = Utc::now().timestamp_millis() - 20_000;
    let pids: Vec<String> = (0..200).map(|pid| pid.to_string()).collect();
    let all: Vec<Worker<'_>> = pids.iter().map(|pid| worker(pid, 1.0, 0.1, 1e6)).collect();
    for worker in &all {
        let body = worker.exported(begin).encode_to_vec();
        assert_eq!(site.post("/v1/metrics", &[PROTOBUF], body).await.status(), StatusCode::OK);
    }
    while site.metrics.queued_points() > 0 {
        tokio::task::yield_now().await;
    }
    let sample = site.sample().await;
    assert!(sample.running.unwrap() <= 64.0, "{sample:?}");
    let sample = push(&mut site, begin + 1000, &[worker("0", 1.0, 0.1, 1e6)]).await;
    assert_eq!(sample.output_tokens, 0.0, "what was forgotten does not count anew: {sample:?}");
}
