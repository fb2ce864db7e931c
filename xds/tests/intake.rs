//! Load reports and access logs over real connections.

#![expect(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by a panic")]

#[path = "intake/envoy.rs"]
mod envoy;
#[path = "intake/harness.rs"]
mod harness;

use std::time::Duration;

use clairvoy_xds::{
    AccessLogEntries, Intake, IntakeMetrics, IntakeOptions, LoadReport, LoadReporting, Overflow,
    ReportingNode,
};
use envoy_types::pb::envoy::config::core::v3::{Extension, Locality, Node};
use envoy_types::pb::envoy::service::load_stats::v3::LoadStatsRequest;
use prometheus_client::registry::Registry;
use tonic::Code;

use self::harness::{
    AccessLogger, Reporter, channel, eventually, expect_nothing, metric, next, raw_call, report, serve,
};

fn node(id: &str) -> Node {
    let extension =
        |number: usize| Extension { name: format!("extension-{number:040}"), ..Default::default() };
    Node {
        id: id.into(),
        cluster: "edge".into(),
        locality: Some(Locality { region: "r".into(), zone: "z".into(), sub_zone: "s".into() }),
        client_features: vec!["envoy.lrs.supports_send_all_clusters".into()],
        extensions: (0..1000).map(extension).collect(),
        ..Default::default()
    }
}

fn with_metrics(options: IntakeOptions) -> (Intake, clairvoy_xds::IntakeReceivers, Registry) {
    let mut registry = Registry::default();
    let metrics = IntakeMetrics::register(&mut registry);
    let (intake, received) = Intake::with_metrics(options, metrics).unwrap();
    (intake, received, registry)
}

#[tokio::test]
async fn t14_load_reports_are_asked_for_at_once_and_taken_in() {
    let (intake, mut received, registry) = with_metrics(IntakeOptions::default());
    let address = serve(&intake).await;
    let first = LoadStatsRequest { node: Some(node("a")), cluster_stats: Vec::new() };
    let mut reporter = Reporter::open(address, first).await.unwrap();
    let asked = reporter.asked().await;
    assert!(asked.send_all_clusters);
    assert_eq!(asked.load_reporting_interval.unwrap().seconds, 10);

    reporter.send(report(Some(node("a")), &["x", "y"])).await;
    let LoadReport { node, cluster_stats, .. } = next(&mut received.load_reports).await;
    let expected = ReportingNode {
        id: "a".into(),
        cluster: "edge".into(),
        region: "r".into(),
        zone: "z".into(),
        sub_zone: "s".into(),
        identities: [].into(),
    };
    assert_eq!(*node, expected);
    assert_eq!(cluster_stats, report(None, &["x", "y"]).cluster_stats);
    assert_eq!(LoadReport::interval(&cluster_stats[0]), Some(Duration::from_millis(10_250)));

    assert_eq!(metric(&registry, "xds_intake_streams", "lrs"), 1);
    assert_eq!(metric(&registry, "xds_intake_messages_total", "lrs"), 2);
    assert_eq!(metric(&registry, "xds_intake_entries_total", "lrs"), 2);
    assert!(metric(&registry, "xds_intake_bytes_total", "lrs") > 100_000, "two nodes of 50 kB each");
    drop(reporter);
    eventually("a stream whose client is gone is freed", || {
        metric(&registry, "xds_intake_streams", "lrs") == 0
    })
    .await;
}

#[tokio::test]
async fn t14_a_changed_interval_reaches_open_streams_once() {
    let (intake, _received) = Intake::new(IntakeOptions::default()).unwrap();
    let address = serve(&intake).await;
    let mut reporters = Vec::new();
    for id in ["a", "b"] {
        let mut reporter = Reporter::open(address, report(Some(node(id)), &[])).await.unwrap();
        reporter.asked().await;
        reporters.push(reporter);
    }
    intake.set_load_reporting_interval(Duration::from_millis(1500)).unwrap();
    for reporter in &mut reporters {
        let interval = reporter.asked().await.load_reporting_interval.unwrap();
        assert_eq!((interval.seconds, interval.nanos), (1, 500_000_000));
    }
    intake.set_load_reporting_interval(Duration::from_millis(1500)).unwrap();
    assert!(intake.set_load_reporting_interval(Duration::ZERO).is_err());
    expect_nothing(reporters[0].next()).await;
}

#[tokio::test]
async fn t14_a_client_that_cannot_send_all_clusters_is_given_names() {
    let mut options = IntakeOptions::default();
    options.load_reporting = LoadReporting {
        clusters: vec!["x".into()],
        report_endpoint_granularity: true,
        ..LoadReporting::default()
    };
    let (intake, _received) = Intake::new(options).unwrap();
    let address = serve(&intake).await;
    let old = Node { client_features: Vec::new(), ..node("old") };
    let mut reporter = Reporter::open(address, report(Some(old), &[])).await.unwrap();
    let asked = reporter.asked().await;
    assert_eq!((asked.send_all_clusters, asked.clusters), (false, vec!["x".to_owned()]));
    assert!(asked.report_endpoint_granularity);
}

#[tokio::test]
async fn a_first_request_with_stats_is_a_report_and_is_answered_first() {
    let (intake, mut received) = Intake::new(IntakeOptions::default()).unwrap();
    let address = serve(&intake).await;
    let mut reporter = Reporter::open(address, report(Some(node("a")), &["x"])).await.unwrap();
    reporter.asked().await;
    assert_eq!(next(&mut received.load_reports).await.cluster_stats.len(), 1);
}

#[tokio::test]
async fn half_close_ends_streams_with_ok() {
    let (intake, mut received, registry) = with_metrics(IntakeOptions::default());
    let address = serve(&intake).await;
    let mut reporter = Reporter::open(address, report(Some(node("a")), &[])).await.unwrap();
    reporter.asked().await;
    reporter.send(report(None, &["x"])).await;
    assert_eq!(reporter.finish().await.unwrap(), None);
    assert_eq!(next(&mut received.load_reports).await.node.id, "a", "known from the first request");

    let logger = AccessLogger::open(address);
    logger.http(Some((node("b"), "log")), &["/1"]).await;
    logger.http(None, &["/2", "/3"]).await;
    logger.finish().await.unwrap();
    for paths in [1, 2] {
        let logs = next(&mut received.access_logs).await;
        assert_eq!((logs.node.id.as_str(), &*logs.log_name, logs.entries.len()), ("b", "log", paths));
    }
    eventually("both streams are freed", || {
        metric(&registry, "xds_intake_streams", "lrs") + metric(&registry, "xds_intake_streams", "als") == 0
    })
    .await;
}

#[tokio::test]
async fn access_logs_are_taken_in_by_kind() {
    let (intake, mut received, registry) = with_metrics(IntakeOptions::default());
    let address = serve(&intake).await;
    let logger = AccessLogger::open(address);
    logger.http(Some((node("a"), "http")), &["/1", "/2"]).await;
    let AccessLogEntries::Http(entries) = next(&mut received.access_logs).await.entries else {
        panic!("entries of HTTP")
    };
    let paths: Vec<_> = entries.into_iter().map(|entry| entry.request.unwrap().path).collect();
    assert_eq!(paths, ["/1", "/2"]);

    let logger = AccessLogger::open(address);
    logger.tcp(Some((node("a"), "tcp")), 3).await;
    let logs = next(&mut received.access_logs).await;
    assert_eq!(&*logs.log_name, "tcp");
    let AccessLogEntries::Tcp(entries) = logs.entries else { panic!("entries of TCP") };
    assert_eq!(entries.len(), 3);
    assert_eq!(metric(&registry, "xds_intake_entries_total", "als"), 5);
    assert_eq!(metric(&registry, "xds_intake_dropped_messages_total", "als"), 0);
}

#[tokio::test]
async fn a_receiver_that_is_behind_loses_the_newest_and_it_is_counted() {
    let mut options = IntakeOptions::default();
    options.max_queued_messages = 2;
    let (intake, mut received, registry) = with_metrics(options);
    let address = serve(&intake).await;
    let logger = AccessLogger::open(address);
    logger.http(Some((node("a"), "log")), &["/1"]).await;
    for _ in 0..3 {
        logger.http(None, &["/2", "/3"]).await;
    }
    logger.finish().await.unwrap();
    assert_eq!(metric(&registry, "xds_intake_dropped_messages_total", "als"), 2);
    assert_eq!(metric(&registry, "xds_intake_dropped_entries_total", "als"), 4);
    assert_eq!(metric(&registry, "xds_intake_entries_total", "als"), 7, "dropped ones were received");
    assert_eq!(received.access_logs.dropped_entries(), 4);
    assert_eq!(next(&mut received.access_logs).await.entries.len(), 1);
    assert_eq!(next(&mut received.access_logs).await.entries.len(), 2);
    assert!(received.access_logs.is_empty());
}

#[tokio::test]
async fn entries_of_a_few_bytes_do_not_fill_the_memory() {
    let mut options = IntakeOptions::default();
    options.max_queued_bytes = 1 << 20;
    let (intake, mut received, registry) = with_metrics(options);
    let address = serve(&intake).await;
    let logger = AccessLogger::open(address);
    logger.tcp(Some((Node::default(), "log")), 100_000).await;
    logger.finish().await.unwrap();
    assert_eq!(metric(&registry, "xds_intake_dropped_entries_total", "als"), 100_000);
    assert!(received.access_logs.try_recv().is_none());
}

#[tokio::test]
async fn with_back_pressure_nothing_is_lost_and_clients_wait() {
    let mut options = IntakeOptions::default();
    options.overflow = Overflow::Wait;
    options.max_queued_messages = 1;
    let (intake, mut received, registry) = with_metrics(options);
    let address = serve(&intake).await;
    let logger = AccessLogger::open(address);
    let mut reporter = Reporter::open(address, report(Some(node("a")), &["0"])).await.unwrap();
    reporter.asked().await;
    for number in 1..20 {
        reporter.send(report(None, &[&number.to_string()])).await;
        logger.http((number == 1).then(|| (node("a"), "log")), &[&number.to_string()]).await;
    }
    eventually("the queues are full", || {
        received.load_reports.len() + received.access_logs.len() == 2
            && metric(&registry, "xds_intake_messages_total", "lrs") == 2
            && metric(&registry, "xds_intake_messages_total", "als") == 2
    })
    .await;
    // A stream that waits for its receiver is still told what to report.
    intake.set_load_reporting_interval(Duration::from_secs(3)).unwrap();
    assert_eq!(reporter.asked().await.load_reporting_interval.unwrap().seconds, 3);
    for number in 0..20 {
        let report = next(&mut received.load_reports).await;
        assert_eq!(report.cluster_stats[0].cluster_name, number.to_string());
    }
    for _ in 1..20 {
        assert_eq!(next(&mut received.access_logs).await.entries.len(), 1);
    }
    assert_eq!(metric(&registry, "xds_intake_dropped_messages_total", "lrs"), 0);
    assert_eq!(metric(&registry, "xds_intake_dropped_messages_total", "als"), 0);
}

#[tokio::test]
async fn a_stream_that_waits_is_freed_when_its_client_is_gone() {
    let mut options = IntakeOptions::default();
    options.overflow = Overflow::Wait;
    options.max_queued_messages = 1;
    let (intake, _received, registry) = with_metrics(options);
    let address = serve(&intake).await;
    let logger = AccessLogger::open(address);
    for _ in 0..2 {
        logger.http(Some((node("a"), "log")), &["/"]).await;
    }
    let mut reporter = Reporter::open(address, report(Some(node("a")), &["x"])).await.unwrap();
    reporter.asked().await;
    reporter.send(report(None, &["x"])).await;
    eventually("both wait", || {
        metric(&registry, "xds_intake_messages_total", "lrs") == 2
            && metric(&registry, "xds_intake_messages_total", "als") == 2
    })
    .await;
    drop(logger);
    drop(reporter);
    eventually("both are freed", || {
        metric(&registry, "xds_intake_streams", "lrs") + metric(&registry, "xds_intake_streams", "als") == 0
    })
    .await;
}

#[tokio::test]
async fn garbage_ends_its_own_stream_only() {
    let (intake, mut received) = Intake::new(IntakeOptions::default()).unwrap();
    let address = serve(&intake).await;
    // One connection for all of it.
    let channel = channel(address).await;
    let mut good = Reporter::open_on(channel.clone(), report(Some(node("a")), &[])).await.unwrap();
    good.asked().await;
    for method in [
        "/envoy.service.load_stats.v3.LoadReportingService/StreamLoadStats",
        "/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs",
    ] {
        let no_message = raw_call(channel.clone(), method, b"\x00\x00\x00\x00\x02\x12\x7f").await;
        assert_eq!(no_message.code(), Code::InvalidArgument, "{no_message:?}");
        let no_frame = raw_call(channel.clone(), method, b"\x09garbage").await;
        assert_eq!(no_frame.code(), Code::Internal, "{no_frame:?}");
        let unknown = raw_call(channel.clone(), &format!("{method}s"), b"").await;
        assert_eq!(unknown.code(), Code::Unimplemented);
    }
    good.send(report(None, &["x"])).await;
    assert_eq!(next(&mut received.load_reports).await.node.id, "a");
}

#[tokio::test]
async fn messages_and_streams_have_limits() {
    let mut options = IntakeOptions::default();
    options.max_streams = 1;
    options.max_message_bytes = 1000;
    let (intake, _received, registry) = with_metrics(options);
    let address = serve(&intake).await;
    let small = || report(Some(Node::default()), &[]);
    let mut first = Reporter::open(address, small()).await.unwrap();
    first.asked().await;
    let refused = Reporter::open(address, small()).await.map(drop).unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert_eq!(metric(&registry, "xds_intake_streams_rejected_total", "lrs"), 1);

    // The limit is one for each service.
    let logger = AccessLogger::open(address);
    logger.http(Some((node("too large"), "log")), &[]).await;
    assert_eq!(logger.finish().await.unwrap_err().code(), Code::OutOfRange);

    drop(first);
    eventually("the place is free", || metric(&registry, "xds_intake_streams", "lrs") == 0).await;
    Reporter::open(address, small()).await.unwrap().asked().await;
}

#[tokio::test]
async fn shutdown_ends_streams_with_unavailable_and_then_the_receivers() {
    let (intake, mut received) = Intake::new(IntakeOptions::default()).unwrap();
    let address = serve(&intake).await;
    let mut reporter = Reporter::open(address, report(Some(node("a")), &["x"])).await.unwrap();
    reporter.asked().await;
    let logger = AccessLogger::open(address);
    logger.http(Some((node("a"), "log")), &["/"]).await;
    eventually("both are queued", || !received.load_reports.is_empty() && !received.access_logs.is_empty())
        .await;
    intake.shutdown();
    assert_eq!(reporter.next().await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(logger.outcome().await.unwrap_err().code(), Code::Unavailable);
    let refused = Reporter::open(address, report(Some(node("a")), &[])).await.map(drop).unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert_eq!(next(&mut received.load_reports).await.node.id, "a", "what is queued is still received");
    assert_eq!(received.load_reports.recv().await, None);
    assert_eq!(next(&mut received.access_logs).await.node.id, "a");
    assert_eq!(received.access_logs.recv().await, None);
}

#[tokio::test]
async fn without_a_receiver_streams_end() {
    let (intake, received) = Intake::new(IntakeOptions::default()).unwrap();
    let address = serve(&intake).await;
    let mut reporter = Reporter::open(address, report(Some(node("a")), &[])).await.unwrap();
    reporter.asked().await;
    drop(received);
    reporter.send(report(None, &["x"])).await;
    assert_eq!(reporter.next().await.unwrap_err().code(), Code::Unavailable);
}
