use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::view::State;

type Number = Gauge<f64, AtomicU64>;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfModel {
    model: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfBackend {
    model: String,
    pool: String,
    backend: String,
}

/// Series about what Envoys tell. Clones count into the same series.
#[derive(Clone, Debug)]
pub struct EnvoyMetrics {
    pub(super) reports_taken: Counter,
    pub(super) reports_foreign: Counter,
    pub(super) entries_kept: Counter,
    pub(super) entries_sampled_out: Counter,
    pub(super) entries_foreign: Counter,
    pub(super) entries_unusable: Counter,
    pub(super) summaries_dropped: Counter,
    reporters: Gauge,
    demand_from_envoys: Family<OfModel, Gauge>,
    in_progress: Family<OfBackend, Number>,
    first_byte: Family<OfBackend, Number>,
    errors: Family<OfBackend, Number>,
}

impl EnvoyMetrics {
    /// Registers the series.
    pub fn register(registry: &mut Registry) -> Self {
        let mut counters = |name: &str, help: &str| {
            let family = Family::<Outcome, Counter>::default();
            registry.register(name, help, family.clone());
            move |outcome| family.get_or_create_owned(&Outcome { outcome })
        };
        let reports = counters("clairvoy_envoy_load_reports", "Load reports, by what became of them");
        let entries = counters("clairvoy_envoy_log_entries", "Access log entries, by what became of them");
        let mut of_backend = |name: &str, help: &str| {
            let family = Family::<OfBackend, Number>::default();
            registry.register(name, help, family.clone());
            family
        };
        let in_progress = of_backend(
            "clairvoy_envoy_requests_in_progress",
            "Requests that Envoys have running at a backend, as last reported",
        );
        let first_byte = of_backend(
            "clairvoy_envoy_first_byte_seconds",
            "Mean time from the request to the first byte of the body at a backend, as last logged",
        );
        let errors = of_backend(
            "clairvoy_envoy_request_errors",
            "Requests that failed at a backend since it joined, as logged by Envoys",
        );
        let reporters = Gauge::default();
        registry.register(
            "clairvoy_envoy_reporters",
            "Envoys whose load reports are fresh",
            reporters.clone(),
        );
        let demand_from_envoys = Family::<OfModel, Gauge>::default();
        registry.register(
            "clairvoy_envoy_demand_source",
            "1 while a model's demand is taken from load reports, 0 while it is worked out from its servers",
            demand_from_envoys.clone(),
        );
        let summaries_dropped = Counter::default();
        registry.register(
            "clairvoy_envoy_summaries_dropped",
            "Seconds of access logs that the controller was too busy to take",
            summaries_dropped.clone(),
        );
        Self {
            reports_taken: reports("taken"),
            reports_foreign: reports("foreign"),
            entries_kept: entries("kept"),
            entries_sampled_out: entries("sampled_out"),
            entries_foreign: entries("foreign"),
            entries_unusable: entries("unusable"),
            summaries_dropped,
            reporters,
            demand_from_envoys,
            in_progress,
            first_byte,
            errors,
        }
    }

    /// Sets the series that follow the live picture.
    pub fn read(&self, state: &State, reporters: usize) {
        self.reporters.set(i64::try_from(reporters).unwrap_or(i64::MAX));
        self.demand_from_envoys.clear();
        for model in &state.models {
            let from_envoys = model.demand_source == crate::view::DemandSource::Envoys;
            let labels = OfModel { model: model.name.clone() };
            self.demand_from_envoys.get_or_create(&labels).set(i64::from(from_envoys));
        }
        let families = [&self.in_progress, &self.first_byte, &self.errors];
        families.iter().for_each(|family| {
            family.clear();
        });
        for backend in &state.backends {
            let values = [
                backend.requests_in_progress,
                backend.first_byte_seconds,
                (backend.gateway_requests > 0.0).then_some(backend.gateway_errors),
            ];
            let labels = OfBackend {
                model: backend.model.clone(),
                pool: backend.pool.clone(),
                backend: backend.address.clone(),
            };
            for (family, value) in families.iter().zip(values) {
                if let Some(value) = value {
                    family.get_or_create(&labels).set(value);
                }
            }
        }
    }
}
