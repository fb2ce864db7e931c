use std::convert::Infallible;
use std::time::{Duration, Instant};

use axum::http::{Request, StatusCode, header};
use bytes::Bytes;
use chrono::Utc;
use futures::FutureExt as _;
use http_body_util::{BodyExt as _, StreamBody};
use prost::Message as _;

use crate::config::{PoolToken, Span};
use crate::push::Surface;

use super::proto::{WriteRequest, attribute, export, gauge, series, sum};
use super::site::{A, B, C, Site, bytes, gzip, snappy, text};

const EXPORT: &str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";
const PROTOBUF: (&str, &str) = ("content-type", "application/x-protobuf");
const JSON: (&str, &str) = ("content-type", "application/json");

fn now_ms() -> i64 {
    Utc::now().timestamp_millis()
}

fn exported(backend: &str, value: f64) -> Vec<u8> {
    let metrics = vec![gauge("vllm:num_requests_waiting", now_ms(), value)];
    export(vec![attribute("service.instance.id", backend)], metrics).encode_to_vec()
}

fn written(backend: &str, value: f64) -> Vec<u8> {
    let labels = [("__name__", "vllm:num_requests_waiting"), ("instance", backend)];
    snappy(&WriteRequest { timeseries: vec![series(&labels, &[(now_ms(), value)])] }.encode_to_vec())
}

fn framed(packed: u8, message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap();
    [&[packed][..], &length.to_be_bytes(), message].concat()
}

#[tokio::test]
async fn each_protocol_ends_in_a_sample() {
    let mut site = Site::new(|_| {}).assemble();
    let answer = site.post("/v1/metrics", &[PROTOBUF], exported(A, 1.0)).await;
    assert_eq!((answer.status(), bytes(answer).await.len()), (StatusCode::OK, 0));
    let sample = site.sample().await;
    assert_eq!((&*sample.backend, sample.queue_depth), (A, Some(1.0)));

    let packed = [PROTOBUF, ("content-encoding", "gzip")];
    assert_eq!(site.post("/v1/metrics", &packed, gzip(&exported(B, 2.0))).await.status(), StatusCode::OK);
    assert_eq!(site.sample().await.queue_depth, Some(2.0));

    let json = format!(
        r#"{{"resourceMetrics":[{{"resource":{{"attributes":[{{"key":"instance","value":{{"stringValue":"{A}"}}}}]}},
        "scopeMetrics":[{{"metrics":[{{"name":"vllm:num_requests_waiting","gauge":{{"dataPoints":[
        {{"timeUnixNano":"{}000000","asInt":"3"}}]}}}}]}}]}}]}}"#,
        now_ms()
    );
    let answer = site.post("/v1/metrics", &[JSON], json).await;
    assert_eq!((answer.status(), text(answer).await.as_str()), (StatusCode::OK, "{}"));
    assert_eq!(site.sample().await.queue_depth, Some(3.0));

    let headers = [PROTOBUF, ("content-encoding", "snappy"), ("x-prometheus-remote-write-version", "0.1.0")];
    let answer = site.post("/api/v1/write", &headers, written(B, 4.0)).await;
    assert_eq!((answer.status(), bytes(answer).await.len()), (StatusCode::NO_CONTENT, 0));
    assert_eq!(site.sample().await.queue_depth, Some(4.0));

    let (status, said) = site.json(&format!(r#"{{"backend":"{C}","queue_depth":5}}"#)).await;
    assert_eq!((status, said.as_str()), (StatusCode::OK, r#"{"accepted":1,"refused":0}"#));
    assert_eq!(site.sample().await.queue_depth, Some(5.0));

    let headers = [("content-type", "application/grpc"), ("grpc-encoding", "gzip"), ("te", "trailers")];
    let answer = site.post(EXPORT, &headers, framed(1, &gzip(&exported(B, 6.0)))).await;
    let body = answer.into_body().collect().await.unwrap();
    assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
    assert_eq!(body.to_bytes().as_ref(), [0; 5]);
    assert_eq!(site.sample().await.queue_depth, Some(6.0));
    assert_eq!(site.metrics.points(), 6);
}

#[tokio::test]
async fn counts_come_from_cumulative_and_from_delta_counters() {
    let mut site = Site::new(|_| {}).assemble();
    for (backend, temporality, values) in [(A, 2, [100.0, 130.0]), (B, 1, [100.0, 30.0])] {
        let first_ms = now_ms() - 2000;
        for (step, value) in (0..).zip(values) {
            let metric = sum("vllm:generation_tokens", first_ms + 1000 * step, value, temporality);
            let request = export(vec![attribute("instance", backend)], vec![metric]).encode_to_vec();
            // The second time is what a sender does that did not hear the answer.
            for _ in 0..2 {
                let answer = site.post("/v1/metrics", &[PROTOBUF], request.clone()).await;
                assert_eq!((answer.status(), bytes(answer).await.len()), (StatusCode::OK, 0));
            }
        }
        let first = site.sample().await;
        assert_eq!((first.interval_seconds, first.output_tokens), (0.0, 0.0));
        let second = site.sample().await;
        assert_eq!(&*second.backend, backend);
        assert_eq!((second.interval_seconds, second.output_tokens), (1.0, 30.0), "nothing is counted twice");
    }
}

#[tokio::test]
async fn an_increment_without_a_time_is_refused_since_it_may_come_twice() {
    let mut site = Site::new(|_| {}).assemble();
    for (backend, temporality) in [(A, 1), (B, 2)] {
        let metric = sum("vllm:generation_tokens", 0, 100.0, temporality);
        let waiting = gauge("vllm:num_requests_waiting", 0, 3.0);
        let request = export(vec![attribute("instance", backend)], vec![metric, waiting]).encode_to_vec();
        let answer = site.post("/v1/metrics", &[PROTOBUF], request).await;
        assert_eq!(answer.status(), StatusCode::OK);
        let told = bytes(answer).await;
        let told = String::from_utf8_lossy(&told);
        assert_eq!(told.contains("without a time"), temporality == 1, "{told}");
        assert_eq!(site.sample().await.queue_depth, Some(3.0));
    }
    assert_eq!(
        site.count("clairvoy_push_refused_points_total{protocol=\"otlp_http\",reason=\"no_time\"}"),
        1
    );
}

/// What it is, path, headers, body, and the status of the answer.
type Case<'a> = (&'a str, &'a str, Vec<(&'a str, &'a str)>, Vec<u8>, u16);

#[tokio::test]
async fn wrong_requests_are_told_why() {
    let site = Site::new(|push| push.max_body_bytes = 100_000);
    let write = "/api/v1/write";
    let two = "application/x-protobuf;proto=io.prometheus.write.v2.Request";
    let snap = ("content-encoding", "snappy");
    let zipped = ("content-encoding", "gzip");
    let bomb = gzip(&vec![0; 50_000_000]);
    assert!(bomb.len() < 100_000 * 3, "{}", bomb.len());
    let small_bomb = gzip(&vec![0; 1_000_000]);
    let snappy_bomb = snappy(&vec![0; 1_000_000]);
    let cases: [Case<'_>; 16] = [
        ("2.0", write, vec![("content-type", two), snap], written(A, 1.0), 415),
        ("no snappy", write, vec![PROTOBUF], written(A, 1.0), 415),
        ("framed snappy", write, vec![PROTOBUF, snap], b"\xff\x06\0\0sNaPpY".to_vec(), 400),
        ("a snappy bomb", write, vec![PROTOBUF, snap], snappy_bomb, 413),
        ("a snappy lie", write, vec![PROTOBUF, snap], vec![0xff, 0xff, 0xff, 0xff, 0x0f, 0], 413),
        ("no protobuf", write, vec![PROTOBUF, snap], snappy(b"hello"), 400),
        ("a gzip bomb", "/v1/metrics", vec![PROTOBUF, zipped], small_bomb.clone(), 413),
        ("no gzip", "/v1/metrics", vec![PROTOBUF, zipped], b"hello".to_vec(), 400),
        ("zstd", "/v1/metrics", vec![PROTOBUF, ("content-encoding", "zstd")], vec![], 415),
        ("text", "/v1/metrics", vec![("content-type", "text/plain")], vec![], 415),
        ("bad json", "/v1/metrics", vec![JSON], b"{".to_vec(), 400),
        ("too long", "/v1/metrics", vec![PROTOBUF], vec![0; 100_001], 413),
        ("said to be too long", "/v1/metrics", vec![PROTOBUF, ("content-length", "999999999")], vec![], 413),
        (
            "a form",
            "/api/v1/telemetry",
            vec![("content-type", "application/x-www-form-urlencoded")],
            vec![],
            415,
        ),
        ("a browser", "/api/v1/telemetry", vec![JSON, ("origin", "http://evil.example")], vec![], 403),
        ("elsewhere", "/", vec![JSON], vec![], 404),
    ];
    for (what, path, headers, body, status) in cases {
        let answer = site.post(path, &headers, body).await;
        assert_eq!(answer.status().as_u16(), status, "{what}");
        let said = text(answer).await;
        assert!(said.len() > 10, "{what}: {said}");
    }
    for (packed, body, code) in [(1, small_bomb.as_slice(), "8"), (0, &[0xff], "3"), (2, &[], "3")] {
        let headers = [("content-type", "application/grpc"), ("grpc-encoding", "gzip")];
        let answer = site.post(EXPORT, &headers, framed(packed, body)).await;
        assert_eq!(answer.headers()["grpc-status"], code);
    }
    assert_eq!(site.metrics.points(), 0);
}

#[tokio::test]
async fn parts_that_are_refused_are_told_by_each_protocol() {
    let site = Site::new(|_| {});
    let answer = site.post("/v1/metrics", &[PROTOBUF], exported("10.9.9.9:1", 1.0)).await;
    assert_eq!(answer.status(), StatusCode::OK, "nothing is to be sent again");
    let body = bytes(answer).await;
    assert_eq!(&body[..1], [0x0a]);
    assert!(String::from_utf8_lossy(&body).contains("10.9.9.9:1"));
    let headers = [PROTOBUF, ("content-encoding", "snappy")];
    let answer = site.post("/api/v1/write", &headers, written("10.9.9.9:1", 1.0)).await;
    assert_eq!(answer.status(), StatusCode::NO_CONTENT, "what is of another server is no error");
    let (status, said) =
        site.json(&format!(r#"[{{"backend":"{A}","running":1}},{{"backend":"nobody","running":1}}]"#)).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(said.contains(r#""accepted":1"#) && said.contains("nobody"), "{said}");
}

#[tokio::test]
async fn tokens_open_their_pools_only() {
    let token = |token: &str, pool: &str| PoolToken { token_env: token.into(), pools: vec![pool.into()] };
    let site = Site::new(|push| push.tokens = vec![token("token-of-a", "a"), token("token-of-b", "b")]);
    let body = format!(r#"{{"backend":"{B}","queue_depth":5}}"#);
    for (bearer, status) in [
        (None, StatusCode::UNAUTHORIZED),
        (Some("Bearer wrong"), StatusCode::UNAUTHORIZED),
        (Some("Bearer token-of-a"), StatusCode::FORBIDDEN),
        (Some("Bearer token-of-b"), StatusCode::OK),
    ] {
        let mut headers = vec![JSON];
        headers.extend(bearer.map(|bearer| ("authorization", bearer)));
        assert_eq!(site.post("/api/v1/telemetry", &headers, body.clone()).await.status(), status);
    }
    let headers = [PROTOBUF, ("authorization", "Bearer token-of-a")];
    let answer = site.post("/v1/metrics", &headers, exported(B, 1.0)).await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert!(text(answer).await.contains("neither token nor certificate is for the pool"));
    let headers = [("content-type", "application/grpc")];
    assert_eq!(
        site.post(EXPORT, &headers, framed(0, &exported(B, 1.0))).await.headers()["grpc-status"],
        "16"
    );
    assert_eq!(site.metrics.points(), 1);
}

#[tokio::test]
async fn a_full_queue_asks_senders_to_come_back() {
    // Nobody empties the queue.
    let site = Site::new(|push| (push.max_points, push.queue_points) = (2, 8));
    let send = async || site.post("/v1/metrics", &[PROTOBUF], exported(A, 1.0)).await;
    assert_eq!(send().await.status(), StatusCode::OK);
    assert_eq!(send().await.status(), StatusCode::OK);
    let answer = send().await;
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.headers()[header::RETRY_AFTER], "1");
    let headers = [("content-type", "application/grpc")];
    let answer = site.post(EXPORT, &headers, framed(0, &exported(A, 1.0))).await;
    assert_eq!(answer.headers()["grpc-status"], "14");
    let details = answer.headers()["grpc-status-details-bin"].to_str().unwrap();
    assert!(!details.is_empty());
    // What no engine knows needs no place.
    let unknown = export(vec![], vec![gauge("up", now_ms(), 1.0)]).encode_to_vec();
    assert_eq!(site.post("/v1/metrics", &[PROTOBUF], unknown).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_sender_that_left_keeps_its_place_while_its_request_is_read() {
    let site = Site::new(|push| push.max_requests = 1);
    let one = "{\"backend\":\"nobody:1\",\"queue_depth\":1}";
    let many = format!("[{}]", vec![one; 20_000].join(","));
    let mut leaves = Box::pin(site.json(&many));
    assert!(leaves.as_mut().now_or_never().is_none(), "it is read on another thread");
    drop(leaves);
    assert_eq!(site.json(one).await.0, StatusCode::SERVICE_UNAVAILABLE);
    let deadline = Instant::now() + Duration::from_secs(10);
    while site.json(one).await.0 == StatusCode::SERVICE_UNAVAILABLE {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn one_sender_leaves_room_for_the_others() {
    let names = ["token-1", "token-2", "token-3", "token-4", "token-5"];
    // Nobody empties the queue.
    let site = Site::new(|push| {
        let token = |name: &&str| PoolToken { token_env: (*name).into(), pools: vec!["a".into()] };
        push.tokens = names.iter().map(token).collect();
        (push.queue_points, push.max_requests) = (8, 1);
        push.body_deadline = Span(Duration::from_secs(60));
    });
    // Bodies that never come take no place.
    let never = futures::stream::pending::<Result<http_body::Frame<Bytes>, Infallible>>();
    let request = Request::post("/v1/metrics").header(PROTOBUF.0, PROTOBUF.1);
    let request = request.header("authorization", "Bearer token-1").body(StreamBody::new(never)).unwrap();
    let mut waits = Box::pin(site.intake.answer(Surface::Http, request));
    assert!(futures::poll!(&mut waits).is_pending());

    for (index, name) in names.iter().enumerate() {
        let bearer = format!("Bearer {name}");
        let headers = [PROTOBUF, ("authorization", bearer.as_str())];
        let mut statuses = Vec::new();
        for _ in 0..3 {
            statuses.push(site.post("/v1/metrics", &headers, exported(A, 1.0)).await.status().as_u16());
        }
        // A quarter of it each.
        let expected = if index < 4 { [200, 200, 503] } else { [503; 3] };
        assert_eq!(statuses, expected, "{name}");
    }
}

#[tokio::test]
async fn slow_bodies_are_given_up_and_memory_is_shared_out() {
    let site = Site::new(|push| {
        push.body_deadline = Span(Duration::from_millis(200));
        push.max_buffered_bytes = 10_000;
    });
    let started = Instant::now();
    let endless = futures::stream::unfold((), |()| async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        Some((Ok::<_, Infallible>(http_body::Frame::data(Bytes::from_static(b"x"))), ()))
    });
    let body = StreamBody::new(Box::pin(endless));
    let request = Request::post("/v1/metrics").header(PROTOBUF.0, PROTOBUF.1).body(body).unwrap();
    let answer = site.intake.answer(Surface::Http, request).await;
    assert_eq!(answer.status(), StatusCode::REQUEST_TIMEOUT);
    assert!(started.elapsed() < Duration::from_secs(5));
    let answer = site.post("/v1/metrics", &[PROTOBUF], vec![0; 20_000]).await;
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    let answer = site.post("/v1/metrics", &[PROTOBUF], exported(A, 1.0)).await;
    assert_eq!(answer.status(), StatusCode::OK, "the memory came back");
}
