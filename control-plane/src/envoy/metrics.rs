use std::fmt;
use std::hash::Hash;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::view::{DemandSource, State};

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
struct OfGroup {
    model: String,
    group: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfTokens {
    model: String,
    kind: &'static str,
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
    pub(super) reports_failed: Counter,
    pub(super) endpoints_left_out: Counter,
    pub(super) entries_kept: Counter,
    pub(super) entries_sampled_out: Counter,
    pub(super) entries_foreign: Counter,
    pub(super) entries_unusable: Counter,
    pub(super) entries_too_old: Counter,
    pub(super) entries_ahead: Counter,
    pub(super) entries_failed: Counter,
    pub(super) entries_without_tokens: Counter,
    pub(super) summaries_delayed: Counter,
    pub(super) first_bytes_dropped: Counter,
    reporters: Gauge,
    demand_from_envoys: Family<OfModel, Gauge>,
    tokens: Family<OfTokens, Number>,
    of_backend: [Family<OfBackend, Number>; 8],
    of_group: [Family<OfGroup, Number>; 3],
}

/// Series of each backend, in the order of their values in [`EnvoyMetrics::read`].
const OF_BACKEND: [(&str, &str); 8] = [
    (
        "clairvoy_envoy_requests_in_progress",
        "Requests that Envoys have running at a backend, as last reported",
    ),
    (
        "clairvoy_envoy_first_byte_seconds",
        "Mean time from the request to the first byte of the body at a backend, as last logged",
    ),
    ("clairvoy_envoy_requests", "Requests at a backend that ended since it joined, as logged by Envoys"),
    (
        "clairvoy_envoy_request_errors",
        "Requests that failed at a backend since it joined, as logged by Envoys",
    ),
    ("clairvoy_envoy_responses", "Whole answers of a backend since it joined, as logged by Envoys"),
    (
        "clairvoy_envoy_responses_seconds",
        "Sum of the times that these took, from the first byte of the request to the last of the answer",
    ),
    (
        "clairvoy_envoy_prompt_tokens",
        "Tokens of prompts at a backend since it joined, where access logs tell them",
    ),
    (
        "clairvoy_envoy_output_tokens",
        "Tokens of answers of a backend since it joined, where access logs tell them",
    ),
];

/// Series of each group, likewise.
const OF_GROUP: [(&str, &str); 3] = [
    (
        "clairvoy_envoy_group_requests_per_second",
        "Requests/s that Envoys sent to a group of a model's backends, over ten seconds",
    ),
    ("clairvoy_envoy_group_errors_per_second", "Requests/s that failed there, over ten seconds"),
    (
        "clairvoy_envoy_group_requests_in_progress",
        "Requests that Envoys have running there, as last reported",
    ),
];

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
        let of_backend = OF_BACKEND.map(|(name, help)| registered(registry, name, help));
        let of_group = OF_GROUP.map(|(name, help)| registered(registry, name, help));
        let tokens = registered(
            registry,
            "clairvoy_envoy_tokens_per_second",
            "Tokens/s of a model over ten seconds, where access logs tell them",
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
        let mut counter = |name: &str, help: &str| {
            let counter = Counter::default();
            registry.register(name, help, counter.clone());
            counter
        };
        Self {
            reports_taken: reports("taken"),
            reports_foreign: reports("foreign"),
            reports_failed: reports("failed"),
            endpoints_left_out: counter(
                "clairvoy_envoy_report_parts_left_out",
                "Endpoints and groups of load reports beyond the most that are read",
            ),
            entries_kept: entries("kept"),
            entries_sampled_out: entries("sampled_out"),
            entries_foreign: entries("foreign"),
            entries_unusable: entries("unusable"),
            entries_too_old: entries("too_old"),
            entries_ahead: entries("ahead"),
            entries_failed: entries("failed"),
            entries_without_tokens: counter(
                "clairvoy_envoy_log_entries_without_tokens",
                "Entries of whole answers that tell no tokens though the configuration says where they should",
            ),
            summaries_delayed: counter(
                "clairvoy_envoy_summaries_delayed",
                "Seconds of access logs that had to wait for the controller",
            ),
            first_bytes_dropped: counter(
                "clairvoy_envoy_first_bytes_dropped",
                "Means of first bytes, by backend and second, that waited for the controller for too long",
            ),
            reporters,
            demand_from_envoys,
            tokens,
            of_backend,
            of_group,
        }
    }

    /// Sets the series that follow the live picture.
    pub fn read(&self, state: &State, reporters: usize) {
        self.reporters.set(i64::try_from(reporters).unwrap_or(i64::MAX));
        self.demand_from_envoys.clear();
        self.tokens.clear();
        self.of_group.iter().for_each(|family| family.clear());
        self.of_backend.iter().for_each(|family| family.clear());
        for model in &state.models {
            let name = || model.name.clone();
            let from_envoys = model.demand_source == DemandSource::Envoys;
            let labels = OfModel { model: name() };
            self.demand_from_envoys.get_or_create(&labels).set(i64::from(from_envoys));
            let logged = model.tokens_source == DemandSource::Envoys;
            let output = logged.then_some(model.tokens_per_second);
            for (kind, value) in [("prompt", model.prompt_tokens_per_second), ("output", output)] {
                if let Some(value) = value {
                    self.tokens.get_or_create(&OfTokens { model: name(), kind }).set(value);
                }
            }
            for share in &model.shares {
                let labels = OfGroup { model: name(), group: share.group.clone() };
                let values = [share.requests_per_second, share.errors_per_second, share.requests_in_progress];
                set(&self.of_group, &labels, values);
            }
        }
        for backend in &state.backends {
            let labels = OfBackend {
                model: backend.model.clone(),
                pool: backend.pool.clone(),
                backend: backend.address.clone(),
            };
            let told = |count: f64| (count > 0.0).then_some(count);
            let has_requests = told(backend.gateway_requests);
            let values = [
                backend.requests_in_progress,
                backend.first_byte_seconds,
                has_requests,
                has_requests.map(|_| backend.gateway_errors),
                has_requests.map(|_| backend.gateway_responses),
                has_requests.map(|_| backend.gateway_responses_seconds),
                told(backend.gateway_prompt_tokens),
                told(backend.gateway_output_tokens),
            ];
            set(&self.of_backend, &labels, values);
        }
    }
}

fn registered<L>(registry: &mut Registry, name: &str, help: &str) -> Family<L, Number>
where
    L: Clone + fmt::Debug + Eq + Hash + EncodeLabelSet + Send + Sync + 'static,
{
    let family = Family::<L, Number>::default();
    registry.register(name, help, family.clone());
    family
}

/// Sets those that are known.
fn set<L: Clone + Eq + Hash, const N: usize>(
    families: &[Family<L, Number>; N],
    labels: &L,
    values: [Option<f64>; N],
) {
    for (family, value) in families.iter().zip(values) {
        if let Some(value) = value {
            family.get_or_create(labels).set(value);
        }
    }
}
