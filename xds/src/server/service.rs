//! The aggregated discovery service.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use futures::future::{self, BoxFuture};
use futures::stream::BoxStream;
use tonic::body::Body;
use tonic::server::{Grpc, NamedService, StreamingService};
use tonic::{Request, Response, Status, Streaming};

use super::Shared;
use super::codec::DeltaCodec;
use super::session;
use crate::encode::EncodedResponse;

const DELTA: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";

/// Serves `envoy.service.discovery.v3.AggregatedDiscoveryService`: delta streams. Others are answered with
/// `UNIMPLEMENTED`.
#[derive(Clone, Debug)]
pub struct AdsService {
    shared: Arc<Shared>,
}

impl AdsService {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

impl NamedService for AdsService {
    const NAME: &'static str = "envoy.service.discovery.v3.AggregatedDiscoveryService";
}

impl tower::Service<http::Request<Body>> for AdsService {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        if request.uri().path() != DELTA {
            let status = Status::unimplemented(format!("{} is not served", request.uri().path()));
            return Box::pin(future::ok(status.into_http()));
        }
        let shared = self.shared.clone();
        Box::pin(async move {
            let limit = shared.options.max_request_bytes;
            let mut grpc = Grpc::new(DeltaCodec).max_decoding_message_size(limit);
            Ok(grpc.streaming(DeltaMethod { shared }, request).await)
        })
    }
}

struct DeltaMethod {
    shared: Arc<Shared>,
}

impl StreamingService<DeltaDiscoveryRequest> for DeltaMethod {
    type Response = EncodedResponse;
    type ResponseStream = BoxStream<'static, Result<EncodedResponse, Status>>;
    type Future = future::Ready<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<DeltaDiscoveryRequest>>) -> Self::Future {
        let admission = self.shared.admit();
        future::ready(admission.map(|admission| Response::new(session::run(admission, request.into_inner()))))
    }
}
