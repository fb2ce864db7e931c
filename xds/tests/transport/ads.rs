//! The xDS server behind the transport: T12.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use clairvoy_xds::{
    ResourceType, ServeError, ServerOptions, Snapshot, SnapshotBuilder, TransportOptions, XdsServer, serve,
};
use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use prost::Message;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::toy::{PATIENCE, Stream, connect, eventually};
use crate::{options, raw};

/// A server that is served.
pub(crate) struct Serving {
    pub(crate) address: SocketAddr,
    stop: CancellationToken,
    served: JoinHandle<Result<(), ServeError>>,
}

pub(crate) async fn serving(server: &XdsServer, options: TransportOptions) -> Serving {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let served = tokio::spawn(serve(listener, server.routes(), options, stop.clone().cancelled_owned()));
    Serving { address, stop, served }
}

pub(crate) fn one_cluster(name: &str) -> Snapshot {
    let mut builder = SnapshotBuilder::new();
    builder.cluster(Cluster { name: name.into(), ..Default::default() });
    builder.build().unwrap()
}

/// The first request of a node that wants all clusters.
pub(crate) fn clusters(node_cluster: &str) -> DeltaDiscoveryRequest {
    let node = Node { id: "proxy".into(), cluster: node_cluster.into(), ..Default::default() };
    DeltaDiscoveryRequest {
        type_url: ResourceType::Cluster.type_url().into(),
        node: Some(node),
        ..Default::default()
    }
}

#[tokio::test]
async fn t12_a_server_that_drains_hands_its_clients_over_one_after_the_other() {
    const DRAIN: Duration = Duration::from_secs(2);
    let server = XdsServer::new(ServerOptions::single_group("all"));
    server.publish("all", one_cluster("a"));
    let transport = options(|options| {
        options.drain = DRAIN;
        options.seed = 1;
    });
    let serving = serving(&server, transport).await;
    let mut streams = Vec::new();
    let mut channels = Vec::new();
    for _ in 0..12 {
        let channel = connect(serving.address).await;
        let mut stream = Stream::open_with(&channel, clusters("edge")).await.unwrap();
        let response_nonce = stream.next().await.nonce;
        stream.send(DeltaDiscoveryRequest { response_nonce, node: None, ..clusters("edge") }).await;
        streams.push(stream);
        channels.push(channel);
    }

    server.drain();
    let mut health = HealthClient::new(channels[0].clone());
    let status = health.check(HealthCheckRequest::default()).await.unwrap().into_inner().status();
    assert_eq!(status, ServingStatus::NotServing);
    let refused = Stream::open_with(&channels[1], clusters("edge")).await.err().unwrap();
    assert_eq!(refused.code(), Code::Unavailable);
    server.publish("all", one_cluster("b"));
    for stream in &mut streams {
        assert_eq!(stream.next().await.resources[0].name, "b", "open streams go on");
    }

    let stopped = Instant::now();
    serving.stop.cancel();
    let ends: Vec<_> = streams
        .into_iter()
        .map(|mut stream| tokio::spawn(async move { (stream.end().await, Instant::now()) }))
        .collect();
    eventually("listening ended", || std::net::TcpStream::connect(serving.address).is_err()).await;
    assert!(server.clients().len() > 3, "listening ends before the streams do");
    let mut times = Vec::new();
    for end in ends {
        let (end, at) = end.await.unwrap();
        assert_eq!(end.unwrap_err().code(), Code::Unavailable);
        times.push(at - stopped);
    }
    times.sort();
    assert!(times[11] - times[0] > DRAIN / 2, "{times:?}");
    tokio::time::timeout(PATIENCE, serving.served).await.unwrap().unwrap().unwrap();
    assert!(server.clients().is_empty());
}

#[tokio::test]
async fn t12_a_client_of_the_server_is_told_before_its_streams_end() {
    let server = XdsServer::new(ServerOptions::single_group("all"));
    server.publish("all", one_cluster("a"));
    let serving = serving(&server, options(|options| options.drain = Duration::ZERO)).await;
    let mut socket = raw::handshake(serving.address).await;
    raw::open_stream(&mut socket, &clusters("edge").encode_to_vec()).await;
    eventually("connected", || server.clients().len() == 1).await;
    server.drain();
    serving.stop.cancel();
    raw::told_before_the_end(&mut socket).await;
    raw::closed(&mut socket).await;
    tokio::time::timeout(PATIENCE, serving.served).await.unwrap().unwrap().unwrap();
}
