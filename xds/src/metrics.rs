//! Metrics of the server, registered into a registry of the caller.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::resource_type::ResourceType;
use crate::stream::{Feedback, Response};

/// Upper bounds in seconds: from a client on the same machine to one that warms for the usual 15 s.
const ACK_BUCKETS: [f64; 13] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0, 30.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TypeLabel {
    r#type: ResourceType,
}

/// Counters of one server. Clones count into the same series.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub(crate) streams: Gauge,
    pub(crate) streams_rejected: Counter,
    pub(crate) publishes: Counter,
    responses: Family<TypeLabel, Counter>,
    response_bytes: Family<TypeLabel, Counter>,
    resources: Family<TypeLabel, Counter>,
    removals: Family<TypeLabel, Counter>,
    acks: Family<TypeLabel, Counter>,
    nacks: Family<TypeLabel, Counter>,
    ack_seconds: Histogram,
}

impl Metrics {
    /// Registers the series, under names that begin with `xds_` and whatever prefix the registry has.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::unregistered();
        let registry = registry.sub_registry_with_prefix("xds");
        registry.register("streams", "Open streams", metrics.streams.clone());
        registry.register(
            "streams_rejected",
            "Streams refused at the limit of streams or during shutdown",
            metrics.streams_rejected.clone(),
        );
        registry.register("publishes", "Snapshots that changed something", metrics.publishes.clone());
        registry.register("responses", "Responses sent, by type", metrics.responses.clone());
        registry.register("response_bytes", "Bytes of responses, by type", metrics.response_bytes.clone());
        registry.register("resources", "Resources sent, by type", metrics.resources.clone());
        registry.register("removals", "Names sent as removed, by type", metrics.removals.clone());
        registry.register("acks", "Responses that clients accepted, by type", metrics.acks.clone());
        registry.register("nacks", "Responses that clients refused, by type", metrics.nacks.clone());
        registry.register(
            "publish_to_ack_seconds",
            "Time from publishing, or from the request if that came later, to the ACK",
            metrics.ack_seconds.clone(),
        );
        metrics
    }

    pub(crate) fn unregistered() -> Self {
        Self {
            streams: Gauge::default(),
            streams_rejected: Counter::default(),
            publishes: Counter::default(),
            responses: Family::default(),
            response_bytes: Family::default(),
            resources: Family::default(),
            removals: Family::default(),
            acks: Family::default(),
            nacks: Family::default(),
            ack_seconds: Histogram::new(ACK_BUCKETS),
        }
    }

    pub(crate) fn count_response(&self, response: &Response) {
        let Some(resource_type) = response.resource_type else { return };
        let label = TypeLabel { r#type: resource_type };
        self.responses.get_or_create(&label).inc();
        self.response_bytes.get_or_create(&label).inc_by(response.encoded.len() as u64);
        self.resources.get_or_create(&label).inc_by(response.resources as u64);
        self.removals.get_or_create(&label).inc_by(response.removed as u64);
    }

    pub(crate) fn count_feedback(&self, feedback: &Feedback) {
        match feedback {
            Feedback::Acked { resource_type, latency } => {
                self.acks.get_or_create(&TypeLabel { r#type: *resource_type }).inc();
                self.observe_ack(*latency);
            }
            Feedback::Nacked { resource_type, .. } => {
                self.nacks.get_or_create(&TypeLabel { r#type: *resource_type }).inc();
            }
        }
    }

    fn observe_ack(&self, latency: Duration) {
        self.ack_seconds.observe(latency.as_secs_f64());
    }
}
