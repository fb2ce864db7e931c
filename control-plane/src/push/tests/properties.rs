//! Whatever is sent: the forms of one message say the same, and no bytes do harm.

use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderMap;
use bytes::Bytes;
use proptest::prelude::*;
use prost::Message as _;
use serde_json::{Value as Json, json};
use tokio::sync::Semaphore;

use crate::config::Push;
use crate::push::access::Access;
use crate::push::batch::PointValue;
use crate::push::body::{BodyLimits, Held, Packing};
use crate::push::collector::Collector;
use crate::push::refusal::RequestRefusal;
use crate::push::serve::unframe;
use crate::push::{otlp, plain, remote_write};

use super::decode::{Decode, NOW, decode_with};
use super::proto::{
    Any, AnyValue, Buckets, Data, Exponential, ExponentialPoint, ExportRequest, Gauge, Histogram,
    HistogramPoint, KeyValue, Metric, Number, NumberPoint, Sum, WriteRequest, export, series,
};
use super::site::{A, B, gzip, snappy};

fn attributes() -> impl Strategy<Value = Vec<KeyValue>> {
    let value = prop_oneof![
        Just(Any::Text(A.to_owned())),
        Just(Any::Text(B.to_owned())),
        ".{0,8}".prop_map(Any::Text),
        any::<i64>().prop_map(Any::Integer),
    ];
    let key = prop_oneof![Just("service.instance.id".to_owned()), Just("engine".to_owned()), "[a-z.]{1,6}"];
    let pair = (key, proptest::option::of(value))
        .prop_map(|(key, value)| KeyValue { key, value: value.map(|value| AnyValue { value: Some(value) }) });
    proptest::collection::vec(pair, 0..4)
}

fn any_time() -> impl Strategy<Value = u64> {
    let near = (NOW - 2000..NOW + 2000).prop_map(|at_ms| at_ms.unsigned_abs() * 1_000_000);
    prop_oneof![8 => near, 1 => Just(0), 1 => any::<u64>()]
}

fn numbers() -> impl Strategy<Value = Vec<NumberPoint>> {
    let value = prop_oneof![
        any::<f64>().prop_map(Number::Double),
        Just(Number::Double(f64::INFINITY)),
        any::<i64>().prop_map(Number::Integer),
    ];
    let point = (any_time(), proptest::option::weighted(0.9, value), attributes(), 0..3_u32).prop_map(
        |(at_ns, value, attributes, flags)| NumberPoint { at_ns, value, attributes, flags, start_ns: 0 },
    );
    proptest::collection::vec(point, 0..4)
}

fn spreads() -> impl Strategy<Value = Vec<HistogramPoint>> {
    let bounds = prop_oneof![
        proptest::collection::vec(any::<f64>(), 0..4),
        Just(vec![0.1, 1.0, 5.0]),
        Just((0..100).map(f64::from).collect()),
    ];
    let counts = prop_oneof![
        proptest::collection::vec(0_u64..1000, 0..5),
        proptest::collection::vec(0_u64..1000, 4..5),
        proptest::collection::vec(0_u64..1000, 101..102),
    ];
    let point = (any_time(), any::<u32>(), proptest::option::of(any::<f64>()), bounds, counts, attributes())
        .prop_map(|(at_ns, count, sum, explicit_bounds, bucket_counts, attributes)| HistogramPoint {
            at_ns,
            count: u64::from(count),
            sum,
            bucket_counts,
            explicit_bounds,
            attributes,
        });
    proptest::collection::vec(point, 0..3)
}

fn exponentials() -> impl Strategy<Value = Vec<ExponentialPoint>> {
    let offset = prop_oneof![-300..300_i32, any::<i32>()];
    let counts = proptest::collection::vec(prop_oneof![0_u64..1000, any::<u64>()], 0..200);
    let buckets = (offset, counts).prop_map(|(offset, bucket_counts)| Buckets { offset, bucket_counts });
    let scale = prop_oneof![-10..20_i32, any::<i32>()];
    let point =
        (any_time(), any::<u32>(), proptest::option::of(any::<f64>()), scale, proptest::option::of(buckets))
            .prop_map(|(at_ns, count, sum, scale, positive)| ExponentialPoint {
                at_ns,
                count: u64::from(count),
                sum,
                scale,
                zero_count: u64::from(count / 7),
                positive,
            });
    proptest::collection::vec(point, 0..3)
}

fn metric() -> impl Strategy<Value = Metric> {
    let name = prop_oneof![
        Just("vllm:num_requests_waiting"),
        Just("vllm.num_requests.running"),
        Just("vllm:generation_tokens"),
        Just("vllm:time_to_first_token_seconds"),
        Just("vllm.time_to_first_token"),
        Just("clairvoy.queue_depth"),
        Just("go.goroutines"),
    ];
    let unit = prop_oneof![Just(""), Just("1"), Just("s"), Just("ms"), Just("{token}")];
    let data = prop_oneof![
        numbers().prop_map(|data_points| Data::Gauge(Gauge { data_points })),
        (numbers(), 0..3).prop_map(|(data_points, temporality)| {
            Data::Sum(Sum { data_points, temporality, is_monotonic: true })
        }),
        (spreads(), 0..3)
            .prop_map(|(data_points, temporality)| Data::Histogram(Histogram { data_points, temporality })),
        (exponentials(), 0..3).prop_map(|(data_points, temporality)| Data::Exponential(Exponential {
            data_points,
            temporality
        })),
    ];
    (name, unit, data).prop_map(|(name, unit, data)| Metric {
        name: name.to_owned(),
        unit: unit.to_owned(),
        data: Some(data),
    })
}

/// A double as the JSON form of protobuf has it.
fn double(value: f64) -> Json {
    match value {
        value if value.is_nan() => json!("NaN"),
        value if value.is_infinite() => json!(if value > 0.0 { "Infinity" } else { "-Infinity" }),
        value => json!(value),
    }
}

fn written_attributes(attributes: &[KeyValue]) -> Json {
    let pair = |pair: &KeyValue| match pair.value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(Any::Text(text)) => json!({"key": pair.key, "value": {"stringValue": text}}),
        Some(Any::Integer(value)) => json!({"key": pair.key, "value": {"intValue": value.to_string()}}),
        None => json!({"key": pair.key}),
    };
    attributes.iter().map(pair).collect()
}

fn written_numbers(points: &[NumberPoint]) -> Json {
    let point = |point: &NumberPoint| {
        let mut written = json!({
            "timeUnixNano": point.at_ns.to_string(),
            "attributes": written_attributes(&point.attributes),
            "flags": point.flags,
        });
        match point.value {
            Some(Number::Double(value)) => written["asDouble"] = double(value),
            Some(Number::Integer(value)) => written["asInt"] = json!(value.to_string()),
            None => {}
        }
        written
    };
    points.iter().map(point).collect()
}

fn written_spreads(points: &[HistogramPoint]) -> Json {
    let point = |point: &HistogramPoint| {
        let counts: Vec<String> = point.bucket_counts.iter().map(ToString::to_string).collect();
        let bounds: Vec<Json> = point.explicit_bounds.iter().map(|bound| double(*bound)).collect();
        json!({
            "timeUnixNano": point.at_ns.to_string(),
            "attributes": written_attributes(&point.attributes),
            "count": point.count.to_string(),
            "sum": point.sum.map(double),
            "bucketCounts": counts,
            "explicitBounds": bounds,
        })
    };
    points.iter().map(point).collect()
}

fn written_exponentials(points: &[ExponentialPoint]) -> Json {
    let point = |point: &ExponentialPoint| {
        let buckets = point.positive.as_ref().map(|buckets| {
            let counts: Vec<String> = buckets.bucket_counts.iter().map(ToString::to_string).collect();
            json!({ "offset": buckets.offset, "bucketCounts": counts })
        });
        json!({
            "timeUnixNano": point.at_ns.to_string(),
            "count": point.count.to_string(),
            "sum": point.sum.map(double),
            "scale": point.scale,
            "zeroCount": point.zero_count.to_string(),
            "positive": buckets,
        })
    };
    points.iter().map(point).collect()
}

/// A request in its JSON form.
fn written(request: &ExportRequest) -> String {
    let metric = |metric: &Metric| {
        let mut written = json!({"name": metric.name, "unit": metric.unit});
        match metric.data.as_ref() {
            Some(Data::Gauge(gauge)) => {
                written["gauge"] = json!({"dataPoints": written_numbers(&gauge.data_points)});
            }
            Some(Data::Sum(sum)) => {
                written["sum"] = json!({
                    "dataPoints": written_numbers(&sum.data_points), "aggregationTemporality": sum.temporality,
                    "isMonotonic": true,
                });
            }
            Some(Data::Histogram(histogram)) => {
                written["histogram"] = json!({
                    "dataPoints": written_spreads(&histogram.data_points),
                    "aggregationTemporality": histogram.temporality,
                });
            }
            Some(Data::Exponential(histogram)) => {
                written["exponentialHistogram"] = json!({
                    "dataPoints": written_exponentials(&histogram.data_points),
                    "aggregationTemporality": histogram.temporality,
                });
            }
            None => {}
        }
        written
    };
    let groups: Vec<Json> = request
        .resource_metrics
        .iter()
        .map(|group| {
            let attributes = group.resource.as_ref().map(|resource| written_attributes(&resource.attributes));
            let scopes: Vec<Json> = group
                .scope_metrics
                .iter()
                .map(|scope| json!({"metrics": scope.metrics.iter().map(metric).collect::<Vec<_>>()}))
                .collect();
            json!({"resource": {"attributes": attributes}, "scopeMetrics": scopes})
        })
        .collect();
    json!({"resourceMetrics": groups}).to_string()
}

/// What a decoder took and did not take, as text, in which NaN is like itself.
fn told(decode: Decode, body: &[u8]) -> Result<String, RequestRefusal> {
    let mut tally = String::new();
    let look = |collector: &Collector<'_>| {
        let reasons: Vec<_> = collector.tally.by_reason().collect();
        let buckets: Vec<_> = collector
            .batch
            .points
            .iter()
            .filter_map(|point| match &point.value {
                PointValue::Histogram { buckets, .. } => Some(collector.batch.buckets(buckets).to_vec()),
                _ => None,
            })
            .collect();
        tally = format!("{} {reasons:?} {buckets:?}", collector.tally.unknown);
    };
    let taken = decode_with(decode, body, &Access::All, &Push::default(), look)?;
    Ok(format!("{taken:?} {tally}"))
}

fn limits() -> BodyLimits {
    BodyLimits {
        max_bytes: 100_000,
        deadline: Duration::from_secs(1),
        memory: Arc::new(Semaphore::new(1 << 20)),
    }
}

fn read_body(body: &[u8]) -> Held {
    Held::of(Bytes::copy_from_slice(body))
}

proptest! {
    #![proptest_config(crate::fuzz::cases())]

    #[test]
    fn otlp_says_the_same_in_protobuf_and_in_json(
        resource in attributes(),
        metrics in proptest::collection::vec(metric(), 0..5),
    ) {
        let request = export(resource, metrics);
        let protobuf = told(otlp::decode, &request.encode_to_vec()).unwrap();
        let json = told(otlp::json::decode, written(&request).as_bytes()).unwrap();
        prop_assert_eq!(protobuf, json);
    }

    #[test]
    fn remote_write_takes_what_was_written(
        values in proptest::collection::vec((1_i64..5000, any::<f64>()), 0..20),
        label in ".{0,20}",
    ) {
        let labels = [("__name__", "vllm:num_requests_waiting"), ("instance", A), ("engine", label.as_str())];
        let points: Vec<(i64, f64)> = // The protocol has no negative zero.
            values.iter().map(|(back, value)| (NOW - back, *value + 0.0)).collect();
        let body = WriteRequest { timeseries: vec![series(&labels, &points)] }.encode_to_vec();
        let taken = decode_with(remote_write::decode, &body, &Access::All, &Push::default(), |_| {}).unwrap();
        let seen: Vec<(i64, PointValue)> = taken.into_iter().map(|point| (point.2, point.3)).collect();
        let expected: Vec<(i64, PointValue)> =
            points.iter().map(|(at_ms, value)| (*at_ms, PointValue::Number(*value))).collect();
        prop_assert_eq!(format!("{seen:?}"), format!("{expected:?}"));
    }

    #[test]
    fn plain_json_takes_what_was_written(
        queue in 0.0_f64..1e9,
        kv in proptest::option::of(any::<f64>().prop_filter("JSON has finite numbers", |value| value.is_finite())),
        at in proptest::option::of(-1e4_f64..1e4),
    ) {
        let mut report = json!({"backend": A, "queue_depth": queue});
        if let Some(kv) = kv {
            report["kv_used"] = json!(kv);
        }
        if let Some(at) = at {
            report["at"] = json!(NOW as f64 / 1000.0 + at);
        }
        let taken = told(plain::decode, report.to_string().as_bytes()).unwrap();
        let listed = told(plain::decode, json!([report]).to_string().as_bytes()).unwrap();
        prop_assert_eq!(&taken, &listed);
        let kept = at.is_none_or(|at| (-60.0..5.0).contains(&at));
        prop_assert!(!kept || taken.contains("clairvoy:queue_depth") || taken.contains("TooOld"), "{taken}");
    }

    #[test]
    fn a_frame_is_the_message_in_it_or_is_refused(
        packed in 0_u8..4, message in proptest::collection::vec(any::<u8>(), 0..300), extra in -5_i64..5,
    ) {
        let length = u32::try_from((message.len() as i64 + extra).max(0)).unwrap();
        let framed = [&[packed][..], &length.to_be_bytes(), &message].concat();
        let headers = HeaderMap::from_iter([("grpc-encoding".parse().unwrap(), "gzip".parse().unwrap())]);
        let whole = length as usize == message.len();
        match unframe(read_body(&framed), &headers) {
            Ok((held, packing)) => {
                prop_assert!(whole && packed <= 1);
                prop_assert_eq!(held.bytes.as_ref(), &message[..]);
                prop_assert_eq!(packing, if packed == 1 { Packing::Gzip } else { Packing::Plain });
            }
            Err(_) => prop_assert!(!whole || packed > 1),
        }
    }

    #[test]
    fn any_bytes_are_a_frame_or_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
        let _ = unframe(read_body(&bytes), &HeaderMap::new());
    }

    #[test]
    fn packed_bodies_come_out_as_they_went_in_or_are_refused(
        body in proptest::collection::vec(any::<u8>(), 0..2000),
        repeat in 1_usize..200,
        at in any::<proptest::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let body = body.repeat(repeat);
        for (packing, mut packed) in [(Packing::Gzip, gzip(&body)), (Packing::Snappy, snappy(&body))] {
            let limits = limits();
            match limits.unpack(read_body(&packed), packing) {
                Ok(held) => prop_assert_eq!(held.bytes.as_ref(), &body[..]),
                Err(refusal) => {
                    let expected = matches!(refusal, RequestRefusal::TooLarge { .. });
                    prop_assert!(expected && body.len() > 100_000, "{refusal}");
                }
            }
            let at = at.index(packed.len());
            packed[at] = byte;
            if let Ok(held) = limits.unpack(read_body(&packed), packing) {
                prop_assert!(held.bytes.len() <= 100_000);
            }
            prop_assert_eq!(limits.memory.available_permits(), 1 << 20, "the memory comes back");
        }
    }

    #[test]
    fn any_bytes_are_unpacked_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        for packing in [Packing::Gzip, Packing::Snappy, Packing::Plain] {
            let limits = limits();
            let _ = limits.unpack(read_body(&bytes), packing);
            prop_assert_eq!(limits.memory.available_permits(), 1 << 20);
        }
    }
}
