use std::sync::Arc;

use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

use clairvoy_xds::{
    Intake, IntakeMetrics, IntakeOptions, IntakeReceivers, InvalidIntake, LoadReporting, Overflow,
};

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
    /// What finds no room is dropped and counted.
    pub(super) access_logs: Intake,
}

impl Intakes {
    pub(super) fn new(registry: &mut Registry) -> Result<Self, InvalidIntake> {
        let metrics = IntakeMetrics::register(registry);
        let mut options = IntakeOptions::default();
        options.load_reporting =
            LoadReporting { report_endpoint_granularity: true, ..LoadReporting::default() };
        let (access_logs, logs) = Intake::with_metrics(options.clone(), metrics.clone())?;
        options.overflow = Overflow::Wait;
        let (load_reports, reports) = Intake::with_metrics(options, metrics)?;
        Ok(Self { services: EnvoyServices { load_reports, access_logs }, reports, logs })
    }

    /// Starts to collect what comes in.
    pub(super) fn collect(
        self,
        collector: Collector,
        sampler: Sampler,
        stop: CancellationToken,
    ) -> EnvoyServices {
        let collector = Arc::new(collector);
        tokio::spawn({
            let (collector, stop) = (Arc::clone(&collector), stop.clone());
            async move { collector.load_reports(self.reports.load_reports, stop).await }
        });
        tokio::spawn(async move { collector.access_logs(self.logs.access_logs, sampler, stop).await });
        self.services
    }
}

impl EnvoyServices {
    pub(super) fn shutdown(&self) {
        self.load_reports.shutdown();
        self.access_logs.shutdown();
    }
}
