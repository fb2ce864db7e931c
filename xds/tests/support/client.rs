//! A client of either variant that does nothing by itself.

use std::collections::HashMap;
use std::net::SocketAddr;

use clairvoy_xds::ResourceType;
use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use http::uri::PathAndQuery;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};
use tonic_prost::ProstCodec;

use super::variant::{Delta, Variant, refusal};
use super::{PATIENCE, QUIET, connect};

/// The largest response that is taken.
const MAX_RESPONSE_BYTES: usize = 64 << 20;

/// One stream.
pub(crate) struct Client<V: Variant = Delta> {
    requests: mpsc::Sender<V::Request>,
    responses: Streaming<V::Response>,
    /// What a SotW client says again with each request, by type URL.
    said: HashMap<String, Said>,
}

#[derive(Default)]
struct Said {
    names: Vec<String>,
    nonce: String,
    version: String,
}

pub(crate) fn node() -> Node {
    Node { id: "proxy".into(), cluster: "edge".into(), ..Default::default() }
}

impl<V: Variant> Client<V> {
    /// Opens a stream of the aggregated service and sends the first request, which carries the node.
    pub(crate) async fn open(address: SocketAddr, first: V::Request) -> Result<Self, Status> {
        Self::open_on(connect(address).await, None, V::with_node(first, Some(node()))).await
    }

    /// Opens a stream of the service of a type.
    pub(crate) async fn open_service(
        address: SocketAddr,
        only: Option<ResourceType>,
        first: V::Request,
    ) -> Result<Self, Status> {
        Self::open_on(connect(address).await, only, V::with_node(first, Some(node()))).await
    }

    /// Opens a stream on a connection.
    pub(crate) async fn open_on(
        channel: Channel,
        only: Option<ResourceType>,
        first: V::Request,
    ) -> Result<Self, Status> {
        let (requests, outgoing) = mpsc::channel(64);
        let mut said = HashMap::new();
        note::<V>(&mut said, &first);
        requests.send(first).await.unwrap();
        let mut grpc = Grpc::new(channel).max_decoding_message_size(MAX_RESPONSE_BYTES);
        grpc.ready().await.unwrap();
        let codec = ProstCodec::<V::Request, V::Response>::default();
        let path = PathAndQuery::from_static(V::path(only));
        let outgoing = Request::new(ReceiverStream::new(outgoing));
        let responses = grpc.streaming(outgoing, path, codec).await?.into_inner();
        Ok(Self { requests, responses, said })
    }

    /// A client that wants all clusters.
    pub(crate) async fn with_clusters(address: SocketAddr) -> Self {
        Self::open(address, V::request(ResourceType::Cluster, &[])).await.unwrap()
    }

    /// Sends a request as it is.
    pub(crate) async fn send(&mut self, request: V::Request) {
        note::<V>(&mut self.said, &request);
        self.requests.send(request).await.unwrap();
    }

    /// Asks for names. In SotW for these alone, with the nonce and version of the last response seen.
    pub(crate) async fn subscribe(&mut self, resource_type: ResourceType, names: &[&str]) {
        let request = V::request(resource_type, names);
        let said = self.said.entry(resource_type.type_url().into()).or_default();
        let request = if said.nonce.is_empty() || is_delta::<V>() {
            request
        } else {
            V::with_nonce(request, &said.nonce, &said.version)
        };
        self.send(request).await;
    }

    pub(crate) async fn ack(&mut self, response: &V::Response) {
        let said = self.said.entry(V::type_url(response).into()).or_default();
        said.nonce = V::nonce(response).into();
        said.version = V::version(response).into();
        let answer = V::answer(response, &said.names, None);
        self.requests.send(answer).await.unwrap();
    }

    pub(crate) async fn nack(&mut self, response: &V::Response, message: &str) {
        let said = self.said.entry(V::type_url(response).into()).or_default();
        said.nonce = V::nonce(response).into();
        let answer = V::answer(response, &said.names, Some(refusal(message)));
        self.requests.send(answer).await.unwrap();
    }

    /// The next response, which is of this type.
    pub(crate) async fn expect(&mut self, resource_type: ResourceType) -> V::Response {
        let response = self.expect_any().await;
        assert_eq!(V::type_url(&response), resource_type.type_url());
        response
    }

    /// The next response.
    pub(crate) async fn expect_any(&mut self) -> V::Response {
        self.next().await.unwrap().expect("the stream goes on")
    }

    pub(crate) async fn expect_acked(&mut self, resource_type: ResourceType) -> V::Response {
        let response = self.expect(resource_type).await;
        self.ack(&response).await;
        response
    }

    pub(crate) async fn expect_nothing(&mut self) {
        let outcome = tokio::time::timeout(QUIET, self.responses.message()).await;
        assert!(outcome.is_err(), "{outcome:?}");
    }

    /// The next response, the end of the stream, or its failure.
    pub(crate) async fn next(&mut self) -> Result<Option<V::Response>, Status> {
        tokio::time::timeout(PATIENCE, self.responses.message()).await.expect("an answer in time")
    }

    /// Ends the sending side and gives what the stream ends with.
    pub(crate) async fn finish(mut self) -> Result<Option<V::Response>, Status> {
        let (closed, _) = mpsc::channel(1);
        drop(std::mem::replace(&mut self.requests, closed));
        self.next().await
    }
}

fn is_delta<V: Variant>() -> bool {
    std::any::TypeId::of::<V>() == std::any::TypeId::of::<Delta>()
}

fn note<V: Variant>(said: &mut HashMap<String, Said>, request: &V::Request) {
    said.entry(V::type_url_of(request).into()).or_default().names = V::names_of(request).to_vec();
}

impl Client<Delta> {
    pub(crate) async fn unsubscribe(&mut self, resource_type: ResourceType, names: &[&str]) {
        let request = DeltaDiscoveryRequest {
            type_url: resource_type.type_url().into(),
            resource_names_unsubscribe: names.iter().map(|name| (*name).to_owned()).collect(),
            ..Default::default()
        };
        self.send(request).await;
    }
}
