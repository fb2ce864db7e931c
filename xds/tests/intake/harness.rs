//! A server on a port of the loopback interface, and clients that say what a test tells them.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use clairvoy_xds::{Intake, IntakeReceiver};
use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::config::endpoint::v3::{ClusterStats, UpstreamLocalityStats};
use envoy_types::pb::envoy::data::accesslog::v3::{
    HttpAccessLogEntry, HttpRequestProperties, TcpAccessLogEntry,
};
use envoy_types::pb::envoy::service::accesslog::v3::StreamAccessLogsMessage;
use envoy_types::pb::envoy::service::accesslog::v3::access_log_service_client::AccessLogServiceClient;
use envoy_types::pb::envoy::service::accesslog::v3::stream_access_logs_message::{
    HttpAccessLogEntries, Identifier, LogEntries, TcpAccessLogEntries,
};
use envoy_types::pb::envoy::service::load_stats::v3::load_reporting_service_client::LoadReportingServiceClient;
use envoy_types::pb::envoy::service::load_stats::v3::{LoadStatsRequest, LoadStatsResponse};
use envoy_types::pb::google::protobuf;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};

/// How long a test waits for what must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// How long a test waits for what must not come.
const QUIET: Duration = Duration::from_millis(150);

pub(crate) async fn serve(intake: &Intake) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = tonic::transport::Server::builder()
        .add_service(intake.load_reporting_service())
        .add_service(intake.access_log_service());
    tokio::spawn(router.serve_with_incoming(TcpListenerStream::new(listener)));
    address
}

pub(crate) async fn channel(address: SocketAddr) -> Channel {
    Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap()
}

/// A client of the load reporting service.
pub(crate) struct Reporter {
    requests: mpsc::Sender<LoadStatsRequest>,
    responses: Streaming<LoadStatsResponse>,
}

impl Reporter {
    pub(crate) async fn open(address: SocketAddr, first: LoadStatsRequest) -> Result<Self, Status> {
        Self::open_on(channel(address).await, first).await
    }

    pub(crate) async fn open_on(channel: Channel, first: LoadStatsRequest) -> Result<Self, Status> {
        let mut client = LoadReportingServiceClient::new(channel);
        let (requests, outgoing) = mpsc::channel(64);
        requests.send(first).await.unwrap();
        let responses = client.stream_load_stats(ReceiverStream::new(outgoing)).await?.into_inner();
        Ok(Self { requests, responses })
    }

    pub(crate) async fn send(&self, request: LoadStatsRequest) {
        self.requests.send(request).await.unwrap();
    }

    /// The next response, the end of the stream, or its failure.
    pub(crate) async fn next(&mut self) -> Result<Option<LoadStatsResponse>, Status> {
        tokio::time::timeout(PATIENCE, self.responses.message()).await.expect("an answer in time")
    }

    /// What is to be reported, from the next response.
    pub(crate) async fn asked(&mut self) -> LoadStatsResponse {
        self.next().await.unwrap().expect("the stream goes on")
    }

    /// Ends the sending side and gives what the stream ends with.
    pub(crate) async fn finish(mut self) -> Result<Option<LoadStatsResponse>, Status> {
        let (closed, _) = mpsc::channel(1);
        drop(std::mem::replace(&mut self.requests, closed));
        self.next().await
    }
}

/// A report with a little load in each cluster.
pub(crate) fn report(node: Option<Node>, clusters: &[&str]) -> LoadStatsRequest {
    let stats = |name: &&str| ClusterStats {
        cluster_name: (*name).to_owned(),
        upstream_locality_stats: vec![UpstreamLocalityStats {
            total_issued_requests: 7,
            ..Default::default()
        }],
        load_report_interval: Some(protobuf::Duration { seconds: 10, nanos: 250_000_000 }),
        ..Default::default()
    };
    LoadStatsRequest { node, cluster_stats: clusters.iter().map(stats).collect() }
}

/// A client of the access log service. When it is dropped its connection breaks off.
pub(crate) struct AccessLogger {
    messages: mpsc::Sender<StreamAccessLogsMessage>,
    call: Call,
}

struct Call(JoinHandle<Result<(), Status>>);

impl Drop for Call {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl AccessLogger {
    pub(crate) fn open(address: SocketAddr) -> Self {
        let (messages, outgoing) = mpsc::channel(64);
        let call = async move {
            let mut client = AccessLogServiceClient::new(channel(address).await);
            client.stream_access_logs(ReceiverStream::new(outgoing)).await.map(drop)
        };
        Self { messages, call: Call(tokio::spawn(call)) }
    }

    pub(crate) async fn http(&self, identity: Option<(Node, &str)>, paths: &[&str]) {
        let entry = |path: &&str| HttpAccessLogEntry {
            request: Some(HttpRequestProperties { path: (*path).to_owned(), ..Default::default() }),
            ..Default::default()
        };
        let log_entry = paths.iter().map(entry).collect();
        self.send(identity, LogEntries::HttpLogs(HttpAccessLogEntries { log_entry })).await;
    }

    pub(crate) async fn tcp(&self, identity: Option<(Node, &str)>, entries: usize) {
        let log_entry = vec![TcpAccessLogEntry::default(); entries];
        self.send(identity, LogEntries::TcpLogs(TcpAccessLogEntries { log_entry })).await;
    }

    async fn send(&self, identity: Option<(Node, &str)>, entries: LogEntries) {
        let identifier =
            identity.map(|(node, log_name)| Identifier { node: Some(node), log_name: log_name.to_owned() });
        let message = StreamAccessLogsMessage { identifier, log_entries: Some(entries) };
        self.messages.send(message).await.unwrap();
    }

    /// Ends the sending side and gives what the stream ends with.
    pub(crate) async fn finish(mut self) -> Result<(), Status> {
        let (closed, _) = mpsc::channel(1);
        drop(std::mem::replace(&mut self.messages, closed));
        self.outcome().await
    }

    pub(crate) async fn outcome(mut self) -> Result<(), Status> {
        tokio::time::timeout(PATIENCE, &mut self.call.0).await.expect("an end in time").unwrap()
    }
}

/// Sends bytes as the whole body of a request and gives what the call ends with.
pub(crate) async fn raw_call(mut channel: Channel, method: &str, body: &'static [u8]) -> Status {
    use tower::Service as _;

    let request = http::Request::post(format!("http://test{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(tonic::body::Body::new(http_body_util::Full::new(Bytes::from_static(body))))
        .unwrap();
    std::future::poll_fn(|context| channel.poll_ready(context)).await.unwrap();
    let response = tokio::time::timeout(PATIENCE, channel.call(request)).await.unwrap().unwrap();
    if let Some(status) = Status::from_header_map(response.headers()) {
        return status;
    }
    let body = http_body_util::BodyExt::collect(response.into_body()).await.unwrap();
    Status::from_header_map(body.trailers().unwrap()).unwrap()
}

pub(crate) async fn next<T>(receiver: &mut IntakeReceiver<T>) -> T {
    tokio::time::timeout(PATIENCE, receiver.recv()).await.expect("in time").expect("the queue goes on")
}

pub(crate) async fn expect_nothing<T: std::fmt::Debug>(outcome: impl Future<Output = T>) {
    let outcome = tokio::time::timeout(QUIET, outcome).await;
    assert!(outcome.is_err(), "{outcome:?}");
}

/// Polls until the condition holds.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The value of a series of one service.
pub(crate) fn metric(registry: &Registry, name: &str, service: &str) -> u64 {
    let mut text = String::new();
    encode(&mut text, registry).unwrap();
    let series = format!("{name}{{service=\"{service}\"}} ");
    let value = text.lines().find_map(|line| line.strip_prefix(&series));
    value.expect("the series is there").parse().unwrap()
}
