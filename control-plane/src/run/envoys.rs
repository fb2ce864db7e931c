use std::sync::Arc;

use prometheus_client::registry::Registry;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use clairvoy_xds::{Intake, IntakeMetrics, IntakeReceivers, InvalidIntake, LoadReporting, Overflow};

use crate::config::Telemetry;
use crate::envoy::{Collector, Sampler};

/// Both intakes with their receiving ends. They are apart because they differ in what happens when nobody keeps up.
pub(super) struct Intakes {
    services: EnvoyServices,
    reports: IntakeReceivers,
    logs: IntakeReceivers,
}

/// What Envoys send to, beside discovery.
#[derive(Clone)]
pub(super) struct EnvoyServices {
    /// Envoys wait when nobody keeps up, and count on: no report is dropped.
    pub(super) load_reports: Intake,
    /// Whether it is served at all.
    pub(super) takes_load_reports: bool,
    /// What finds no room is dropped and counted.
    pub(super) access_logs: Intake,
}

impl Intakes {
    pub(super) fn new(registry: &mut Registry, settings: &Telemetry) -> Result<Self, InvalidIntake> {
        let metrics = IntakeMetrics::register(registry);
        let options = settings.access_log.limits.options();
        let (access_logs, logs) = Intake::with_metrics(options, metrics.clone())?;
        let mut options = settings.load_reports.limits.options();
        options.load_reporting =
            LoadReporting { report_endpoint_granularity: true, ..LoadReporting::default() };
        options.overflow = Overflow::Wait;
        let (load_reports, reports) = Intake::with_metrics(options, metrics)?;
        let takes_load_reports = settings.load_reports.enabled;
        let services = EnvoyServices { load_reports, takes_load_reports, access_logs };
        Ok(Self { services, reports, logs })
    }

    /// Starts to collect what comes in. The tasks end when told to, or because of a fault.
    pub(super) fn collect(
        self,
        collector: Collector,
        sampler: Sampler,
        stop: CancellationToken,
    ) -> (EnvoyServices, JoinSet<()>) {
        let (collector, mut tasks) = (Arc::new(collector), JoinSet::new());
        tasks.spawn({
            let (collector, stop) = (Arc::clone(&collector), stop.clone());
            async move { collector.load_reports(self.reports.load_reports, stop).await }
        });
        tasks.spawn(async move { collector.access_logs(self.logs.access_logs, sampler, stop).await });
        (self.services, tasks)
    }
}

impl EnvoyServices {
    pub(super) fn shutdown(&self) {
        self.load_reports.shutdown();
        self.access_logs.shutdown();
    }
}
