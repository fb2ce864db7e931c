use std::collections::BTreeSet;
use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::compile::AccessLogIntent;
use crate::envoy::{EnvoyNews, gateway_of};

use super::super::control::Input;
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
        let input = match news {
            EnvoyNews::Load(load) => Input::Load(load),
            EnvoyNews::Log(summary) => Input::Log { at: now, summary },
        };
        // It is refused by nobody.
        let _ = self.feed(input, now);
    }

    /// Looks which Envoys are connected, and asks for reports as often as their number allows.
    pub(super) fn look_who_is_connected(&mut self, now: DateTime<Utc>) {
        let clients = self.outputs.xds.clients();
        let belongs = |cluster: &str| gateway_of(&self.core.config, cluster).is_some();
        let nodes: BTreeSet<String> = clients
            .iter()
            .filter(|client| belongs(&client.node_cluster))
            .map(|client| client.node_id.clone())
            .collect();
        let few = if self.report_seconds == LONG_SECONDS { FEW_AGAIN } else { FEW_ENVOYS };
        let report_seconds = if nodes.len() > few { LONG_SECONDS } else { SHORT_SECONDS };
        if report_seconds == self.report_seconds && nodes == self.core.connected {
            return;
        }
        if report_seconds != self.report_seconds {
            self.report_seconds = report_seconds;
            // Both intervals are lawful.
            let interval = Duration::from_secs(report_seconds);
            let _ = self.outputs.load_reports.set_load_reporting_interval(interval);
        }
        let _ = self.feed(Input::Connected { nodes, report_seconds }, now);
    }

    /// The access log that every gateway's listener gets.
    pub(super) fn access_log(&self) -> Option<AccessLogIntent> {
        let settings = &self.core.config.telemetry.access_log;
        settings.enabled.then(|| AccessLogIntent {
            cluster: settings.cluster.clone(),
            stream_interval: settings.stream_interval,
            token: self.outputs.log_token.clone(),
        })
    }
}
