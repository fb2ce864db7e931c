use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;
use prost::Message as _;

use crate::config::Push;
use crate::push::access::Access;
use crate::push::batch::PointValue;
use crate::push::collector::{Collector, Rules};
use crate::push::refusal::{PointRefusal, RequestRefusal};
use crate::push::{otlp, plain, remote_write};

use super::proto::{
    Data, Histogram, HistogramPoint, Metric, WriteRequest, attribute, export, gauge, series, sum,
};
use super::site::{A, B, directory};

pub(super) const NOW: i64 = 1_700_000_000_000;

pub(super) type Decode = fn(&[u8], &mut Collector<'_>) -> Result<(), RequestRefusal>;

const ALL: [Decode; 4] = [otlp::decode, otlp::json::decode, remote_write::decode, plain::decode];

/// Decodes a body and tells what was taken: backend, series, time, value; and what was not.
pub(super) fn decode_with(
    decode: Decode,
    body: &[u8],
    access: &Access,
    options: &Push,
    look: impl FnOnce(&Collector<'_>),
) -> Result<Vec<(String, String, i64, PointValue)>, RequestRefusal> {
    let rules = Rules::new(options);
    let directory = Arc::new(directory());
    let mut collector = Collector::new(&rules, &directory, access, NOW);
    decode(body, &mut collector)?;
    look(&collector);
    let batch = &collector.batch;
    let taken = batch.points.iter().map(|point| {
        let member = directory.member(point.member).unwrap();
        (member.address.to_string(), batch.series(point).to_owned(), point.at_ms, point.value.clone())
    });
    Ok(taken.collect())
}

fn decoded(decode: Decode, body: &[u8]) -> Vec<(String, String, i64, PointValue)> {
    decode_with(decode, body, &Access::All, &Push::default(), |_| {}).unwrap()
}

fn row(backend: &str, series: &str, value: f64) -> (String, String, i64, PointValue) {
    (backend.to_owned(), series.to_owned(), NOW, PointValue::Number(value))
}

#[test]
fn otlp_points_find_their_backend_and_their_name() {
    let by_address = export(
        vec![attribute("service.instance.id", A)],
        vec![gauge("vllm:num_requests_waiting", NOW, 3.0), gauge("go.goroutines", NOW, 1.0)],
    );
    let by_host_and_port = export(
        vec![attribute("server.address", "10.0.0.2"), attribute("server.port", "8000")],
        vec![sum("vllm.prompt_tokens", NOW, 7.0, 2)],
    );
    let mut of_point = gauge("vllm.num_requests.running", NOW, 2.0);
    if let Some(Data::Gauge(gauge)) = &mut of_point.data {
        gauge.data_points[0].attributes =
            vec![attribute("instance", "vllm-0"), attribute("model.name", "say \"hi\"")];
    }
    let by_point = export(vec![attribute("service.name", "vllm")], vec![of_point]);
    let expected = [
        row(A, "vllm:num_requests_waiting", 3.0),
        row(B, "vllm:prompt_tokens", 7.0),
        row(A, r#"vllm:num_requests_running{model_name="say \"hi\""}"#, 2.0),
    ];
    for (request, expected) in [by_address, by_host_and_port, by_point].into_iter().zip(expected) {
        assert_eq!(decoded(otlp::decode, &request.encode_to_vec()), [expected]);
    }
    let own = export(vec![attribute("instance", A)], vec![gauge("my.queue", NOW, 4.0)]);
    assert_eq!(decoded(otlp::decode, &own.encode_to_vec()), [row(A, "my_queue", 4.0)]);
    assert_eq!(decoded(otlp::decode, b""), [], "an empty request is fine");
}

#[test]
fn otlp_histograms_and_json_are_read_alike() {
    let point = HistogramPoint {
        at_ns: 1_700_000_000_000_000_000,
        count: 5,
        sum: Some(2500.0),
        bucket_counts: vec![1, 3, 1],
        explicit_bounds: vec![100.0, 1000.0],
        attributes: vec![],
    };
    let metric = Metric {
        name: "vllm.time_to_first_token".to_owned(),
        unit: "ms".to_owned(),
        data: Some(Data::Histogram(Histogram { data_points: vec![point], temporality: 2 })),
    };
    let protobuf = export(vec![attribute("instance", A)], vec![metric]).encode_to_vec();
    let json = format!(
        r#"{{"unknown":[],"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{{
            "histogram":{{"aggregationTemporality":2,"dataPoints":[{{"timeUnixNano":"1700000000000000000",
            "count":"5","sum":2500,"bucketCounts":["1",3,"1"],"explicitBounds":[100,1000]}}]}},
            "unit":"ms","name":"vllm.time_to_first_token"}}]}}],
            "resource":{{"attributes":[{{"key":"instance","value":{{"stringValue":"{A}"}}}},
            {{"key":"n","value":{{"intValue":"7"}}}}]}}}}]}}"#
    );
    let taken = decoded(otlp::decode, &protobuf);
    assert_eq!(taken, decoded(otlp::json::decode, json.as_bytes()));
    let [(backend, series, NOW, PointValue::Histogram { sum, count, .. })] = &taken[..] else {
        panic!("{taken:?}");
    };
    assert_eq!((backend.as_str(), series.as_str()), (A, "vllm:time_to_first_token_seconds"));
    assert_eq!((*sum, *count), (Some(2.5), 5.0), "milliseconds become seconds");
}

#[test]
fn remote_write_reads_series_and_stale_markers() {
    let stale = f64::from_bits(0x7ff0_0000_0000_0002);
    let labels = |name| {
        [("__name__", name), ("instance", A), ("job", "vllm"), ("prometheus_replica", "r1"), ("engine", "0")]
    };
    let request = WriteRequest {
        timeseries: vec![
            series(&labels("vllm:num_requests_running"), &[(NOW - 1000, 1.0), (NOW, 2.0)]),
            series(&labels("go_goroutines"), &[(NOW, 9.0)]),
            series(&labels("vllm:kv_cache_usage_perc"), &[(NOW, stale)]),
            series(&labels("vllm:kv_cache_usage_perc"), &[(0, 0.5)]),
        ],
    };
    let look = |collector: &Collector<'_>| {
        assert_eq!(collector.tally.unknown, 1);
        assert_eq!(collector.tally.refused_as(PointRefusal::TooOld), 1);
    };
    let body = request.encode_to_vec();
    let taken = decode_with(remote_write::decode, &body, &Access::All, &Push::default(), look).unwrap();
    let name = r#"vllm:num_requests_running{engine="0"}"#.to_owned();
    let expected = [
        (A.to_owned(), name, NOW - 1000, PointValue::Number(1.0)),
        row(A, r#"vllm:num_requests_running{engine="0"}"#, 2.0),
        (A.to_owned(), r#"vllm:kv_cache_usage_perc{engine="0"}"#.to_owned(), NOW, PointValue::Ended),
    ];
    assert_eq!(taken, expected);
}

#[test]
fn plain_json_is_one_object_or_a_list() {
    let body = format!(r#"{{"backend":"{A}","queue_depth":3,"at":1700000000}}"#);
    let expected = [row(A, "clairvoy:queue_depth", 3.0)];
    assert_eq!(decoded(plain::decode, body.as_bytes()), expected);
    let list = format!(r#" [ {body}, {{"backend":"{B}","running":1,"at":"2023-11-14T22:13:20Z"}} ] "#);
    let taken = decoded(plain::decode, list.as_bytes());
    assert_eq!(taken, [expected[0].clone(), row(B, "clairvoy:running", 1.0)]);
    for wrong in [
        "",
        "3",
        "[1]",
        "{}",
        r#"{"backend":"x","queue":3}"#,
        r#"{"backend":"x","running":"3"}"#,
        "[{]",
        "[] []",
    ] {
        let refused = decode_with(plain::decode, wrong.as_bytes(), &Access::All, &Push::default(), |_| {});
        assert!(matches!(refused, Err(RequestRefusal::Malformed(_))), "{wrong}: {refused:?}");
    }
}

#[test]
fn what_cannot_be_is_refused_and_counted() {
    let point = |labels: &[(&str, &str)], at_ms| {
        let mut all = vec![("__name__", "vllm:num_requests_running")];
        all.extend(labels);
        series(&all, &[(at_ms, 1.0)])
    };
    let long = "x".repeat(3000);
    let request = WriteRequest {
        timeseries: vec![
            point(&[("instance", A)], NOW),
            point(&[("instance", B)], NOW),
            point(&[("instance", "10.9.9.9:1")], NOW),
            point(&[], NOW),
            point(&[("instance", A)], NOW + 60_000),
            point(&[("instance", A)], NOW - 3_600_000),
            point(&[("instance", A)], i64::MIN),
            point(&[("instance", A), ("long", &long)], NOW),
        ],
    };
    let only_a = Access::Pools(Arc::new(BTreeSet::from(["a".to_owned()])));
    let look = |collector: &Collector<'_>| {
        let count = |refusal| collector.tally.refused_as(refusal);
        assert_eq!(count(PointRefusal::Forbidden), 1);
        assert_eq!(count(PointRefusal::UnknownBackend), 2);
        assert_eq!(count(PointRefusal::Future), 1);
        assert_eq!(count(PointRefusal::TooOld), 2);
        assert_eq!(count(PointRefusal::LabelsTooLong), 1);
        let message = collector.tally.message().unwrap();
        assert!(message.contains("7 points") && message.contains(B), "{message}");
    };
    let body = request.encode_to_vec();
    let taken = decode_with(remote_write::decode, &body, &only_a, &Push::default(), look).unwrap();
    assert_eq!(taken, [row(A, "vllm:num_requests_running", 1.0)]);

    let few = Push { max_points: 7, ..Push::default() };
    let refused = decode_with(remote_write::decode, &body, &Access::All, &few, |_| {});
    assert_eq!(refused, Err(RequestRefusal::TooManyPoints { limit: 7 }));
}

#[test]
fn many_attributes_are_refused_and_not_looked_at_for_each_point() {
    let many: Vec<_> = (0..100_000).map(|index| attribute(&format!("a.{index}"), "v")).collect();
    let points = || (0..100_000).map(|_| gauge("vllm:num_requests_waiting", NOW, 1.0)).collect::<Vec<_>>();
    let look = |collector: &Collector<'_>| {
        assert_eq!(collector.tally.refused_as(PointRefusal::TooManyLabels), 100_000);
    };
    let body = export(many, points()).encode_to_vec();
    let begun = std::time::Instant::now();
    let taken = decode_with(otlp::decode, &body, &Access::All, &Push::default(), look);
    assert_eq!(taken, Ok(vec![]));
    // A value that is long, and of no backend.
    let long = attribute("host.name", &"x".repeat(1_000_000));
    let body = export(vec![long], points()).encode_to_vec();
    let look = |collector: &Collector<'_>| {
        assert_eq!(collector.tally.refused_as(PointRefusal::UnknownBackend), 100_000);
    };
    assert_eq!(decode_with(otlp::decode, &body, &Access::All, &Push::default(), look), Ok(vec![]));
    assert!(begun.elapsed().as_secs() < 20, "{:?}", begun.elapsed());

    let mut labels: Vec<(String, String)> = (0..200).map(|index| (format!("l{index}"), "v".into())).collect();
    labels.push(("instance".into(), A.into()));
    labels.push(("__name__".into(), "vllm:num_requests_waiting".into()));
    let labels: Vec<(&str, &str)> =
        labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let request = WriteRequest { timeseries: vec![series(&labels, &[(NOW, 1.0)])] };
    let look = |collector: &Collector<'_>| {
        assert_eq!(collector.tally.refused_as(PointRefusal::TooManyLabels), 1);
    };
    let body = request.encode_to_vec();
    assert_eq!(decode_with(remote_write::decode, &body, &Access::All, &Push::default(), look), Ok(vec![]));
}

#[test]
fn a_million_unknown_series_cost_no_memory() {
    let unknown = series(&[("__name__", "x"), ("instance", A)], &[(NOW, 1.0)]);
    let request = WriteRequest { timeseries: vec![unknown; 400_000] };
    let look = |collector: &Collector<'_>| assert_eq!(collector.tally.unknown, 400_000);
    let body = request.encode_to_vec();
    let taken = decode_with(remote_write::decode, &body, &Access::All, &Push::default(), look);
    assert_eq!(taken, Ok(vec![]));
}

proptest! {
    #![proptest_config(crate::fuzz::cases())]

    #[test]
    fn any_bytes_are_decoded_or_refused(body in proptest::collection::vec(any::<u8>(), 0..600)) {
        for decode in ALL {
            let _ = decode_with(decode, &body, &Access::All, &Push::default(), |_| {});
        }
    }

    #[test]
    fn broken_messages_are_decoded_or_refused(
        at in any::<proptest::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<proptest::sample::Index>(),
        bounds in proptest::collection::vec(any::<f64>(), 0..5),
        counts in proptest::collection::vec(any::<u64>(), 0..6),
    ) {
        let point = HistogramPoint {
            at_ns: 1_700_000_000_000_000_000,
            explicit_bounds: bounds,
            bucket_counts: counts,
            attributes: vec![attribute("a", "b")],
            ..HistogramPoint::default()
        };
        let histogram = Data::Histogram(Histogram { data_points: vec![point], temporality: 1 });
        let metric = Metric {
            name: "vllm:time_to_first_token_seconds".into(), unit: "s".into(), data: Some(histogram),
        };
        let otlp_message = export(
            vec![attribute("instance", A)],
            vec![metric, gauge("vllm:num_requests_running", NOW, f64::NAN)],
        ).encode_to_vec();
        let labels = [("__name__", "vllm:num_requests_running"), ("instance", A)];
        let written =
            WriteRequest { timeseries: vec![series(&labels, &[(NOW, f64::NAN)])] }.encode_to_vec();
        let decoders: [(Decode, Vec<u8>); 2] =
            [(otlp::decode, otlp_message), (remote_write::decode, written)];
        for (decode, mut body) in decoders {
            let taken = decode_with(decode, &body, &Access::All, &Push::default(), |_| {});
            prop_assert!(taken.is_ok());
            let index = at.index(body.len());
            body[index] = byte;
            body.truncate(cut.index(body.len()) + 1);
            let _ = decode_with(decode, &body, &Access::All, &Push::default(), |_| {});
        }
    }

    #[test]
    fn near_json_is_decoded_or_refused(
        text in r#"(\{|\}|\[|\]|,|:|"resourceMetrics"|"scopeMetrics"|"metrics"|"name"|"backend"|"1"|-1e999|null){0,30}"#
    ) {
        for decode in [otlp::json::decode as Decode, plain::decode] {
            let _ = decode_with(decode, text.as_bytes(), &Access::All, &Push::default(), |_| {});
        }
    }
}
