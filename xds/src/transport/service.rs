//! What stands between a connection and the services.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use futures::FutureExt as _;
use futures::future::{self, BoxFuture, Either, Ready};
use hyper::body::Incoming;
use tonic::Status;
use tonic::body::Body;
use tonic::transport::server::TcpConnectInfo;
use tower::Service as _;

use super::Shared;
use super::peer::Connection;

type Answer = Result<http::Response<Body>, Infallible>;

/// Hands the requests of one connection to the services, with who sent them.
#[derive(Debug)]
pub(super) struct ConnectionService {
    pub(super) shared: Arc<Shared>,
    pub(super) connection: Connection,
    /// Given with the first stream that a service accepts.
    pub(super) used: Arc<AtomicBool>,
}

impl ConnectionService {
    fn refusal(&self) -> Option<Status> {
        if self.connection.drain.is_cancelled() {
            return Some(Status::unavailable("the connection is closing"));
        }
        let limiter = self.shared.new_streams.as_ref()?;
        let refused = !limiter.admit(Instant::now());
        refused.then(|| Status::resource_exhausted("too many new streams per second"))
    }
}

impl hyper::service::Service<http::Request<Incoming>> for ConnectionService {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Either<Ready<Answer>, BoxFuture<'static, Answer>>;

    fn call(&self, mut request: http::Request<Incoming>) -> Self::Future {
        if let Some(status) = self.refusal() {
            self.shared.options.metrics.streams_refused.inc();
            return Either::Left(future::ready(Ok(status.into_http())));
        }
        let peer = TcpConnectInfo { local_addr: None, remote_addr: Some(self.connection.peer.address) };
        request.extensions_mut().insert(peer);
        request.extensions_mut().insert(self.connection.clone());
        // Routes are always ready, and shared by their clones.
        let answer = self.shared.routes.clone().call(request.map(Body::new));
        let used = self.used.clone();
        let note = move |answer: &Answer| {
            // A call that is refused, as for want of a token, has its status in the head of the answer.
            if answer.as_ref().is_ok_and(|answer| !answer.headers().contains_key(Status::GRPC_STATUS)) {
                used.store(true, Ordering::Relaxed);
            }
        };
        Either::Right(answer.inspect(note).boxed())
    }
}
