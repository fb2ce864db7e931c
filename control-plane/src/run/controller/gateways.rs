use std::collections::BTreeSet;
use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::compile::AccessLogIntent;
use crate::envoy::{EnvoyNews, gateway_of};
use crate::learn::Lesson;

use super::Controller;

/// Envoys up to which load is reported every two seconds; above, a report with its node of 60 kB costs too much.
const FEW_ENVOYS: usize = 100;
/// Where the shorter interval comes back, so that it does not go to and fro.
const FEW_AGAIN: usize = 80;
const SHORT_SECONDS: u64 = 2;
const LONG_SECONDS: u64 = 10;

impl Controller {
    /// Takes what Envoys tell.
    pub(super) fn told(&mut self, news: EnvoyNews, now: DateTime<Utc>) {
        match news {
            EnvoyNews::Load(load) => self.fleet.observe_load(&load),
            EnvoyNews::Log(summary) => {
                self.fleet.observe_log(&summary, now);
                for (address, log) in &summary.backends {
                    if log.first_bytes.is_empty() || self.fleet.backend(*address).is_none() {
                        continue;
                    }
                    self.teach(Lesson::FirstBytes(*address, log.first_bytes.clone()));
                }
            }
        }
    }

    /// Looks which Envoys report, and asks for reports as often as their number allows.
    pub(super) fn look_at_reports(&mut self, now: DateTime<Utc>) {
        let clients = self.outputs.xds.clients();
        let belongs = |cluster: &str| gateway_of(&self.config, cluster).is_some();
        let connected: BTreeSet<String> = clients
            .iter()
            .filter(|client| belongs(&client.node_cluster))
            .map(|client| client.node_id.clone())
            .collect();
        let few = if self.report_seconds == LONG_SECONDS { FEW_AGAIN } else { FEW_ENVOYS };
        let seconds = if connected.len() > few { LONG_SECONDS } else { SHORT_SECONDS };
        if seconds != self.report_seconds {
            self.report_seconds = seconds;
            // Both intervals are lawful.
            let _ = self.outputs.load_reports.set_load_reporting_interval(Duration::from_secs(seconds));
            self.fleet.set_report_interval(seconds as f64);
        }
        self.fleet.look_at_reports(&connected, now);
    }

    /// The access log that every gateway's listener gets.
    pub(super) fn access_log(&self) -> Option<AccessLogIntent> {
        let settings = &self.config.telemetry.access_log;
        settings.enabled.then(|| AccessLogIntent {
            cluster: settings.cluster.clone(),
            stream_interval: settings.stream_interval,
            token: self.outputs.log_token.clone(),
        })
    }
}
