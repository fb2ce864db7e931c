//! The health service (`grpc.health.v1`): serving from the first published state until the shutdown.

use std::sync::Arc;

use futures::stream::{self, BoxStream, StreamExt};
use tonic::server::NamedService;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::{AdsService, Shared};

pub(super) fn service(shared: Arc<Shared>) -> HealthServer<XdsHealth> {
    HealthServer::new(XdsHealth { shared })
}

#[derive(Debug)]
pub(super) struct XdsHealth {
    shared: Arc<Shared>,
}

#[tonic::async_trait]
impl Health for XdsHealth {
    type WatchStream = BoxStream<'static, Result<HealthCheckResponse, Status>>;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let HealthCheckRequest { service } = request.into_inner();
        if !is_known(&service) {
            return Err(Status::not_found(format!("no health is known of {service:?}")));
        }
        Ok(Response::new(response(*self.shared.ready.borrow())))
    }

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let HealthCheckRequest { service } = request.into_inner();
        if !is_known(&service) {
            let unknown = HealthCheckResponse { status: ServingStatus::ServiceUnknown as i32 };
            return Ok(Response::new(stream::iter([Ok(unknown)]).chain(stream::pending()).boxed()));
        }
        let mut ready = self.shared.ready.subscribe();
        ready.mark_changed();
        let statuses = stream::unfold(ready, |mut ready| async move {
            // The server is gone when this fails.
            ready.changed().await.ok()?;
            let status = response(*ready.borrow_and_update());
            Some((Ok(status), ready))
        });
        Ok(Response::new(statuses.boxed()))
    }
}

/// The empty name means the server as a whole.
fn is_known(service: &str) -> bool {
    service.is_empty() || service == AdsService::NAME
}

fn response(ready: bool) -> HealthCheckResponse {
    let status = if ready { ServingStatus::Serving } else { ServingStatus::NotServing };
    HealthCheckResponse { status: status as i32 }
}
