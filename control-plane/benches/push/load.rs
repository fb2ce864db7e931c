//! Bodies as senders write them.

use std::fmt::Write as _;
use std::io::Write as _;

use clairvoy::push::Surface;
use flate2::Compression;
use flate2::write::GzEncoder;
use prost::Message as _;

use super::proto::{
    Data, ExportRequest, KeyValue, Metric, NumberPoint, WriteRequest, attribute, export, gauge, number,
    series, sum,
};

/// Backends of the fleet.
pub(super) const BACKENDS: usize = 200;

/// Series that engines have and that are read.
const KNOWN: [&str; 10] = [
    "vllm:num_requests_waiting",
    "vllm:num_requests_running",
    "vllm:kv_cache_usage_perc",
    "vllm:time_to_first_token_seconds_sum",
    "vllm:time_to_first_token_seconds_count",
    "vllm:inter_token_latency_seconds_sum",
    "vllm:inter_token_latency_seconds_count",
    "vllm:request_success_total",
    "vllm:prompt_tokens_total",
    "vllm:generation_tokens_total",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    OtlpGrpc,
    OtlpGrpcGzip,
    OtlpHttp,
    OtlpHttpGzip,
    OtlpJson,
    RemoteWrite,
    /// Without its packing.
    RemoteWriteMessage,
    Plain,
}

/// What a request is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Page {
    /// Series that are read.
    Known,
    /// Four of five are not.
    Whole,
}

impl Page {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Known => "known ones",
            Self::Whole => "all, a fifth known",
        }
    }

    fn series(self, index: usize) -> String {
        let known = KNOWN[index % KNOWN.len()];
        match self {
            Self::Whole if !index.is_multiple_of(5) => {
                format!("vllm:request_decode_time_seconds_bucket_{}", index % 97)
            }
            Self::Whole => KNOWN[index / 5 % KNOWN.len()].to_owned(),
            Self::Known => known.to_owned(),
        }
    }
}

impl Format {
    pub(super) const ALL: [Self; 7] = [
        Self::OtlpGrpc,
        Self::OtlpGrpcGzip,
        Self::OtlpHttp,
        Self::OtlpHttpGzip,
        Self::RemoteWrite,
        Self::OtlpJson,
        Self::Plain,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::OtlpGrpc => "OTLP, gRPC",
            Self::OtlpGrpcGzip => "OTLP, gRPC, gzip",
            Self::OtlpHttp => "OTLP, HTTP, protobuf",
            Self::OtlpHttpGzip => "OTLP, HTTP, protobuf, gzip",
            Self::OtlpJson => "OTLP, HTTP, JSON",
            Self::RemoteWrite | Self::RemoteWriteMessage => "remote write, snappy",
            Self::Plain => "plain JSON",
        }
    }

    pub(super) fn surface(self) -> Surface {
        match self {
            Self::OtlpGrpc | Self::OtlpGrpcGzip => Surface::Grpc,
            _ => Surface::Http,
        }
    }

    pub(super) fn path(self) -> &'static str {
        match self {
            Self::OtlpGrpc | Self::OtlpGrpcGzip => {
                "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"
            }
            Self::OtlpHttp | Self::OtlpHttpGzip | Self::OtlpJson => "/v1/metrics",
            Self::RemoteWrite | Self::RemoteWriteMessage => "/api/v1/write",
            Self::Plain => "/api/v1/telemetry",
        }
    }

    pub(super) fn headers(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::OtlpGrpc => &[("content-type", "application/grpc")],
            Self::OtlpGrpcGzip => &[("content-type", "application/grpc"), ("grpc-encoding", "gzip")],
            Self::OtlpHttp => &[("content-type", "application/x-protobuf")],
            Self::OtlpHttpGzip => &[("content-type", "application/x-protobuf"), ("content-encoding", "gzip")],
            Self::OtlpJson | Self::Plain => &[("content-type", "application/json")],
            Self::RemoteWrite | Self::RemoteWriteMessage => {
                &[("content-type", "application/x-protobuf"), ("content-encoding", "snappy")]
            }
        }
    }
}

pub(super) fn address(backend: usize) -> String {
    format!("10.1.{}.{}:8000", backend / 250, backend % 250 + 1)
}

/// The body of a request.
pub(super) fn body(format: Format, page: Page, points: usize, at_ms: i64) -> Vec<u8> {
    match format {
        Format::OtlpHttp => otlp(page, points, at_ms).encode_to_vec(),
        Format::OtlpHttpGzip => gzip(&otlp(page, points, at_ms).encode_to_vec()),
        Format::OtlpGrpc => framed(0, &otlp(page, points, at_ms).encode_to_vec()),
        Format::OtlpGrpcGzip => framed(1, &gzip(&otlp(page, points, at_ms).encode_to_vec())),
        Format::OtlpJson => json(&otlp(page, points, at_ms)),
        Format::RemoteWriteMessage => write_request(page, points, at_ms).encode_to_vec(),
        Format::RemoteWrite => {
            let message = write_request(page, points, at_ms).encode_to_vec();
            snap::raw::Encoder::new().compress_vec(&message).unwrap_or_default()
        }
        Format::Plain => plain(points, at_ms),
    }
}

/// One resource per backend with its metrics, as a collector sends them.
fn otlp(page: Page, points: usize, at_ms: i64) -> ExportRequest {
    let of_one = points.div_ceil(BACKENDS);
    let mut request = ExportRequest::default();
    for backend in 0..BACKENDS {
        let attributes =
            vec![attribute("service.name", "vllm"), attribute("service.instance.id", &address(backend))];
        let metrics = (0..of_one).map(|index| metric(&page.series(backend * of_one + index), at_ms));
        request.resource_metrics.extend(export(attributes, metrics.collect()).resource_metrics);
    }
    request
}

fn metric(name: &str, at_ms: i64) -> Metric {
    let value = at_ms as f64 / 1000.0;
    let mut metric = if name.contains("num_") || name.contains("perc") {
        gauge(name, at_ms, 0.5)
    } else {
        sum(name, at_ms, value, 2)
    };
    let labels = vec![attribute("model_name", "meta-llama/Llama-3.3-70B-Instruct"), attribute("engine", "0")];
    let point = NumberPoint { attributes: labels, ..number(at_ms, value) };
    match &mut metric.data {
        Some(Data::Gauge(gauge)) => gauge.data_points[0].attributes = point.attributes,
        Some(Data::Sum(sum)) => sum.data_points = vec![point],
        _ => {}
    }
    metric
}

fn write_request(page: Page, points: usize, at_ms: i64) -> WriteRequest {
    let of_one = points.div_ceil(BACKENDS);
    let one = |index: usize| {
        let backend = address(index / of_one);
        let name = page.series(index);
        let labels = [
            ("__name__", name.as_str()),
            ("cluster", "eu-west"),
            ("engine", "0"),
            ("instance", &backend),
            ("job", "vllm"),
            ("model_name", "meta-llama/Llama-3.3-70B-Instruct"),
        ];
        let value = if name.contains("num_") || name.contains("perc") { 0.5 } else { at_ms as f64 / 1000.0 };
        series(&labels, &[(at_ms, value)])
    };
    WriteRequest { timeseries: (0..points).map(one).collect() }
}

fn plain(points: usize, at_ms: i64) -> Vec<u8> {
    let mut text = String::from("[");
    for index in 0..points / 5 {
        let comma = if index == 0 { "" } else { "," };
        // Writing to a string does not fail.
        let _ = write!(
            text,
            r#"{comma}{{"backend":"{}","at":{}.{:03},"queue_depth":3,"running":12,"kv_used":0.41,"completed":{index},"output_tokens":{}}}"#,
            address(index % BACKENDS),
            at_ms / 1000,
            at_ms % 1000,
            index * 100
        );
    }
    text.push(']');
    text.into_bytes()
}

fn json(request: &ExportRequest) -> Vec<u8> {
    let pair = |pair: &KeyValue| {
        let text = pair.value.as_ref().and_then(|value| value.value.as_ref()).map(|value| match value {
            super::proto::Any::Text(text) => text.clone(),
            super::proto::Any::Integer(number) => number.to_string(),
        });
        serde_json::json!({"key": pair.key, "value": {"stringValue": text}})
    };
    let attributes = |pairs: &[KeyValue]| pairs.iter().map(pair).collect::<Vec<_>>();
    let point = |point: &NumberPoint| {
        let value = match point.value {
            Some(super::proto::Number::Double(value)) => value,
            _ => 0.0,
        };
        serde_json::json!({"attributes": attributes(&point.attributes), "asDouble": value,
            "timeUnixNano": point.at_ns.to_string()})
    };
    let metric = |metric: &Metric| match &metric.data {
        Some(Data::Sum(sum)) => serde_json::json!({"name": metric.name, "sum": {"aggregationTemporality": 2,
            "isMonotonic": true, "dataPoints": sum.data_points.iter().map(point).collect::<Vec<_>>()}}),
        Some(Data::Gauge(gauge)) => serde_json::json!({"name": metric.name, "gauge":
            {"dataPoints": gauge.data_points.iter().map(point).collect::<Vec<_>>()}}),
        _ => serde_json::json!({"name": metric.name}),
    };
    let groups = request.resource_metrics.iter().map(|group| {
        let resource = group.resource.as_ref().map(|resource| attributes(&resource.attributes));
        let metrics = group.scope_metrics.iter().flat_map(|scope| scope.metrics.iter().map(metric));
        serde_json::json!({"resource": {"attributes": resource},
            "scopeMetrics": [{"metrics": metrics.collect::<Vec<_>>()}]})
    });
    serde_json::json!({"resourceMetrics": groups.collect::<Vec<_>>()}).to_string().into_bytes()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    // Writing to memory does not fail.
    let _ = encoder.write_all(bytes);
    encoder.finish().unwrap_or_default()
}

fn framed(packed: u8, message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    [&[packed][..], &length.to_be_bytes(), message].concat()
}
