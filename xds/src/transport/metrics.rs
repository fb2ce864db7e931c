//! Metrics of the transport.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Why a connection was not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[expect(non_camel_case_types, reason = "values of a label")]
pub(super) enum Refusal {
    connections,
    peer_connections,
    rate,
    handshake,
    handshake_timeout,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[expect(non_camel_case_types, reason = "values of a label")]
pub(super) enum End {
    closed,
    error,
    cut,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusalLabel {
    reason: Refusal,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndLabel {
    how: End,
}

/// Counters of one listener. Clones count into the same series.
#[derive(Clone, Debug, Default)]
pub struct TransportMetrics {
    pub(super) connections: Gauge,
    pub(super) aged: Counter,
    pub(super) unused: Counter,
    pub(super) streams_refused: Counter,
    refused: Family<RefusalLabel, Counter>,
    ended: Family<EndLabel, Counter>,
}

impl TransportMetrics {
    /// Registers the series, under names that begin with `xds_transport_` and whatever prefix the registry
    /// has.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let registry = registry.sub_registry_with_prefix("xds_transport");
        registry.register("connections", "Connections that speak HTTP/2", metrics.connections.clone());
        registry.register(
            "connections_refused",
            "Connections that were not served: beyond the limit of connections, in whole or of one peer, or of new ones per second, \
             no TLS or HTTP/2 spoken, or nothing in time",
            metrics.refused.clone(),
        );
        registry.register(
            "connections_ended",
            "Connections that ended: closed in order, by an error or a dead peer, cut after the grace time",
            metrics.ended.clone(),
        );
        registry.register("connections_aged", "Connections that reached their age", metrics.aged.clone());
        registry.register(
            "connections_unused",
            "Connections on which no stream was accepted in time, and that were told to end",
            metrics.unused.clone(),
        );
        registry.register(
            "streams_refused",
            "Streams beyond the limit of new ones per second, or on a connection that drains",
            metrics.streams_refused.clone(),
        );
        metrics
    }

    /// Connections open at this moment.
    pub fn connections(&self) -> u64 {
        u64::try_from(self.connections.get()).unwrap_or(0)
    }

    pub(super) fn refuse(&self, reason: Refusal) {
        self.refused.get_or_create(&RefusalLabel { reason }).inc();
    }

    /// Counts a connection until the guard is dropped.
    pub(super) fn open(&self) -> OpenConnection<'_> {
        self.connections.inc();
        // By an error, unless something else is said.
        OpenConnection { metrics: self, end: End::error }
    }
}

pub(super) struct OpenConnection<'a> {
    metrics: &'a TransportMetrics,
    pub(super) end: End,
}

impl Drop for OpenConnection<'_> {
    fn drop(&mut self) {
        self.metrics.connections.dec();
        self.metrics.ended.get_or_create(&EndLabel { how: self.end }).inc();
    }
}
