//! Metrics of the server, registered into a registry of the caller.

use std::fmt::{self, Debug};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeGaugeValue, EncodeLabelSet, EncodeLabelValue, LabelValueEncoder,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::resource_type::{PerType, ResourceType};
use crate::stream::{Feedback, Origin, Response, Variant};

/// Upper bounds in seconds: from a client on the same machine to one that warms for the usual 15 s.
const ACK_BUCKETS: [f64; 13] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0, 30.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TypeLabel {
    r#type: ResourceType,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VariantLabel {
    variant: Variant,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NodeLabel {
    node_id: String,
}

impl EncodeLabelValue for Variant {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
        let name = match self {
            Self::Delta => "delta",
            Self::Sotw => "sotw",
        };
        EncodeLabelValue::encode(&name, encoder)
    }
}

/// Counters of one server. Clones count into the same series.
#[derive(Clone, Debug)]
pub struct Metrics {
    streams: Family<VariantLabel, Gauge>,
    pub(crate) streams_rejected: Counter,
    pub(crate) publishes: Counter,
    /// Looked up once, so that counting costs no look-up.
    types: PerType<TypeMetrics>,
    families: Families,
    ack_seconds: Histogram,
    observed: Observation,
}

#[derive(Clone, Debug, Default)]
struct Families {
    responses: Family<TypeLabel, Counter>,
    response_bytes: Family<TypeLabel, Counter>,
    resources: Family<TypeLabel, Counter>,
    removals: Family<TypeLabel, Counter>,
    acks: Family<TypeLabel, Counter>,
    nacks: Family<TypeLabel, Counter>,
    merged: Family<TypeLabel, Counter>,
    encoded: Family<TypeLabel, Counter>,
    shared: Family<TypeLabel, Counter>,
}

#[derive(Clone, Debug)]
struct TypeMetrics {
    responses: Counter,
    response_bytes: Counter,
    resources: Counter,
    removals: Counter,
    acks: Counter,
    nacks: Counter,
    merged: Counter,
    encoded: Counter,
    shared: Counter,
}

impl Families {
    fn of(&self, resource_type: ResourceType) -> TypeMetrics {
        let of = |family: &Family<TypeLabel, Counter>| {
            family.get_or_create(&TypeLabel { r#type: resource_type }).clone()
        };
        TypeMetrics {
            responses: of(&self.responses),
            response_bytes: of(&self.response_bytes),
            resources: of(&self.resources),
            removals: of(&self.removals),
            acks: of(&self.acks),
            nacks: of(&self.nacks),
            merged: of(&self.merged),
            encoded: of(&self.encoded),
            shared: of(&self.shared),
        }
    }

    fn register(&self, registry: &mut Registry) {
        let mut register = |name, help, family: &Family<TypeLabel, Counter>| {
            registry.register(name, help, family.clone());
        };
        register("responses", "Responses sent, by type", &self.responses);
        register("response_bytes", "Bytes of responses, by type", &self.response_bytes);
        register("resources", "Resources sent, by type", &self.resources);
        register("removals", "Names sent as removed, by type", &self.removals);
        register("acks", "Responses that clients accepted, by type", &self.acks);
        register("nacks", "Responses that clients refused, by type", &self.nacks);
        register("merged_states", "States overtaken before they were sent, by type", &self.merged);
        register("encoded_responses", "Responses encoded, by type", &self.encoded);
        register("shared_responses", "Responses sent that had been encoded before, by type", &self.shared);
    }
}

impl Metrics {
    /// Registers the series, under names that begin with `xds_` and whatever prefix the registry has.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::unregistered();
        let registry = registry.sub_registry_with_prefix("xds");
        registry.register("streams", "Open streams, by variant of the protocol", metrics.streams.clone());
        registry.register(
            "streams_rejected",
            "Streams refused at the limit of streams or during shutdown",
            metrics.streams_rejected.clone(),
        );
        registry.register("publishes", "Snapshots that changed something", metrics.publishes.clone());
        metrics.families.register(registry);
        registry.register(
            "publish_to_ack_seconds",
            "Time from publishing, or from the request if that came later, to the ACK",
            metrics.ack_seconds.clone(),
        );
        registry.register_collector(Box::new(metrics.observed.clone()));
        metrics
    }

    pub(crate) fn unregistered() -> Self {
        let families = Families::default();
        let streams = Family::<VariantLabel, Gauge>::default();
        for variant in [Variant::Delta, Variant::Sotw] {
            drop(streams.get_or_create(&VariantLabel { variant }));
        }
        Self {
            streams,
            streams_rejected: Counter::default(),
            publishes: Counter::default(),
            types: PerType::from_fn(|resource_type| families.of(resource_type)),
            families,
            ack_seconds: Histogram::new(ACK_BUCKETS),
            observed: Observation::default(),
        }
    }

    /// Has the server asked when metrics are read.
    pub(crate) fn observe(&self, server: Weak<dyn Observed>) {
        // With metrics shared by several servers the first one is asked.
        let _ = self.observed.server.set(server);
    }

    pub(crate) fn stream_opened(&self, variant: Variant) {
        self.streams.get_or_create(&VariantLabel { variant }).inc();
    }

    pub(crate) fn stream_closed(&self, variant: Variant) {
        self.streams.get_or_create(&VariantLabel { variant }).dec();
    }

    pub(crate) fn count_response(&self, response: &Response) {
        let Some(resource_type) = response.resource_type else { return };
        let counters = &self.types[resource_type];
        counters.responses.inc();
        counters.response_bytes.inc_by(response.message.len() as u64);
        counters.resources.inc_by(response.resources as u64);
        counters.removals.inc_by(response.removed as u64);
        counters.merged.inc_by(response.merged);
        match response.origin {
            Origin::Shared => counters.shared.inc(),
            Origin::First | Origin::Own => counters.encoded.inc(),
        };
    }

    pub(crate) fn count_feedback(&self, feedback: &Feedback) {
        match feedback {
            Feedback::Acked { resource_type, latency } => {
                self.types[*resource_type].acks.inc();
                self.ack_seconds.observe(latency.as_secs_f64());
            }
            Feedback::Nacked { resource_type, .. } => {
                self.types[*resource_type].nacks.inc();
            }
        }
    }
}

/// What a server is asked when metrics are read.
pub(crate) trait Observed: Debug + Send + Sync {
    /// Streams that wait for an ACK, by type.
    fn pending(&self) -> PerType<u64>;

    /// The ids of the clients that keep the server waiting the longest, and for how long.
    fn slowest(&self) -> Vec<(String, Duration)>;

    /// Resources in quarantine.
    fn quarantined(&self) -> u64;
}

#[derive(Clone, Debug, Default)]
struct Observation {
    server: Arc<OnceLock<Weak<dyn Observed>>>,
}

impl Collector for Observation {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Some(server) = self.server.get().and_then(Weak::upgrade) else { return Ok(()) };
        let pending = server.pending();
        let pending =
            pending.iter().map(|(resource_type, count)| (TypeLabel { r#type: resource_type }, *count));
        gauges(&mut encoder, "pending_acks", "Streams that wait for an ACK, by type", pending)?;
        let slowest = server.slowest().into_iter();
        let slowest = slowest.map(|(node_id, slowness)| (NodeLabel { node_id }, slowness.as_secs_f64()));
        let help = "Time from publishing to the ACK, or until now, of the slowest clients";
        gauges(&mut encoder, "slowest_client_seconds", help, slowest)?;
        let help = "Resources that many clients refused";
        let mut gauge = encoder.encode_descriptor("quarantined_resources", help, None, MetricType::Gauge)?;
        gauge.encode_gauge(&server.quarantined())
    }
}

fn gauges<L: EncodeLabelSet, V: EncodeGaugeValue>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    values: impl Iterator<Item = (L, V)>,
) -> Result<(), fmt::Error> {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (labels, value) in values {
        family.encode_family(&labels)?.encode_gauge(&value)?;
    }
    Ok(())
}
