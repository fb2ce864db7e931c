//! What proxies send back: load reports (LRS) and access logs (ALS), as typed streams.
//!
//! ```text
//! proxy ─► stream ─► outline of a message ─► room in the queue? ─► decode ─► queue ─► IntakeReceiver
//!                    counts, node             no: drop and count    once      bounded
//! ```
//!
//! A message is decoded only when its place in the queue is certain, so that a receiver that is behind
//! makes the intake cheaper and not dearer. What is decoded is moved to the receiver.

mod access_log;
mod access_log_service;
mod access_log_wire;
mod codec;
mod gate;
mod load_report;
mod load_report_service;
mod load_report_wire;
mod metrics;
mod node;
mod options;
mod queue;

pub use self::access_log::{AccessLogEntries, AccessLogs};
pub use self::access_log_service::AccessLogService;
pub use self::load_report::{LoadReport, LoadReporting};
pub use self::load_report_service::LoadReportingService;
pub use self::metrics::IntakeMetrics;
pub use self::node::ReportingNode;
pub use self::options::{IntakeOptions, InvalidIntake, Overflow};
pub use self::queue::IntakeReceiver;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use self::gate::Gate;

/// Takes in load reports and access logs. Clones are handles of the same intake.
///
/// ```
/// use clairvoy_xds::{Intake, IntakeOptions};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (intake, mut received) = Intake::new(IntakeOptions::default())?;
/// let server = tonic::transport::Server::builder()
///     .add_service(intake.load_reporting_service())
///     .add_service(intake.access_log_service());
/// # drop(server);
///
/// let consumer = async move {
///     while let Some(report) = received.load_reports.recv().await {
///         for cluster in &report.cluster_stats {
///             println!("{}: {} localities", cluster.cluster_name, cluster.upstream_locality_stats.len());
///         }
///     }
/// };
/// # drop(consumer);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Intake {
    load_reports: Arc<Gate<LoadReport>>,
    access_logs: Arc<Gate<AccessLogs>>,
    reporting: Arc<watch::Sender<LoadReporting>>,
    max_message_bytes: usize,
}

/// The receiving ends of an [`Intake`].
#[derive(Debug)]
pub struct IntakeReceivers {
    /// Reports of load, in the order of each stream.
    pub load_reports: IntakeReceiver<LoadReport>,
    /// Batches of log entries, in the order of each stream.
    pub access_logs: IntakeReceiver<AccessLogs>,
}

impl Intake {
    /// Returns an intake whose metrics are not exported.
    ///
    /// # Errors
    ///
    /// Options that cannot work: see [`InvalidIntake`].
    pub fn new(options: IntakeOptions) -> Result<(Self, IntakeReceivers), InvalidIntake> {
        Self::with_metrics(options, IntakeMetrics::unregistered())
    }

    /// Returns an intake that counts into the given metrics.
    ///
    /// # Errors
    ///
    /// Options that cannot work: see [`InvalidIntake`].
    pub fn with_metrics(
        options: IntakeOptions,
        metrics: IntakeMetrics,
    ) -> Result<(Self, IntakeReceivers), InvalidIntake> {
        options.check()?;
        let (load_reports, reports) = queue::queue(&options);
        let (access_logs, logs) = queue::queue(&options);
        let intake = Self {
            load_reports: Arc::new(Gate::new(load_reports, options.max_streams, metrics.load_reports)),
            access_logs: Arc::new(Gate::new(access_logs, options.max_streams, metrics.access_logs)),
            reporting: Arc::new(watch::Sender::new(options.load_reporting)),
            max_message_bytes: options.max_message_bytes,
        };
        Ok((intake, IntakeReceivers { load_reports: reports, access_logs: logs }))
    }

    /// Returns the service to be added to a server, or to [`tonic::service::Routes`].
    pub fn load_reporting_service(&self) -> LoadReportingService {
        LoadReportingService::new(self.load_reports.clone(), self.reporting.clone(), self.max_message_bytes)
    }

    /// Returns the service to be added to a server, or to [`tonic::service::Routes`].
    pub fn access_log_service(&self) -> AccessLogService {
        AccessLogService::new(self.access_logs.clone(), self.max_message_bytes)
    }

    /// Changes what clients are to report, on open streams too.
    ///
    /// # Errors
    ///
    /// [`InvalidIntake::Interval`]; nothing is changed then.
    pub fn set_load_reporting(&self, reporting: LoadReporting) -> Result<(), InvalidIntake> {
        reporting.check()?;
        self.reporting.send_replace(reporting);
        Ok(())
    }

    /// Changes only the interval of load reports, on open streams too.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use clairvoy_xds::{Intake, IntakeOptions};
    /// # let (intake, _received) = Intake::new(IntakeOptions::default()).unwrap();
    /// assert!(intake.set_load_reporting_interval(Duration::from_secs(2)).is_ok());
    /// assert!(intake.set_load_reporting_interval(Duration::ZERO).is_err());
    /// ```
    ///
    /// # Errors
    ///
    /// [`InvalidIntake::Interval`]; nothing is changed then.
    pub fn set_load_reporting_interval(&self, interval: Duration) -> Result<(), InvalidIntake> {
        load_report::check_interval(interval)?;
        self.reporting.send_modify(|reporting| reporting.load_reporting_interval = interval);
        Ok(())
    }

    /// Ends all streams with `UNAVAILABLE` and refuses new ones. The receivers still get what is queued,
    /// then their streams end.
    pub fn shutdown(&self) {
        self.load_reports.close();
        self.access_logs.close();
    }
}
