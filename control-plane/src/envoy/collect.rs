use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use chrono::Utc;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use clairvoy_xds::{AccessLogEntries, AccessLogs, IntakeReceiver, LoadReport, ReportingNode};

use crate::config::Config;
use crate::push::Intake;

use super::{EnvoyMetrics, Exchange, LogSummary, NodeLoad, OrcaTally, Sampler, Tally, gateway_for};

/// How often what the logs told is handed on.
const HAND_ON_EVERY: Duration = Duration::from_secs(1);

/// What the controller is told.
#[derive(Debug)]
pub enum EnvoyNews {
    /// A load report.
    Load(NodeLoad),
    /// A second of access logs.
    Log(LogSummary),
}

/// Reads what the intake has taken in, and hands it to the controller as plain values.
pub struct Collector {
    config: Arc<ArcSwap<Config>>,
    news: mpsc::Sender<EnvoyNews>,
    metrics: EnvoyMetrics,
    /// Where what backends say of themselves goes; none: it is passed over.
    orca: Option<Intake>,
}

impl Collector {
    /// A collector that hands on to `news`.
    pub fn new(config: Arc<ArcSwap<Config>>, news: mpsc::Sender<EnvoyNews>, metrics: EnvoyMetrics) -> Self {
        Self { config, news, metrics, orca: None }
    }

    /// Hands on what backends say of themselves in their answers, too.
    pub fn with_orca(self, intake: Intake) -> Self {
        Self { orca: Some(intake), ..self }
    }

    /// Hands on load reports until `stop`. When the controller is behind, the intake waits, and then the Envoys do: what
    /// is counted meanwhile comes with their next report.
    pub async fn load_reports(&self, mut reports: IntakeReceiver<LoadReport>, stop: CancellationToken) {
        let mut tally = OrcaTally::default();
        let mut ticks = tokio::time::interval(HAND_ON_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            let report = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                _ = ticks.tick() => {
                    let readings = tally.take(Utc::now());
                    if let Some(intake) = self.orca.as_ref().filter(|_| !readings.is_empty()) {
                        intake.take_orca(&readings);
                    }
                    continue;
                }
                report = reports.recv() => report,
            };
            let Some(report) = report else { return };
            if self.gateway(&report.node).is_none() {
                self.metrics.reports_foreign.inc();
                continue;
            }
            self.metrics.reports_taken.inc();
            if self.orca.is_some() {
                tally.add(&report, &self.config.load());
            }
            if self.news.send(EnvoyNews::Load(NodeLoad::read(&report))).await.is_err() {
                return;
            }
        }
    }

    /// Samples and sums up access logs until `stop`. A second that the controller has no room for is dropped and counted.
    pub async fn access_logs(
        &self,
        mut logs: IntakeReceiver<AccessLogs>,
        mut sampler: Sampler,
        stop: CancellationToken,
    ) {
        let (origin, mut tally) = (Instant::now(), Tally::default());
        let mut ticks = tokio::time::interval(HAND_ON_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                _ = ticks.tick() => {
                    if let Some(summary) = tally.take()
                        && self.news.try_send(EnvoyNews::Log(summary)).is_err()
                    {
                        self.metrics.summaries_dropped.inc();
                    }
                }
                batch = logs.recv() => match batch {
                    Some(batch) => {
                        sampler.now(origin.elapsed().as_secs_f64());
                        self.take_in(&batch, &mut sampler, &mut tally);
                    }
                    None => return,
                },
            }
        }
    }

    fn take_in(&self, batch: &AccessLogs, sampler: &mut Sampler, tally: &mut Tally) {
        let entries = match &batch.entries {
            AccessLogEntries::Http(entries) => entries.as_slice(),
            AccessLogEntries::Tcp(_) => &[],
        };
        // The log is named after its gateway: an Envoy has no say about the others.
        if self.gateway(&batch.node).as_deref() != Some(&batch.log_name) {
            self.metrics.entries_foreign.inc_by(batch.entries.len() as u64);
            return;
        }
        let stream_interval = self.config.load().telemetry.access_log.stream_interval.as_seconds();
        let (mut kept, mut unusable) = (0, 0);
        for entry in entries {
            let Some(weight) = sampler.take() else { continue };
            match Exchange::read(entry, stream_interval) {
                Some(exchange) => tally.add(&exchange, weight),
                None => unusable += 1,
            }
            kept += 1;
        }
        self.metrics.entries_kept.inc_by(kept - unusable);
        self.metrics.entries_unusable.inc_by(unusable);
        self.metrics.entries_sampled_out.inc_by(entries.len() as u64 - kept);
    }

    fn gateway(&self, node: &ReportingNode) -> Option<String> {
        gateway_for(&self.config.load(), &node.cluster, &node.identities).map(|gateway| gateway.name)
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use prometheus_client::registry::Registry;

    use super::super::entry::tests::entry;
    use super::*;

    #[test]
    fn an_envoy_is_heard_about_its_own_gateway_only() {
        let text = "gateways: [{ name: a, node_cluster: east }, { name: b, listen: 127.0.0.1:10001, node_cluster: west }]\n\
                    models: [{ name: m, pools: [p] }]\npools: [{ name: p }]\n";
        let config = Arc::new(ArcSwap::from_pointee(crate::config::parse(text).unwrap()));
        let (news, _kept) = mpsc::channel(1);
        let collector = Collector::new(config, news, EnvoyMetrics::register(&mut Registry::default()));
        let batch = |cluster: &str, log: &str| AccessLogs {
            node: Arc::new(ReportingNode { cluster: cluster.to_owned(), ..ReportingNode::default() }),
            log_name: log.into(),
            at: SystemTime::UNIX_EPOCH,
            entries: AccessLogEntries::Http(vec![entry(200, 0, 1000); 3]),
        };
        for (cluster, log, requests) in [("east", "a", 3.0), ("east", "b", 0.0), ("north", "a", 0.0)] {
            let (mut sampler, mut tally) = (Sampler::new(1000.0, 1), Tally::default());
            collector.take_in(&batch(cluster, log), &mut sampler, &mut tally);
            let logged =
                tally.take().map_or(0.0, |told| told.backends.values().map(|one| one.requests).sum());
            assert_eq!(logged, requests, "{cluster} {log}");
        }
        assert_eq!(collector.metrics.entries_foreign.get(), 6);
        assert_eq!(collector.metrics.entries_kept.get(), 3);
    }

    #[test]
    fn a_certificate_decides_about_which_gateway_an_envoy_is_heard() {
        let config = crate::config::parse(
            "listen:\n  xds_tls: { certificate: a, private_key: b, client_ca: c }\n  \
             xds_clients: [{ san: \"spiffe://t/east\", gateways: [a] }, { san: all.example }]\n\
             gateways: [{ name: a, node_cluster: east }, { name: b, listen: 127.0.0.1:10001, node_cluster: west }]\n",
        )
        .unwrap();
        for (cluster, identity, gateway) in [
            ("east", "spiffe://t/east", Some("a")),
            ("west", "spiffe://t/east", None),
            ("west", "all.example", Some("b")),
            ("east", "spiffe://t/west", None),
        ] {
            let found = gateway_for(&config, cluster, &[identity.to_owned()]).map(|gateway| gateway.name);
            assert_eq!(found.as_deref(), gateway, "{cluster} {identity}");
        }
        assert!(gateway_for(&config, "east", &[]).is_none());
    }
}
