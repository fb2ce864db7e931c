//! Metrics of the intake, registered into a registry of the caller.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ServiceLabel {
    service: &'static str,
}

const LOAD_REPORTS: ServiceLabel = ServiceLabel { service: "lrs" };
const ACCESS_LOGS: ServiceLabel = ServiceLabel { service: "als" };

/// Counters of one intake, with the label `service`: `lrs` or `als`. Clones count into the same series.
///
/// ```
/// use clairvoy_xds::{Intake, IntakeMetrics, IntakeOptions};
/// use prometheus_client::encoding::text::encode;
/// use prometheus_client::registry::Registry;
///
/// let mut registry = Registry::default();
/// let metrics = IntakeMetrics::register(&mut registry);
/// let (_intake, _received) = Intake::with_metrics(IntakeOptions::default(), metrics).unwrap();
///
/// let mut text = String::new();
/// encode(&mut text, &registry).unwrap();
/// assert!(text.contains(r#"xds_intake_dropped_messages_total{service="als"} 0"#));
/// ```
#[derive(Clone, Debug)]
pub struct IntakeMetrics {
    pub(super) load_reports: ServiceMetrics,
    pub(super) access_logs: ServiceMetrics,
}

#[derive(Clone, Debug, Default)]
pub(super) struct ServiceMetrics {
    pub(super) streams: Gauge,
    pub(super) streams_rejected: Counter,
    pub(super) messages: Counter,
    pub(super) entries: Counter,
    pub(super) bytes: Counter,
    pub(super) dropped_messages: Counter,
    pub(super) dropped_entries: Counter,
}

impl IntakeMetrics {
    /// Registers the series, under names that begin with `xds_intake_` and whatever prefix the registry
    /// has.
    pub fn register(registry: &mut Registry) -> Self {
        let registry = registry.sub_registry_with_prefix("xds_intake");
        let streams = Family::<ServiceLabel, Gauge>::default();
        registry.register("streams", "Open streams", streams.clone());
        let mut counter = |name, help| {
            let family = Family::<ServiceLabel, Counter>::default();
            registry.register(name, help, family.clone());
            family
        };
        let streams_rejected =
            counter("streams_rejected", "Streams refused at the limit of streams or during shutdown");
        let messages = counter("messages", "Messages received");
        let entries = counter("entries", "Log entries, or clusters of load reports, received");
        let bytes = counter("bytes", "Bytes of messages received");
        let dropped_messages = counter("dropped_messages", "Messages that found no room in the queue");
        let dropped_entries =
            counter("dropped_entries", "Log entries, or clusters of load reports, that found no room");
        let of = |label: ServiceLabel| ServiceMetrics {
            streams: streams.get_or_create_owned(&label),
            streams_rejected: streams_rejected.get_or_create_owned(&label),
            messages: messages.get_or_create_owned(&label),
            entries: entries.get_or_create_owned(&label),
            bytes: bytes.get_or_create_owned(&label),
            dropped_messages: dropped_messages.get_or_create_owned(&label),
            dropped_entries: dropped_entries.get_or_create_owned(&label),
        };
        Self { load_reports: of(LOAD_REPORTS), access_logs: of(ACCESS_LOGS) }
    }

    pub(super) fn unregistered() -> Self {
        Self { load_reports: ServiceMetrics::default(), access_logs: ServiceMetrics::default() }
    }
}
