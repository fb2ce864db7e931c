use std::fmt::{self, Write};
use std::sync::Arc;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::drift::{DriftEvent, FaultKind};
use super::drops::{DropReason, Drops};
use super::failure::{FailureKind, ScrapeFailure};
use super::field::Field;

/// What telemetry counts about itself; clones share the counts.
#[derive(Clone, Debug)]
pub struct TelemetryMetrics {
    pub(super) scrapes: Counter,
    pub(super) bytes: Counter,
    pub(super) bad_lines: Counter,
    pub(crate) restarts: Counter,
    pub(super) outcomes_dropped: Counter,
    pub(super) targets: Gauge,
    pub(super) duration_seconds: Histogram,
    failures: Family<FailureLabels, Counter>,
    slots_in_use: Family<PoolLabels, Gauge>,
    no_slot: Family<PoolLabels, Counter>,
    fields_dropped: Family<DropLabels, Counter>,
    faults_began: Family<FaultLabels, Counter>,
    faults_ended: Family<FaultLabels, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PoolLabels {
    pool: String,
}

impl PoolLabels {
    fn of(pool: &str) -> Self {
        Self { pool: pool.to_owned() }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FaultLabels {
    kind: FaultKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Page {
    Engine,
    Gpu,
}

impl EncodeLabelValue for Page {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        encoder.write_str(match self {
            Self::Engine => "engine",
            Self::Gpu => "gpu",
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FailureLabels {
    page: Page,
    kind: FailureKind,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DropLabels {
    field: Field,
    reason: DropReason,
}

impl Default for TelemetryMetrics {
    fn default() -> Self {
        Self {
            scrapes: Counter::default(),
            bytes: Counter::default(),
            bad_lines: Counter::default(),
            restarts: Counter::default(),
            outcomes_dropped: Counter::default(),
            targets: Gauge::default(),
            duration_seconds: Histogram::new([
                0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
            ]),
            failures: Family::default(),
            slots_in_use: Family::default(),
            no_slot: Family::default(),
            fields_dropped: Family::default(),
            faults_began: Family::default(),
            faults_ended: Family::default(),
        }
    }
}

impl TelemetryMetrics {
    /// Registers all series as `clairvoy_telemetry_…` in a registry that has no prefix of its own.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let registry = registry.sub_registry_with_prefix("clairvoy_telemetry");
        registry.register("scrapes", "Scrapes of backends that were started", metrics.scrapes.clone());
        registry.register("bytes", "Bytes of metrics pages that were read", metrics.bytes.clone());
        registry.register(
            "bad_lines",
            "Lines of metrics pages that are no samples",
            metrics.bad_lines.clone(),
        );
        registry.register("engine_restarts", "Counters that were seen to restart", metrics.restarts.clone());
        registry.register(
            "outcomes_dropped",
            "Outcomes of scrapes that found the queue full",
            metrics.outcomes_dropped.clone(),
        );
        registry.register("targets", "Backends that are scraped", metrics.targets.clone());
        registry.register(
            "scrape_duration_seconds",
            "Time from the start of a scrape to its outcome",
            metrics.duration_seconds.clone(),
        );
        registry.register("failures", "Metrics pages that could not be read", metrics.failures.clone());
        registry.register("slots_in_use", "Scrapes under way", metrics.slots_in_use.clone());
        registry.register(
            "no_slot",
            "Scrapes that found all slots of their pool taken for half the deadline",
            metrics.no_slot.clone(),
        );
        registry.register(
            "fields_dropped",
            "Values that no working server could have reported",
            metrics.fields_dropped.clone(),
        );
        registry.register(
            "faults_began",
            "Backends' telemetry that began to be wrong, by what is wrong with it",
            metrics.faults_began.clone(),
        );
        registry.register(
            "faults_ended",
            "Backends' telemetry that ceased to be wrong in one way",
            metrics.faults_ended.clone(),
        );
        metrics
    }

    pub(crate) fn drifted(&self, event: &DriftEvent) {
        let (family, fault) = match event {
            DriftEvent::Began(fault) => (&self.faults_began, fault),
            DriftEvent::Ended(fault) => (&self.faults_ended, fault),
        };
        family.get_or_create(&FaultLabels { kind: fault.kind }).inc();
    }

    /// Faults of one kind that began.
    pub fn faults_began(&self, kind: FaultKind) -> u64 {
        self.faults_began.get(&FaultLabels { kind }).map_or(0, |count| count.get())
    }

    pub(super) fn failed(&self, page: Page, failure: &ScrapeFailure) {
        self.failures.get_or_create(&FailureLabels { page, kind: failure.kind() }).inc();
    }

    pub(crate) fn dropped(&self, drops: &Drops) {
        for (field, reason, count) in drops.iter() {
            self.fields_dropped.get_or_create(&DropLabels { field, reason }).inc_by(u64::from(count));
        }
    }

    pub(super) fn no_slot(&self, pool: &str) {
        self.no_slot.get_or_create(&PoolLabels::of(pool)).inc();
    }

    pub(super) fn slots_in_use(&self, pool: &str) -> Gauge {
        self.slots_in_use.get_or_create(&PoolLabels::of(pool)).clone()
    }

    pub(super) fn forget_pools<'a>(&self, pools: impl Iterator<Item = &'a Arc<str>>) {
        for pool in pools {
            let labels = PoolLabels::of(pool);
            self.slots_in_use.remove(&labels);
            self.no_slot.remove(&labels);
        }
    }

    /// Scrapes that were started since the process did.
    pub fn scrapes(&self) -> u64 {
        self.scrapes.get()
    }

    /// Scrapes that gave no sample.
    pub fn scrapes_failed(&self) -> u64 {
        self.failures_of(Page::Engine)
    }

    /// Separate GPU pages that could not be read.
    pub fn gpu_pages_failed(&self) -> u64 {
        self.failures_of(Page::Gpu)
    }

    fn failures_of(&self, page: Page) -> u64 {
        let count = |kind| self.failures.get(&FailureLabels { page, kind }).map_or(0, |count| count.get());
        FailureKind::ALL.into_iter().map(count).sum()
    }

    /// Values of one field that were not believed for one reason.
    pub fn fields_dropped(&self, field: Field, reason: DropReason) -> u64 {
        self.fields_dropped.get(&DropLabels { field, reason }).map_or(0, |count| count.get())
    }

    /// Outcomes that were lost because their reader was too slow.
    pub fn outcomes_dropped(&self) -> u64 {
        self.outcomes_dropped.get()
    }
}
