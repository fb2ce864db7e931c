use axum::http::StatusCode;
use chrono::Utc;
use prost::Message as _;
use serde_json::json;

use crate::telemetry::Sample;

use super::proto::{Buckets, Data, Exponential, ExponentialPoint, Metric, attribute, export};
use super::site::{A, Site};

const NAME: &str = "vllm:time_to_first_token_seconds";

/// A histogram of times in seconds, as an SDK of OpenTelemetry keeps it at a scale.
fn point(at_ms: i64, scale: i32, times: &[f64]) -> ExponentialPoint {
    let index = |time: &f64| (time.log2() * f64::from(scale).exp2()).ceil() as i32 - 1;
    let offset = times.iter().map(index).min().unwrap_or(0);
    let mut counts = vec![0; times.iter().map(|time| index(time) - offset + 1).max().unwrap_or(0) as usize];
    times.iter().for_each(|time| counts[(index(time) - offset) as usize] += 1);
    ExponentialPoint {
        at_ns: at_ms.unsigned_abs() * 1_000_000,
        count: times.len() as u64,
        sum: Some(times.iter().sum()),
        scale,
        zero_count: 0,
        positive: Some(Buckets { offset, bucket_counts: counts }),
    }
}

fn as_protobuf(point: ExponentialPoint, temporality: i32) -> Vec<u8> {
    let data = Data::Exponential(Exponential { data_points: vec![point], temporality });
    let metric = Metric { name: NAME.to_owned(), unit: "s".to_owned(), data: Some(data) };
    export(vec![attribute("service.instance.id", A)], vec![metric]).encode_to_vec()
}

fn as_json(point: &ExponentialPoint) -> Vec<u8> {
    let positive = point.positive.as_ref().unwrap();
    let counts: Vec<String> = positive.bucket_counts.iter().map(u64::to_string).collect();
    let point = json!({
        "timeUnixNano": point.at_ns.to_string(), "count": point.count.to_string(), "sum": point.sum, "scale": point.scale,
        "zeroCount": "0", "positive": { "offset": positive.offset, "bucketCounts": counts },
    });
    let histogram = json!({ "aggregationTemporality": 2, "dataPoints": [point] });
    let metric = json!({ "name": NAME, "unit": "s", "exponentialHistogram": histogram });
    let resource = json!({ "attributes": [{ "key": "service.instance.id", "value": { "stringValue": A } }] });
    let request =
        json!({ "resourceMetrics": [{ "resource": resource, "scopeMetrics": [{ "metrics": [metric] }] }] });
    request.to_string().into_bytes()
}

async fn push(site: &mut Site, kind: &str, body: Vec<u8>) -> Sample {
    let answer = site.post("/v1/metrics", &[("content-type", kind)], body).await;
    assert_eq!(answer.status(), StatusCode::OK);
    site.sample().await
}

fn check(sample: &Sample, seconds: f64) {
    let [p50, p95] = [sample.ttft_p50_seconds, sample.ttft_p95_seconds].map(Option::unwrap);
    assert_eq!(sample.ttft_count, 100.0);
    // Within an edge, which is the square root of two apart from the next one.
    assert!((seconds / 1.42..seconds * 1.42).contains(&p50), "{p50} for {seconds}: {sample:?}");
    assert!((4.0 * seconds / 1.42..4.0 * seconds * 1.42).contains(&p95), "{p95} for {seconds}: {sample:?}");
}

/// Ninety times of about that, and ten of four times that.
fn times(seconds: f64) -> Vec<f64> {
    let most = (0..90).map(|index| seconds * (0.95 + f64::from(index) / 900.0));
    most.chain([4.0 * seconds; 10]).collect()
}

#[tokio::test]
async fn quantiles_come_from_exponential_histograms_whose_scale_changes() {
    let begin = Utc::now().timestamp_millis() - 20_000;
    let both = [times(0.3), times(0.3)].concat();
    let all = [both.clone(), times(2.0)].concat();
    for kind in ["application/x-protobuf", "application/json"] {
        let mut site = Site::new(|_| {}).assemble();
        let encoded = |point: ExponentialPoint| match kind {
            "application/json" => as_json(&point),
            _ => as_protobuf(point, 2),
        };
        push(&mut site, kind, encoded(point(begin, 6, &times(0.3)))).await;
        let sample = push(&mut site, kind, encoded(point(begin + 1000, 6, &both))).await;
        check(&sample, 0.3);
        // A wider range of times: the sender merges its buckets.
        let sample = push(&mut site, kind, encoded(point(begin + 2000, 4, &all))).await;
        check(&sample, 2.0);
    }
    let mut site = Site::new(|_| {}).assemble();
    for (step, (scale, seconds)) in (0..).zip([(5, 0.3), (5, 0.3), (3, 2.0), (7, 0.05)]) {
        let body = as_protobuf(point(begin + 1000 * step, scale, &times(seconds)), 1);
        let sample = push(&mut site, "application/x-protobuf", body).await;
        if step > 0 {
            check(&sample, seconds);
        }
    }
}

#[tokio::test]
async fn too_many_buckets_are_refused() {
    let site = Site::new(|_| {}).assemble();
    let mut point = point(Utc::now().timestamp_millis(), 6, &times(0.3));
    point.positive = Some(Buckets { offset: 0, bucket_counts: vec![1; 5000] });
    let answer =
        site.post("/v1/metrics", &[("content-type", "application/x-protobuf")], as_protobuf(point, 2)).await;
    let said = super::site::text(answer).await;
    assert!(said.contains("buckets do not fit together, or are too many"), "{said}");
}

/// A request of so many points, each of a few bytes.
fn many(count: usize, buckets: &Buckets) -> Vec<u8> {
    let point = ExponentialPoint {
        at_ns: Utc::now().timestamp_millis().unsigned_abs() * 1_000_000,
        count: buckets.bucket_counts.iter().sum(),
        scale: -5,
        positive: Some(buckets.clone()),
        ..ExponentialPoint::default()
    };
    let data = Data::Exponential(Exponential { data_points: vec![point; count], temporality: 2 });
    let metric = Metric { name: NAME.to_owned(), unit: "s".to_owned(), data: Some(data) };
    export(vec![attribute("service.instance.id", A)], vec![metric]).encode_to_vec()
}

#[tokio::test]
async fn small_points_do_not_become_much_memory() {
    let send = async |site: &Site, body: &[u8]| {
        let kind = [("content-type", "application/x-protobuf")];
        site.post("/v1/metrics", &kind, body.to_vec()).await.status()
    };
    let (empty, wide) = (Buckets::default(), Buckets { offset: -1, bucket_counts: vec![1, 1] });
    let site = Site::new(|push| push.max_buffered_bytes = 12_000_000);
    let body = many(20_000, &wide);
    assert!(body.len() < 1_000_000, "{}", body.len());
    assert_eq!(send(&site, &body).await, StatusCode::SERVICE_UNAVAILABLE, "its edges take 16 MB");
    // What was refused gave its memory back, and what holds nothing has no edges.
    assert_eq!(send(&site, &many(20_000, &empty)).await, StatusCode::OK);
    assert_eq!(site.metrics.points(), 20_000);
    let busy = "clairvoy_push_requests_total{protocol=\"otlp_http\",outcome=\"busy\"}";
    assert_eq!(site.count(busy), 1);

    let site = Site::new(|_| {});
    assert_eq!(send(&site, &many(100_000, &wide)).await, StatusCode::PAYLOAD_TOO_LARGE, "it fits no queue");
    assert_eq!(site.metrics.points(), 0);
}
