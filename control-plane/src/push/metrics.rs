use std::fmt::{self, Write};

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::doors::Full;
use super::refusal::{PointRefusal, Tally};

/// What the intakes count; clones share the counts.
#[derive(Clone, Debug, Default)]
pub struct PushMetrics {
    requests: Family<OutcomeLabels, Counter>,
    bytes: Family<ProtocolLabels, Counter>,
    points: Family<ProtocolLabels, Counter>,
    unknown: Family<ProtocolLabels, Counter>,
    refused: Family<RefusedLabels, Counter>,
    pub(super) samples: Counter,
    pub(super) late: Counter,
    pub(super) evicted: Counter,
    pub(super) outcomes_dropped: Counter,
    connections_refused: Family<FullLabels, Counter>,
    pub(super) handshakes_failed: Counter,
    pub(super) connections: Gauge,
    pub(super) backends: Gauge,
    pub(super) queued_points: Gauge,
}

/// The ways in which telemetry is pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// OTLP over gRPC.
    OtlpGrpc,
    /// OTLP over HTTP, protobuf or JSON.
    OtlpHttp,
    /// Prometheus remote write.
    RemoteWrite,
    /// Plain JSON.
    Json,
    /// Envoys, with their load reports.
    Orca,
    /// None of these.
    Other,
}

impl EncodeLabelValue for Protocol {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        encoder.write_str(match self {
            Self::OtlpGrpc => "otlp_grpc",
            Self::OtlpHttp => "otlp_http",
            Self::RemoteWrite => "remote_write",
            Self::Json => "json",
            Self::Orca => "orca",
            Self::Other => "other",
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ProtocolLabels {
    protocol: Protocol,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    protocol: Protocol,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FullLabels {
    bound: Full,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusedLabels {
    protocol: Protocol,
    reason: PointRefusal,
}

impl PushMetrics {
    /// Registers all series as `clairvoy_push_…` in a registry that has no prefix of its own.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let registry = registry.sub_registry_with_prefix("clairvoy_push");
        registry.register("requests", "Requests, by what became of them", metrics.requests.clone());
        registry.register("bytes", "Bytes of bodies, as they came", metrics.bytes.clone());
        registry.register("points", "Points that were taken", metrics.points.clone());
        registry.register("unknown_points", "Points with names that no engine has", metrics.unknown.clone());
        registry.register("refused_points", "Known points that were refused", metrics.refused.clone());
        registry.register("samples", "Samples made of points", metrics.samples.clone());
        registry.register("late_points", "Points sent twice or out of order", metrics.late.clone());
        registry.register(
            "evicted_series",
            "Series forgotten because their backend has too many",
            metrics.evicted.clone(),
        );
        registry.register(
            "outcomes_dropped",
            "Samples that found the controller's queue full",
            metrics.outcomes_dropped.clone(),
        );
        registry.register(
            "connections_refused",
            "Connections closed because there were too many, in whole or of their peer",
            metrics.connections_refused.clone(),
        );
        registry.register(
            "handshakes_failed",
            "Connections that ended before TLS was agreed on, as those without the certificate that is asked for",
            metrics.handshakes_failed.clone(),
        );
        registry.register("connections", "Open connections of senders", metrics.connections.clone());
        registry.register("backends", "Backends that push", metrics.backends.clone());
        registry.register(
            "queued_points",
            "Points that wait to be put together",
            metrics.queued_points.clone(),
        );
        metrics
    }

    pub(super) fn connection_refused(&self, bound: Full) {
        self.connections_refused.get_or_create(&FullLabels { bound }).inc();
    }

    /// Connections that were closed because there were too many, in whole or of their peer.
    #[cfg(test)]
    pub(super) fn connections_refused(&self, bound: Full) -> u64 {
        self.connections_refused.get(&FullLabels { bound }).map_or(0, |count| count.get())
    }

    pub(super) fn request(&self, protocol: Protocol, outcome: &'static str) {
        self.requests.get_or_create(&OutcomeLabels { protocol, outcome }).inc();
    }

    pub(super) fn received(&self, protocol: Protocol, bytes: usize) {
        self.bytes.get_or_create(&ProtocolLabels { protocol }).inc_by(bytes as u64);
    }

    pub(super) fn taken(&self, protocol: Protocol, points: usize, tally: &Tally) {
        let labels = ProtocolLabels { protocol };
        self.points.get_or_create(&labels).inc_by(points as u64);
        self.unknown.get_or_create(&labels).inc_by(tally.unknown);
        for (reason, points) in tally.by_reason() {
            self.refused.get_or_create(&RefusedLabels { protocol, reason }).inc_by(points);
        }
    }

    /// Points that wait to be put together.
    pub fn queued_points(&self) -> i64 {
        self.queued_points.get()
    }

    /// Points that were taken, by all protocols.
    pub fn points(&self) -> u64 {
        let protocols = [Protocol::OtlpGrpc, Protocol::OtlpHttp, Protocol::RemoteWrite, Protocol::Json];
        let of = |protocol| self.points.get(&ProtocolLabels { protocol }).map_or(0, |count| count.get());
        protocols.into_iter().map(of).sum()
    }
}
