use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use chrono::{DateTime, Utc};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio_util::sync::CancellationToken;

use clairvoy_xds::{AccessLogEntries, AccessLogs, IntakeReceiver, LoadReport, ReportingNode};

use crate::config::Config;
use crate::push::Intake;

use super::{
    ComparedSince, EnvoyMetrics, Exchange, LogSummary, Losses, NodeLoad, OrcaTally, Promises, Reading,
    Refused, Sampler, Tally, gateway_for,
};

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
    reading: Reading,
    most_endpoints: usize,
    news: mpsc::Sender<EnvoyNews>,
    metrics: EnvoyMetrics,
    /// Where what backends say of themselves goes; none: it is passed over.
    orca: Option<Intake>,
    /// Whose parts are compared.
    compared_since: ComparedSince,
}

impl Collector {
    /// A collector that hands on to `news`. How it reads does not change any more; who belongs to a gateway does.
    pub fn new(config: Arc<ArcSwap<Config>>, news: mpsc::Sender<EnvoyNews>, metrics: EnvoyMetrics) -> Self {
        let telemetry = config.load().telemetry.clone();
        let (reading, most_endpoints) =
            (Reading::new(&telemetry.access_log), telemetry.load_reports.max_endpoints);
        let compared_since = ComparedSince::default();
        Self { config, reading, most_endpoints, news, metrics, orca: None, compared_since }
    }

    /// Hands on what backends say of themselves in their answers, too.
    pub fn with_orca(self, intake: Intake) -> Self {
        Self { orca: Some(intake), ..self }
    }

    /// Counts how both parts of canaries fare, of requests that began since then.
    pub fn comparing(self, compared_since: ComparedSince) -> Self {
        Self { compared_since, ..self }
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
                () = stop.cancelled() => return self.hand_on_orca(&mut tally),
                _ = ticks.tick() => {
                    self.hand_on_orca(&mut tally);
                    continue;
                }
                report = reports.recv() => report,
            };
            let Some(report) = report else { return };
            let Some(gateway) = self.gateway(&report.node) else {
                self.metrics.reports_foreign.inc();
                continue;
            };
            let read = guarded(|| NodeLoad::read(&report, &gateway, self.most_endpoints));
            let Some((load, left_out)) = read else {
                self.metrics.reports_failed.inc();
                continue;
            };
            self.metrics.reports_taken.inc();
            self.metrics.endpoints_left_out.inc_by(left_out);
            if let Some(intake) = &self.orca {
                let (directory, config) = (intake.directory(), self.config.load());
                let is_read = |address| directory.reads_orca(address);
                match guarded(|| tally.add(&report, &gateway, &config, is_read)) {
                    Some(left_out) => self.metrics.endpoints_left_out.inc_by(left_out),
                    None => self.metrics.reports_failed.inc(),
                };
            }
            if self.news.send(EnvoyNews::Load(load)).await.is_err() {
                return;
            }
        }
    }

    fn hand_on_orca(&self, tally: &mut OrcaTally) {
        let readings = tally.take(Utc::now());
        if let Some(intake) = self.orca.as_ref().filter(|_| !readings.is_empty()) {
            intake.take_orca(&readings);
        }
    }

    /// Samples and sums up access logs until `stop`. What the controller has no room for is handed on with what comes
    /// after it.
    pub async fn access_logs(
        &self,
        mut logs: IntakeReceiver<AccessLogs>,
        mut sampler: Sampler,
        stop: CancellationToken,
    ) {
        let (origin, mut tally, mut losses) = (Instant::now(), Tally::default(), Losses::default());
        let mut waiting = None;
        let mut ticks = tokio::time::interval(HAND_ON_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                _ = ticks.tick() => {
                    let summary = tally.take(losses.factor(logs.dropped_entries()));
                    tally.watch(Promises::of(&self.config.load(), &self.compared_since.load()));
                    waiting = self.hand_on(waiting, summary);
                }
                batch = logs.recv() => match batch {
                    Some(batch) => {
                        sampler.now(origin.elapsed().as_secs_f64());
                        losses.received(batch.entries.len());
                        if guarded(|| self.take_in(&batch, &mut sampler, &mut tally)).is_none() {
                            self.metrics.entries_failed.inc_by(batch.entries.len() as u64);
                        }
                    }
                    None => return,
                },
            }
        }
    }

    /// Tries to hand on what waits and what is new; returns what has to wait.
    fn hand_on(&self, waiting: Option<LogSummary>, new: Option<LogSummary>) -> Option<LogSummary> {
        let summary = match (waiting, new) {
            (Some(mut waiting), new) => {
                // A quiet second has passed, too.
                self.metrics.first_bytes_dropped.inc_by(waiting.append(new.unwrap_or_default()));
                waiting
            }
            (None, new) => new?,
        };
        match self.news.try_send(EnvoyNews::Log(summary)) {
            Err(TrySendError::Full(EnvoyNews::Log(summary))) => {
                self.metrics.summaries_delayed.inc();
                Some(summary)
            }
            _ => None,
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
        let at = DateTime::<Utc>::from(batch.at);
        let (mut kept, mut sampled_out, mut without_tokens) = (0, 0, 0);
        for entry in entries {
            let Some(weight) = sampler.take() else {
                sampled_out += 1;
                continue;
            };
            match Exchange::read(entry, &self.reading, at) {
                Ok(exchange) => {
                    kept += 1;
                    let tells = exchange.prompt_tokens.or(exchange.output_tokens).is_some();
                    without_tokens += u64::from(exchange.response_seconds.is_some() && !tells);
                    tally.add(&exchange, weight);
                }
                Err(Refused::Unusable) => _ = self.metrics.entries_unusable.inc(),
                Err(Refused::TooOld) => _ = self.metrics.entries_too_old.inc(),
                Err(Refused::Ahead) => _ = self.metrics.entries_ahead.inc(),
            }
        }
        self.metrics.entries_kept.inc_by(kept);
        self.metrics.entries_sampled_out.inc_by(sampled_out);
        if self.reading.wants_tokens() {
            self.metrics.entries_without_tokens.inc_by(without_tokens);
        }
    }

    fn gateway(&self, node: &ReportingNode) -> Option<String> {
        gateway_for(&self.config.load(), &node.cluster, &node.identities).map(|gateway| gateway.name)
    }
}

/// Runs what reads a message of an Envoy; none when it panicked. One message must not end the telemetry of all, and what
/// it may have left half done is sums.
fn guarded<T>(read: impl FnOnce() -> T) -> Option<T> {
    let done = catch_unwind(AssertUnwindSafe(read));
    if done.is_err() {
        tracing::error!("a message of an Envoy could not be read: this is a fault in Clairvoy");
    }
    done.ok()
}

#[cfg(test)]
mod tests {
    use axum::http::Request;
    use bytes::Bytes;
    use envoy_types::pb::envoy::config::core::v3::Node;
    use envoy_types::pb::envoy::service::accesslog::v3::StreamAccessLogsMessage;
    use envoy_types::pb::envoy::service::accesslog::v3::stream_access_logs_message::{
        HttpAccessLogEntries, Identifier, LogEntries,
    };
    use envoy_types::pb::google::protobuf::Timestamp;
    use http_body_util::{BodyExt as _, Full};
    use prometheus_client::registry::Registry;
    use prost::Message as _;
    use tonic::body::Body;
    use tower::Service as _;

    use clairvoy_xds::{Intake, IntakeOptions};

    use super::super::entry::tests::{entry, told_at};
    use super::*;

    /// Entries of one request each, that came in from an Envoy of a cluster.
    fn batch(cluster: &str, log: &str, entries: usize) -> AccessLogs {
        AccessLogs {
            node: Arc::new(ReportingNode { cluster: cluster.to_owned(), ..ReportingNode::default() }),
            log_name: log.into(),
            at: told_at().into(),
            entries: AccessLogEntries::Http(vec![entry(200, 0, 1000); entries]),
        }
    }

    fn collector(text: &str) -> (Collector, mpsc::Receiver<EnvoyNews>) {
        let config = Arc::new(ArcSwap::from_pointee(crate::config::parse(text).unwrap()));
        let (news, told) = mpsc::channel(1);
        (Collector::new(config, news, EnvoyMetrics::register(&mut Registry::default())), told)
    }

    fn requests(summary: &LogSummary) -> f64 {
        summary.backends.values().map(|one| one.requests).sum()
    }

    #[test]
    fn an_envoy_is_heard_about_its_own_gateway_only() {
        let text = "gateways: [{ name: a, node_cluster: east }, { name: b, listen: 127.0.0.1:10001, node_cluster: west }]\n\
                    models: [{ name: m, pools: [p] }]\npools: [{ name: p }]\n";
        let (collector, _told) = collector(text);
        for (cluster, log, expected) in [("east", "a", 3.0), ("east", "b", 0.0), ("north", "a", 0.0)] {
            let (mut sampler, mut tally) = (Sampler::new(1000.0, 1), Tally::default());
            collector.take_in(&batch(cluster, log, 3), &mut sampler, &mut tally);
            let logged = tally.take(1.0).map_or(0.0, |told| requests(&told));
            assert_eq!(logged, expected, "{cluster} {log}");
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

    #[test]
    fn what_the_controller_has_no_room_for_comes_with_the_next_second() {
        let (collector, mut told) = collector("");
        let second = || {
            let (mut sampler, mut tally) = (Sampler::new(1000.0, 1), Tally::default());
            collector.take_in(&batch("any", "edge", 4), &mut sampler, &mut tally);
            tally.take(1.0)
        };
        let mut waiting = collector.hand_on(None, second());
        assert!(waiting.is_none());
        for new in [second(), None, second()] {
            waiting = collector.hand_on(waiting, new);
            assert!(waiting.is_some());
        }
        let Ok(EnvoyNews::Log(first)) = told.try_recv() else { panic!("nothing was told") };
        assert_eq!(requests(&first), 4.0);
        assert_eq!(collector.hand_on(waiting, second()), None);
        let Ok(EnvoyNews::Log(rest)) = told.try_recv() else { panic!("nothing was told") };
        assert_eq!((rest.seconds, requests(&rest)), (4.0, 12.0));
        assert_eq!(collector.metrics.summaries_delayed.get(), 3);
    }

    /// Messages of four requests each that end now, on one stream, as frames of gRPC.
    fn stream_of(messages: usize) -> Request<Body> {
        let now = Utc::now();
        let entries = (0..4).map(|_| {
            let mut entry = entry(200, 0, 1000);
            let start_time = Timestamp { seconds: now.timestamp() - 3, nanos: 0 };
            entry.common_properties.as_mut().unwrap().start_time = Some(start_time);
            entry
        });
        let node = Some(Node { cluster: "any".to_owned(), ..Node::default() });
        let message = StreamAccessLogsMessage {
            identifier: Some(Identifier { node, log_name: "edge".to_owned() }),
            log_entries: Some(LogEntries::HttpLogs(HttpAccessLogEntries { log_entry: entries.collect() })),
        }
        .encode_to_vec();
        let mut frame = vec![0];
        frame.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
        frame.extend(message);
        let body = Body::new(Full::new(Bytes::from(frame.repeat(messages))));
        let method = "/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs";
        Request::post(method).header("content-type", "application/grpc").body(body).unwrap()
    }

    #[tokio::test]
    async fn entries_that_found_no_room_are_made_up_for() {
        let mut options = IntakeOptions::default();
        options.max_queued_messages = 10;
        let (intake, received) = Intake::new(options).unwrap();
        // Nobody reads while they come.
        let answer = intake.access_log_service().call(stream_of(50)).await.unwrap();
        let answer = answer.into_body().collect().await.unwrap();
        assert_eq!(answer.trailers().unwrap()["grpc-status"], "0");
        assert_eq!(received.access_logs.dropped_entries(), 160);

        let (collector, mut told) = collector("");
        let stop = CancellationToken::new();
        let task = tokio::spawn({
            let stop = stop.clone();
            async move { collector.access_logs(received.access_logs, Sampler::new(1e6, 1), stop).await }
        });
        let Some(EnvoyNews::Log(summary)) = told.recv().await else { panic!("nothing was told") };
        assert_eq!(requests(&summary), 200.0);
        let first_bytes = summary.backends.values().flat_map(|log| &log.first_bytes);
        assert_eq!(first_bytes.map(|first| first.requests).sum::<f64>(), 200.0);
        stop.cancel();
        task.await.unwrap();
    }

    #[test]
    fn a_panic_over_one_message_leaves_the_others() {
        assert_eq!(guarded(|| 1), Some(1));
        assert_eq!(guarded(|| -> u32 { panic!("as a fault would") }), None);
    }
}
