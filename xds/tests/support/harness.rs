//! A server on a port of the loopback interface, and clients that say what a test tells them.

use std::net::SocketAddr;
use std::time::Duration;

use clairvoy_xds::{ResourceType, Snapshot, SnapshotBuilder, XdsServer};
use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use envoy_types::pb::google::rpc;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Status, Streaming};

use super::fixtures;

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a test waits for what must not come.
const QUIET: Duration = Duration::from_millis(150);

pub(crate) async fn serve(server: &XdsServer) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = tonic::transport::Server::builder().add_service(server.service());
    tokio::spawn(router.serve_with_incoming(TcpListenerStream::new(listener)));
    address
}

/// Clusters with the versions of their settings and the ports of their endpoints, and a listener with a
/// route to each of `routed`.
pub(crate) fn snapshot(clusters: &[(&str, u64, u16)], routed: &[&str]) -> Snapshot {
    let mut builder = SnapshotBuilder::new();
    for (name, settings, port) in clusters {
        builder.cluster(fixtures::cluster(name, *settings)).assignment(fixtures::assignment(name, *port));
    }
    builder.listener(fixtures::listener("front", 80, "routes"));
    builder.route_configuration(fixtures::routes("routes", routed.iter().copied()));
    builder.build().unwrap()
}

pub(crate) struct Client {
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    responses: Streaming<DeltaDiscoveryResponse>,
}

impl Client {
    /// Opens a stream and sends the first request, which carries the node.
    pub(crate) async fn open(address: SocketAddr, first: DeltaDiscoveryRequest) -> Result<Self, Status> {
        let mut client =
            AggregatedDiscoveryServiceClient::connect(format!("http://{address}")).await.unwrap();
        let (requests, outgoing) = mpsc::channel(16);
        let node = Node { id: "proxy".into(), cluster: "edge".into(), ..Default::default() };
        requests.send(DeltaDiscoveryRequest { node: Some(node), ..first }).await.unwrap();
        let responses = client.delta_aggregated_resources(ReceiverStream::new(outgoing)).await?.into_inner();
        Ok(Self { requests, responses })
    }

    /// A client that wants all clusters.
    pub(crate) async fn with_clusters(address: SocketAddr) -> Self {
        Self::open(address, request(ResourceType::Cluster, &[])).await.unwrap()
    }

    pub(crate) async fn send(&mut self, request: DeltaDiscoveryRequest) {
        self.requests.send(request).await.unwrap();
    }

    pub(crate) async fn subscribe(&mut self, resource_type: ResourceType, names: &[&str]) {
        self.send(request(resource_type, names)).await;
    }

    pub(crate) async fn ack(&mut self, response: &DeltaDiscoveryResponse) {
        let request = DeltaDiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            ..Default::default()
        };
        self.send(request).await;
    }

    pub(crate) async fn nack(&mut self, response: &DeltaDiscoveryResponse, message: &str) {
        let error_detail = Some(rpc::Status { code: 13, message: message.into(), ..Default::default() });
        let request = DeltaDiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            error_detail,
            ..Default::default()
        };
        self.send(request).await;
    }

    /// The next response, which is of this type.
    pub(crate) async fn expect(&mut self, resource_type: ResourceType) -> DeltaDiscoveryResponse {
        let response = self.next().await.unwrap().expect("the stream goes on");
        assert_eq!(response.type_url, resource_type.type_url());
        response
    }

    pub(crate) async fn expect_acked(&mut self, resource_type: ResourceType) -> DeltaDiscoveryResponse {
        let response = self.expect(resource_type).await;
        self.ack(&response).await;
        response
    }

    pub(crate) async fn expect_nothing(&mut self) {
        let outcome = tokio::time::timeout(QUIET, self.responses.message()).await;
        assert!(outcome.is_err(), "{outcome:?}");
    }

    /// The next response, the end of the stream, or its failure.
    pub(crate) async fn next(&mut self) -> Result<Option<DeltaDiscoveryResponse>, Status> {
        tokio::time::timeout(PATIENCE, self.responses.message()).await.expect("an answer in time")
    }

    /// Ends the sending side and gives what the stream ends with.
    pub(crate) async fn finish(mut self) -> Result<Option<DeltaDiscoveryResponse>, Status> {
        let (closed, _) = mpsc::channel(1);
        drop(std::mem::replace(&mut self.requests, closed));
        self.next().await
    }
}

pub(crate) fn request(resource_type: ResourceType, names: &[&str]) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: resource_type.type_url().into(),
        resource_names_subscribe: names.iter().map(|name| (*name).to_owned()).collect(),
        ..Default::default()
    }
}

pub(crate) fn names(response: &DeltaDiscoveryResponse) -> Vec<&str> {
    response.resources.iter().map(|resource| resource.name.as_str()).collect()
}

/// Polls until the condition holds.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
