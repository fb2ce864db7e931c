//! `envoy.service.accesslog.v3.AccessLogService`.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::SystemTime;

use bytes::Bytes;
use envoy_types::pb::envoy::service::accesslog::v3::StreamAccessLogsResponse;
use futures::future::{self, BoxFuture};
use tonic::body::Body;
use tonic::server::{ClientStreamingService, Grpc, NamedService};
use tonic::{Request, Response, Status, Streaming};

use super::access_log::AccessLogs;
use super::access_log_wire::{Identifier, Outline};
use super::codec::{EncodedRequests, no_message};
use super::gate::{Admission, Gate};
use super::node::{ReportingNode, identities};

const STREAM_ACCESS_LOGS: &str = "/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs";

/// Serves `envoy.service.accesslog.v3.AccessLogService`; made by
/// [`Intake::access_log_service`](super::Intake::access_log_service).
#[derive(Clone, Debug)]
pub struct AccessLogService {
    gate: Arc<Gate<AccessLogs>>,
    max_message_bytes: usize,
}

impl AccessLogService {
    pub(super) fn new(gate: Arc<Gate<AccessLogs>>, max_message_bytes: usize) -> Self {
        Self { gate, max_message_bytes }
    }
}

impl NamedService for AccessLogService {
    const NAME: &'static str = "envoy.service.accesslog.v3.AccessLogService";
}

impl tower::Service<http::Request<Body>> for AccessLogService {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        if request.uri().path() != STREAM_ACCESS_LOGS {
            let status = Status::unimplemented(format!("{} is not served", request.uri().path()));
            return Box::pin(future::ok(status.into_http()));
        }
        let service = self.clone();
        Box::pin(async move {
            let codec = EncodedRequests::<StreamAccessLogsResponse>::default();
            let mut grpc = Grpc::new(codec).max_decoding_message_size(service.max_message_bytes);
            Ok(grpc.client_streaming(service, request).await)
        })
    }
}

impl ClientStreamingService<Bytes> for AccessLogService {
    type Response = StreamAccessLogsResponse;
    type Future = BoxFuture<'static, Result<Response<StreamAccessLogsResponse>, Status>>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        let admission = self.gate.admit();
        let identities = identities(&request);
        Box::pin(async move {
            let mut session = Session {
                admission: admission?,
                identities,
                messages: request.into_inner(),
                node: Arc::default(),
                log_name: Arc::default(),
            };
            let outcome = session.run().await;
            if let Err(status) = &outcome {
                tracing::debug!(node.id = session.node.id, %status, "access log stream broke off");
            }
            outcome.map(|()| Response::new(StreamAccessLogsResponse {}))
        })
    }
}

/// One stream.
struct Session {
    admission: Admission<AccessLogs>,
    identities: Arc<[String]>,
    messages: Streaming<Bytes>,
    node: Arc<ReportingNode>,
    log_name: Arc<str>,
}

impl Session {
    async fn run(&mut self) -> Result<(), Status> {
        let closed = self.admission.closed();
        tokio::select! {
            biased;
            status = closed => Err(status),
            outcome = self.take_in_all() => outcome,
        }
    }

    async fn take_in_all(&mut self) -> Result<(), Status> {
        while let Some(message) = self.messages.message().await? {
            self.admission.count_message(message.len());
            let mut outline = Outline::read(&message).map_err(no_message)?;
            // Sent with the first message; one that comes again counts from then on.
            if let Some(identifier) = outline.identifier.take() {
                self.identify(identifier);
            }
            let size = outline.size(&message);
            if size.entries == 0 {
                continue;
            }
            let at = SystemTime::now();
            let Self { admission, node, log_name, .. } = self;
            let decode = || {
                let entries = outline.entries(&message).map_err(no_message)?;
                Ok(AccessLogs { node: node.clone(), log_name: log_name.clone(), at, entries })
            };
            admission.deliver(size, decode).await?;
        }
        Ok(())
    }

    fn identify(&mut self, identifier: Identifier) {
        self.node = Arc::new(identifier.node.unwrap_or_default().on(Arc::clone(&self.identities)));
        self.log_name = identifier.log_name.into();
        tracing::debug!(node.id = self.node.id, log.name = &*self.log_name, "access logs begin");
    }
}
