//! The discovery services, by path.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::{self, Ready};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Response};
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;

use super::Shared;
use super::cell::Cell;
use super::grpc::Messages;
use super::session::Session;
use crate::clients::{ClientId, Service};
use crate::resource_type::ResourceType;
use crate::stream::Variant;
use crate::transport::Connection;

/// One of the discovery services of a server, both variants of the protocol.
///
/// `KIND` is a number that only tells the services apart; see the aliases.
#[derive(Clone, Debug)]
pub struct DiscoveryService<const KIND: usize> {
    shared: Arc<Shared>,
}

/// `envoy.service.discovery.v3.AggregatedDiscoveryService`: all types on one stream.
pub type AdsService = DiscoveryService<0>;

macro_rules! services {
    ($($kind:literal $name:literal $only:expr, $sotw:literal $delta:literal;)*) => {
        $(impl NamedService for DiscoveryService<$kind> {
            const NAME: &'static str = $name;
        })*

        /// Which service and variant a path names.
        fn route(path: &str) -> Option<Service> {
            $(
                if path == concat!("/", $name, "/", $sotw) {
                    return Some(Service { variant: Variant::Sotw, only: $only });
                }
                if path == concat!("/", $name, "/", $delta) {
                    return Some(Service { variant: Variant::Delta, only: $only });
                }
            )*
            None
        }

        impl Shared {
            /// All of the services.
            pub(super) fn add_services(self: &Arc<Self>, routes: &mut tonic::service::RoutesBuilder) {
                $(routes.add_service(DiscoveryService::<$kind>::new(self.clone()));)*
            }
        }
    };
}

services! {
    0 "envoy.service.discovery.v3.AggregatedDiscoveryService" None,
        "StreamAggregatedResources" "DeltaAggregatedResources";
    1 "envoy.service.cluster.v3.ClusterDiscoveryService" Some(ResourceType::Cluster),
        "StreamClusters" "DeltaClusters";
    2 "envoy.service.endpoint.v3.EndpointDiscoveryService" Some(ResourceType::ClusterLoadAssignment),
        "StreamEndpoints" "DeltaEndpoints";
    3 "envoy.service.listener.v3.ListenerDiscoveryService" Some(ResourceType::Listener),
        "StreamListeners" "DeltaListeners";
    4 "envoy.service.route.v3.RouteDiscoveryService" Some(ResourceType::RouteConfiguration),
        "StreamRoutes" "DeltaRoutes";
    5 "envoy.service.secret.v3.SecretDiscoveryService" Some(ResourceType::Secret),
        "StreamSecrets" "DeltaSecrets";
    6 "envoy.service.runtime.v3.RuntimeDiscoveryService" Some(ResourceType::Runtime),
        "StreamRuntime" "DeltaRuntime";
}

impl<const KIND: usize> DiscoveryService<KIND> {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

impl<const KIND: usize> tower::Service<Request<Body>> for DiscoveryService<KIND> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let answer = open(&self.shared, request).unwrap_or_else(|status| status.into_http());
        future::ok(answer)
    }
}

fn open(shared: &Arc<Shared>, request: Request<Body>) -> Result<Response<Body>, Status> {
    let (head, body) = request.into_parts();
    let path = head.uri.path();
    let service = route(path).ok_or_else(|| Status::unimplemented(format!("{path} is not served")))?;
    let admission = shared.admit(service)?;
    let connection = head.extensions.get::<Connection>();
    let peer = connection.map(|connection| connection.peer.clone());
    let drain = connection.map(|connection| connection.drain.clone());
    let stream = shared.new_stream(&admission, service);
    let cell = Arc::new(Cell::new(ClientId(admission.id), service, peer, stream));
    shared.clients.insert(&cell);
    let messages = Messages::new(body, shared.options.max_request_bytes);
    let session = Session::new(admission, cell, messages, drain);
    let mut response = Response::new(Body::new(session));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    Ok(response)
}
