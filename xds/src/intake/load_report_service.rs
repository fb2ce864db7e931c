//! `envoy.service.load_stats.v3.LoadReportingService`.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::SystemTime;

use bytes::Bytes;
use envoy_types::pb::envoy::service::load_stats::v3::LoadStatsResponse;
use futures::future::{self, BoxFuture};
use futures::stream::{self, BoxStream, StreamExt};
use tokio::sync::watch;
use tonic::body::Body;
use tonic::server::{Grpc, NamedService, StreamingService};
use tonic::{Request, Response, Status, Streaming};

use super::codec::{EncodedRequests, no_message};
use super::gate::{Admission, Gate, Size};
use super::load_report::{LoadReport, LoadReporting};
use super::load_report_wire as wire;
use super::node::{ReportingNode, identities};

const STREAM_LOAD_STATS: &str = "/envoy.service.load_stats.v3.LoadReportingService/StreamLoadStats";

/// A client that has it can be asked for all its clusters at once.
const SEND_ALL_CLUSTERS: &str = "envoy.lrs.supports_send_all_clusters";

/// Serves `envoy.service.load_stats.v3.LoadReportingService`; made by
/// [`Intake::load_reporting_service`](super::Intake::load_reporting_service).
///
/// The first request is answered at once with what the client is to report, and each change of that is sent
/// to open streams.
#[derive(Clone, Debug)]
pub struct LoadReportingService {
    gate: Arc<Gate<LoadReport>>,
    reporting: Arc<watch::Sender<LoadReporting>>,
    max_message_bytes: usize,
}

impl LoadReportingService {
    pub(super) fn new(
        gate: Arc<Gate<LoadReport>>,
        reporting: Arc<watch::Sender<LoadReporting>>,
        max_message_bytes: usize,
    ) -> Self {
        Self { gate, reporting, max_message_bytes }
    }
}

impl NamedService for LoadReportingService {
    const NAME: &'static str = "envoy.service.load_stats.v3.LoadReportingService";
}

impl tower::Service<http::Request<Body>> for LoadReportingService {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        if request.uri().path() != STREAM_LOAD_STATS {
            let status = Status::unimplemented(format!("{} is not served", request.uri().path()));
            return Box::pin(future::ok(status.into_http()));
        }
        let service = self.clone();
        Box::pin(async move {
            let codec = EncodedRequests::<LoadStatsResponse>::default();
            let mut grpc = Grpc::new(codec).max_decoding_message_size(service.max_message_bytes);
            Ok(grpc.streaming(service, request).await)
        })
    }
}

impl StreamingService<Bytes> for LoadReportingService {
    type Response = LoadStatsResponse;
    type ResponseStream = BoxStream<'static, Result<LoadStatsResponse, Status>>;
    type Future = future::Ready<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        let session = self.gate.admit().map(|admission| Session {
            admission,
            identities: identities(&request),
            requests: request.into_inner(),
            reporting: self.reporting.subscribe(),
            client: None,
            sent: None,
            undelivered: None,
        });
        future::ready(session.map(|session| Response::new(session.responses())))
    }
}

/// One stream. It runs within the task that writes the responses.
struct Session {
    admission: Admission<LoadReport>,
    identities: Arc<[String]>,
    requests: Streaming<Bytes>,
    reporting: watch::Receiver<LoadReporting>,
    client: Option<Client>,
    sent: Option<LoadStatsResponse>,
    /// While there is one, no further request is read.
    undelivered: Option<Undelivered>,
}

/// Known from the first request on.
struct Client {
    node: Arc<ReportingNode>,
    can_send_all: bool,
}

struct Undelivered {
    request: Bytes,
    size: Size,
    at: SystemTime,
    node: Arc<ReportingNode>,
}

enum Wake {
    Request(Result<Option<Bytes>, Status>),
    Delivered(Result<(), Status>),
    Reporting,
    Closed(Status),
}

impl Session {
    fn responses(self) -> BoxStream<'static, Result<LoadStatsResponse, Status>> {
        stream::unfold(Some(self), |session| async move {
            let mut session = session?;
            match session.next_response().await {
                Ok(Some(response)) => Some((Ok(response), Some(session))),
                Ok(None) => None,
                Err(status) => {
                    tracing::debug!(node.id = session.node_id(), %status, "load report stream broke off");
                    Some((Err(status), None))
                }
            }
        })
        .boxed()
    }

    async fn next_response(&mut self) -> Result<Option<LoadStatsResponse>, Status> {
        loop {
            if let Some(response) = self.due() {
                self.sent = Some(response.clone());
                return Ok(Some(response));
            }
            match self.wait().await {
                Wake::Request(request) => match request? {
                    Some(request) => self.take_in(request)?,
                    None => return Ok(None),
                },
                Wake::Delivered(outcome) => {
                    outcome?;
                    self.undelivered = None;
                }
                Wake::Reporting => {}
                Wake::Closed(status) => return Err(status),
            }
        }
    }

    /// What the client has not been told yet.
    fn due(&mut self) -> Option<LoadStatsResponse> {
        let client = self.client.as_ref()?;
        let response = self.reporting.borrow_and_update().response(client.can_send_all);
        (self.sent.as_ref() != Some(&response)).then_some(response)
    }

    async fn wait(&mut self) -> Wake {
        let Self { admission, requests, reporting, undelivered, .. } = self;
        let next = async {
            match undelivered {
                Some(Undelivered { request, size, at, node }) => {
                    let decode = || {
                        let cluster_stats = wire::cluster_stats(request).map_err(no_message)?;
                        Ok(LoadReport { node: node.clone(), at: *at, cluster_stats })
                    };
                    Wake::Delivered(admission.deliver(*size, decode).await)
                }
                None => Wake::Request(requests.message().await),
            }
        };
        tokio::select! {
            biased;
            status = admission.closed() => Wake::Closed(status),
            // The sender is held by the service and may be gone; then nothing changes any more.
            Ok(()) = reporting.changed() => Wake::Reporting,
            wake = next => wake,
        }
    }

    fn take_in(&mut self, request: Bytes) -> Result<(), Status> {
        self.admission.count_message(request.len());
        let size = wire::size(&request).map_err(no_message)?;
        let is_first = self.client.is_none();
        let client = match &mut self.client {
            Some(client) => client,
            client @ None => client.insert(Client::read(&request, &self.identities)?),
        };
        // The first request is there to ask what to report.
        if !is_first || size.entries > 0 {
            let node = client.node.clone();
            self.undelivered = Some(Undelivered { request, size, at: SystemTime::now(), node });
        }
        Ok(())
    }

    fn node_id(&self) -> &str {
        self.client.as_ref().map_or("", |client| &client.node.id)
    }
}

impl Client {
    fn read(request: &Bytes, identities: &Arc<[String]>) -> Result<Self, Status> {
        let node = wire::node(request).map_err(no_message)?;
        let can_send_all = node.client_features.iter().any(|feature| feature == SEND_ALL_CLUSTERS);
        let node: Arc<ReportingNode> = Arc::new(node.on(Arc::clone(identities)));
        tracing::debug!(node.id = node.id, node.cluster = node.cluster, "load reports begin");
        Ok(Self { node, can_send_all })
    }
}
