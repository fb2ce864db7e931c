//! What no honest sender sends: each intake answers it with the right status, and counts it.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use axum::http::Request;
use bytes::Bytes;
use chrono::Utc;
use http_body_util::StreamBody;
use prost::Message as _;

use crate::config::Span;
use crate::push::Surface;

use super::proto::{WriteRequest, attribute, export, gauge, series, sum};
use super::site::{A, B, C, Site, gzip, snappy, text};

const GRPC: &str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";
const OTLP: &str = "/v1/metrics";
const WRITE: &str = "/api/v1/write";
const PLAIN: &str = "/api/v1/telemetry";

const PROTOBUF: (&str, &str) = ("content-type", "application/x-protobuf");
const JSON: (&str, &str) = ("content-type", "application/json");
const GRPC_TYPE: (&str, &str) = ("content-type", "application/grpc");
const SNAPPY: (&str, &str) = ("content-encoding", "snappy");
const GZIP: (&str, &str) = ("content-encoding", "gzip");

const MOST_POINTS: usize = 20_000;
const MOST_BYTES: usize = 4_000_000;

fn now_ms() -> i64 {
    Utc::now().timestamp_millis()
}

fn framed(packed: u8, message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap();
    [&[packed][..], &length.to_be_bytes(), message].concat()
}

/// So many series of a gauge, with a label of so many bytes, in OTLP.
fn otlp(count: usize, label: usize, value: f64) -> Vec<u8> {
    let metric = |index: usize| {
        let mut metric = gauge("vllm:num_requests_waiting", now_ms(), value);
        if let Some(super::proto::Data::Gauge(gauge)) = &mut metric.data {
            let text = format!("{index}{}", "x".repeat(label));
            gauge.data_points[0].attributes = vec![attribute("engine", &text)];
        }
        metric
    };
    export(vec![attribute("instance", A)], (0..count).map(metric).collect()).encode_to_vec()
}

/// The same in its JSON form.
fn otlp_json(count: usize, label: usize, value: &str) -> Vec<u8> {
    let point = |index: usize| {
        let at = now_ms();
        let text = format!("{index}{}", "x".repeat(label));
        format!(
            r#"{{"timeUnixNano":"{at}000000","asDouble":{value},
                "attributes":[{{"key":"engine","value":{{"stringValue":"{text}"}}}}]}}"#
        )
    };
    let points = (0..count).map(point).collect::<Vec<_>>().join(",");
    format!(
        r#"{{"resourceMetrics":[{{"resource":{{"attributes":[{{"key":"instance","value":{{"stringValue":"{A}"}}}}]}},
        "scopeMetrics":[{{"metrics":[{{"name":"vllm:num_requests_waiting","gauge":{{"dataPoints":[{points}]}}}}]}}]}}]}}"#
    )
    .into_bytes()
}

/// The same in remote write.
fn written(count: usize, label: usize, value: f64) -> Vec<u8> {
    let of = |index: usize| {
        let text = format!("{index}{}", "x".repeat(label));
        let labels = [("__name__", "vllm:num_requests_waiting"), ("instance", A), ("engine", text.as_str())];
        series(&labels, &[(now_ms(), value)])
    };
    snappy(&WriteRequest { timeseries: (0..count).map(of).collect() }.encode_to_vec())
}

fn plain(count: usize) -> Vec<u8> {
    let report = format!(r#"{{"backend":"{A}","queue_depth":1}}"#);
    format!("[{}]", vec![report; count].join(",")).into_bytes()
}

/// What is sent, how it is answered, and what counts it. The status of gRPC is that of the call.
struct Case {
    what: &'static str,
    path: &'static str,
    headers: Vec<(&'static str, &'static str)>,
    body: Vec<u8>,
    status: u16,
    outcome: &'static str,
    /// Why points were refused, if some were.
    reason: Option<&'static str>,
}

impl Case {
    fn protocol(&self) -> &'static str {
        match self.path {
            GRPC => "otlp_grpc",
            OTLP => "otlp_http",
            WRITE => "remote_write",
            _ => "json",
        }
    }
}

fn case(
    what: &'static str,
    path: &'static str,
    headers: &[(&'static str, &'static str)],
    body: Vec<u8>,
    (status, outcome, reason): (u16, &'static str, Option<&'static str>),
) -> Case {
    Case { what, path, headers: headers.to_vec(), body, status, outcome, reason }
}

fn cases() -> Vec<Case> {
    let grpc_gzip = [GRPC_TYPE, ("grpc-encoding", "gzip")];
    let bomb = vec![0; MOST_BYTES + 1];
    let many = MOST_POINTS + 1;
    let ok = |status| (status, "ok", None);
    let cut = |status| (status, "partial", Some("labels_too_long"));
    let large = |status| (status, "too_large", None);
    let points = |status| (status, "too_many_points", None);
    let other = |status| (status, "unsupported", None);
    let bad = |status| (status, "malformed", None);
    vec![
        case("NaN", GRPC, &[GRPC_TYPE], framed(0, &otlp(1, 0, f64::NAN)), ok(0)),
        case("NaN", OTLP, &[PROTOBUF], otlp(1, 0, f64::NAN), ok(200)),
        case("NaN", OTLP, &[JSON], otlp_json(1, 0, "\"NaN\""), ok(200)),
        case("NaN", WRITE, &[PROTOBUF, SNAPPY], written(1, 0, f64::NAN), ok(204)),
        case(
            "NaN",
            PLAIN,
            &[JSON],
            format!(r#"{{"backend":"{A}","queue_depth":NaN}}"#).into_bytes(),
            bad(400),
        ),
        case("huge labels", GRPC, &[GRPC_TYPE], framed(0, &otlp(2, 100_000, 1.0)), cut(0)),
        case("huge labels", OTLP, &[PROTOBUF], otlp(2, 100_000, 1.0), cut(200)),
        case("huge labels", OTLP, &[JSON], otlp_json(2, 100_000, "1"), cut(200)),
        case("huge labels", WRITE, &[PROTOBUF, SNAPPY], written(2, 100_000, 1.0), cut(400)),
        case(
            "a huge name",
            PLAIN,
            &[JSON],
            format!(r#"{{"backend":"{}","queue_depth":1}}"#, "x".repeat(100_000)).into_bytes(),
            (400, "partial", Some("unknown_backend")),
        ),
        case("too many series", GRPC, &[GRPC_TYPE], framed(0, &otlp(many, 0, 1.0)), points(8)),
        case("too many series", OTLP, &[PROTOBUF], otlp(many, 0, 1.0), points(413)),
        case("too many series", OTLP, &[JSON], otlp_json(many, 0, "1"), points(413)),
        case("too many series", WRITE, &[PROTOBUF, SNAPPY], written(many, 0, 1.0), points(413)),
        case("too many series", PLAIN, &[JSON], plain(many), points(413)),
        case("a bomb", GRPC, &grpc_gzip, framed(1, &gzip(&bomb)), large(8)),
        case("a bomb", OTLP, &[PROTOBUF, GZIP], gzip(&bomb), large(413)),
        case("a bomb", OTLP, &[JSON, GZIP], gzip(&bomb), large(413)),
        case("a bomb", WRITE, &[PROTOBUF, SNAPPY], snappy(&bomb), large(413)),
        case("a bomb", PLAIN, &[JSON, GZIP], gzip(&bomb), large(413)),
        case("another type", GRPC, &[("content-type", "text/plain")], framed(0, &[]), other(12)),
        case("another type", OTLP, &[("content-type", "text/plain")], vec![], other(415)),
        case("another type", WRITE, &[JSON, SNAPPY], vec![], other(415)),
        case("another type", PLAIN, &[PROTOBUF], vec![], other(415)),
        case("another packing", OTLP, &[JSON, ("content-encoding", "zstd")], vec![], other(415)),
        case("nonsense", GRPC, &[GRPC_TYPE], framed(0, &[0xff; 40]), bad(3)),
        case("nonsense", OTLP, &[PROTOBUF], vec![0xff; 40], bad(400)),
        case("nonsense", OTLP, &[JSON], b"[1,".to_vec(), bad(400)),
        case("nonsense", WRITE, &[PROTOBUF, SNAPPY], snappy(&[0xff; 40]), bad(400)),
        case("nonsense", PLAIN, &[JSON], b"[1,".to_vec(), bad(400)),
    ]
}

/// The status of an answer: of gRPC that of the call.
fn status(path: &str, answer: &axum::http::Response<axum::body::Body>) -> u16 {
    match path {
        GRPC => answer.headers().get("grpc-status").map_or(0, |code| code.to_str().unwrap().parse().unwrap()),
        _ => answer.status().as_u16(),
    }
}

#[tokio::test]
async fn each_is_answered_and_counted() {
    let site = Site::new(|push| (push.max_points, push.max_body_bytes) = (MOST_POINTS, MOST_BYTES));
    for case in cases() {
        let Case { what, path, headers, body, .. } = &case;
        let requests = format!(
            "clairvoy_push_requests_total{{protocol=\"{}\",outcome=\"{}\"}}",
            case.protocol(),
            case.outcome
        );
        let refused = case.reason.map(|reason| {
            format!(
                "clairvoy_push_refused_points_total{{protocol=\"{}\",reason=\"{reason}\"}}",
                case.protocol()
            )
        });
        let before = (site.count(&requests), refused.as_deref().map(|series| site.count(series)));
        let answer = site.post(path, headers, body.clone()).await;
        assert_eq!(status(path, &answer), case.status, "{what} to {path}");
        let (code, said) = (answer.status().as_u16(), text(answer).await);
        assert!(*path == GRPC || matches!(code, 200 | 204) || said.len() > 10, "{what} to {path}: {said}");
        assert_eq!(site.count(&requests), before.0 + 1, "{what} to {path}: {requests}");
        if let (Some(series), Some(before)) = (&refused, before.1) {
            assert!(site.count(series) > before, "{what} to {path}: {series}");
        }
    }
}

#[tokio::test]
async fn slow_bodies_are_given_up_and_counted() {
    let site = Site::new(|push| push.body_deadline = Span(Duration::from_millis(200)));
    for (path, kind, code, protocol) in [
        (GRPC, GRPC_TYPE, 4, "otlp_grpc"),
        (OTLP, PROTOBUF, 408, "otlp_http"),
        (OTLP, JSON, 408, "otlp_http"),
        (WRITE, PROTOBUF, 408, "remote_write"),
        (PLAIN, JSON, 408, "json"),
    ] {
        let requests =
            format!("clairvoy_push_requests_total{{protocol=\"{protocol}\",outcome=\"too_slow\"}}");
        let before = site.count(&requests);
        let started = Instant::now();
        let trickle = futures::stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            Some((Ok::<_, Infallible>(http_body::Frame::data(Bytes::from_static(b"x"))), ()))
        });
        let mut request = Request::post(path).header(kind.0, kind.1);
        if path == WRITE {
            request = request.header(SNAPPY.0, SNAPPY.1);
        }
        let surface = if path == GRPC { Surface::Grpc } else { Surface::Http };
        let body = StreamBody::new(Box::pin(trickle));
        let answer = site.intake.answer(surface, request.body(body).unwrap()).await;
        assert_eq!(status(path, &answer), code, "{path}");
        assert!(started.elapsed() < Duration::from_secs(5));
        assert_eq!(site.count(&requests), before + 1, "{path}");
    }
}

#[tokio::test]
async fn values_that_cannot_be_and_series_beyond_the_bound_are_counted() {
    let mut site = Site::new(|_| {}).assemble();
    // Each is written when it is sent: points of one moment would be of one reading.
    type Sender<'a> = (&'a str, Vec<(&'a str, &'a str)>, fn() -> Vec<u8>);
    let senders: [Sender<'_>; 4] = [
        (GRPC, vec![GRPC_TYPE], || framed(0, &otlp(1, 0, f64::NAN))),
        (OTLP, vec![PROTOBUF], || otlp(1, 0, f64::NAN)),
        (OTLP, vec![JSON], || otlp_json(1, 0, "\"NaN\"")),
        (WRITE, vec![PROTOBUF, SNAPPY], || written(1, 0, f64::NAN)),
    ];
    for (path, headers, body) in senders {
        let dropped =
            "clairvoy_telemetry_fields_dropped_total{field=\"queue_depth\",reason=\"not_a_number\"}";
        let before = site.count(dropped);
        site.post(path, &headers, body()).await;
        assert_eq!(site.sample().await.queue_depth, None, "{path}");
        assert!(site.count(dropped) > before, "{path}");
    }
    // The state of a backend stays bounded, however many series are sent.
    for path in [OTLP, WRITE] {
        let before = site.count("clairvoy_push_evicted_series_total");
        let (headers, body) = match path {
            OTLP => (vec![PROTOBUF], otlp(30_000, 0, 1.0)),
            _ => (vec![PROTOBUF, SNAPPY], written(30_000, 0, 1.0)),
        };
        site.post(path, &headers, body).await;
        // A part of the points may come as a sample of its own; the bound holds for each.
        while site.count("clairvoy_push_evicted_series_total") == before {
            let sample = site.sample().await;
            assert!(sample.queue_depth.unwrap() <= 2000.0, "{path}");
        }
    }
}

#[tokio::test]
async fn a_count_that_is_none_does_not_stay_in_a_sum() {
    let mut site = Site::new(|_| {}).assemble();
    let begin = now_ms() - 20_000;
    let refused = "clairvoy_push_refused_points_total{protocol=\"otlp_http\",reason=\"bad_count\"}";
    for temporality in [1, 2] {
        let before = site.count(refused);
        let values = [10.0, f64::NAN, f64::INFINITY, -5.0, 9.3e18, 20.0];
        for (step, value) in (0..).zip(values) {
            let at_ms = begin + 1000 * step;
            let metric = sum("vllm:generation_tokens", at_ms, value, temporality);
            let backend = if temporality == 1 { A } else { B };
            let body = export(vec![attribute("instance", backend)], vec![metric]).encode_to_vec();
            site.post(OTLP, &[PROTOBUF], body).await;
        }
        assert_eq!(site.sample().await.output_tokens, 0.0);
        let grown = if temporality == 1 { 20.0 } else { 10.0 };
        assert_eq!(site.sample().await.output_tokens, grown, "temporality {temporality}");
        assert_eq!(site.count(refused), before + 4);
    }
    // Increments that can be, whose sum cannot.
    let mut last = 0.0;
    for step in 0..4 {
        let metric = sum("vllm:prompt_tokens", begin + 1000 * step, if step < 2 { 9e18 } else { 7.0 }, 1);
        let body = export(vec![attribute("instance", C)], vec![metric]).encode_to_vec();
        site.post(OTLP, &[PROTOBUF], body).await;
        last = site.sample().await.prompt_tokens;
    }
    assert_eq!(last, 7.0, "it counts on");
}
