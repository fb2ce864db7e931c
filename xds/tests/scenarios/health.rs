//! The health service: T14.

use clairvoy_xds::XdsServer;
use tonic::transport::Channel;
use tonic::{Code, Streaming};
use tonic_health::pb::health_check_response::ServingStatus::{self, NotServing, ServiceUnknown, Serving};
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::harness::{PATIENCE, connect, serve, server, snapshot};

const ADS: &str = "envoy.service.discovery.v3.AggregatedDiscoveryService";

fn of(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.into() }
}

/// What both the server as a whole and the aggregated service are said to be.
async fn checked(health: &mut HealthClient<Channel>) -> ServingStatus {
    let whole = health.check(of("")).await.unwrap().into_inner().status();
    assert_eq!(health.check(of(ADS)).await.unwrap().into_inner().status(), whole);
    whole
}

async fn next(watch: &mut Streaming<HealthCheckResponse>) -> ServingStatus {
    let next = tokio::time::timeout(PATIENCE, watch.message()).await.expect("a status in time");
    next.unwrap().expect("the watch goes on").status()
}

/// Not ready before the first state, and not after the server was told to go.
async fn from_the_first_state_until(end: impl Fn(&XdsServer)) {
    let server = server();
    let mut health = HealthClient::new(connect(serve(&server).await).await);
    let mut watch = health.watch(of("")).await.unwrap().into_inner();
    assert_eq!(next(&mut watch).await, NotServing);
    assert_eq!(checked(&mut health).await, NotServing);

    server.publish("all", snapshot(&[("a", 1, 1)], &[]));
    assert_eq!(next(&mut watch).await, Serving);
    assert_eq!(checked(&mut health).await, Serving);
    assert_eq!(next(&mut health.watch(of(ADS)).await.unwrap().into_inner()).await, Serving);

    end(&server);
    assert_eq!(next(&mut watch).await, NotServing);
    server.publish("all", snapshot(&[("a", 2, 1)], &[]));
    assert_eq!(checked(&mut health).await, NotServing, "another state does not bring it back");
}

#[tokio::test]
async fn t14_health_is_serving_from_the_first_state_until_the_drain() {
    from_the_first_state_until(XdsServer::drain).await;
}

#[tokio::test]
async fn t14_health_is_serving_from_the_first_state_until_the_shutdown() {
    from_the_first_state_until(XdsServer::shutdown).await;
}

#[tokio::test]
async fn t14_health_of_an_unknown_service_is_not_known() {
    let server = server();
    let mut health = HealthClient::new(connect(serve(&server).await).await);
    assert_eq!(health.check(of("other")).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(next(&mut health.watch(of("other")).await.unwrap().into_inner()).await, ServiceUnknown);
}
