//! Whatever a client sends, the server goes on, and other streams are not disturbed.
//!
//! A few seconds by default, minutes with `CLAIRVOY_LONG=1`.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use clairvoy_xds::ResourceType::{self, ClusterLoadAssignment};
use clairvoy_xds::XdsServer;
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{
    Client, Delta, RawClient, Sotw, Variant, connect, eventually, serve, server, settled, snapshot,
};

const LONG_FACTOR: u32 = 100;

fn cases(short: u32) -> u32 {
    let is_long = std::env::var_os("CLAIRVOY_LONG").is_some_and(|value| value == "1");
    if is_long { short * LONG_FACTOR } else { short }
}

fn type_url() -> impl Strategy<Value = String> {
    let known = prop::sample::select(ResourceType::ALL.to_vec()).prop_map(|t| t.type_url().to_owned());
    prop_oneof![8 => known, 1 => ".{0,20}", 1 => Just(String::new())]
}

fn some_names() -> impl Strategy<Value = Vec<String>> {
    let name = prop_oneof![
        prop::sample::select(vec!["a", "b", "routes", "front", "*", ""]).prop_map(str::to_owned),
        ".{0,8}",
    ];
    prop::collection::vec(name, 0..5)
}

/// A request that a client might send, of either variant.
fn valid(variant_is_delta: bool) -> BoxedStrategy<Vec<u8>> {
    let parts = (type_url(), some_names(), some_names(), ".{0,12}", any::<bool>());
    parts
        .prop_map(move |(type_url, names, others, nonce, refuses)| {
            let error_detail = refuses.then(|| crate::harness::refusal("fuzz"));
            if variant_is_delta {
                DeltaDiscoveryRequest {
                    type_url,
                    resource_names_subscribe: names,
                    resource_names_unsubscribe: others.clone(),
                    initial_resource_versions: others.into_iter().map(|name| (name, nonce.clone())).collect(),
                    response_nonce: nonce,
                    error_detail,
                    ..Default::default()
                }
                .encode_to_vec()
            } else {
                DiscoveryRequest {
                    type_url,
                    resource_names: names,
                    version_info: nonce.clone(),
                    response_nonce: nonce,
                    error_detail,
                    ..Default::default()
                }
                .encode_to_vec()
            }
        })
        .boxed()
}

/// Valid requests, such with a few bytes changed, and any bytes.
fn message(variant_is_delta: bool) -> impl Strategy<Value = Bytes> {
    let mutated = (valid(variant_is_delta), any::<prop::sample::Index>(), any::<u8>()).prop_map(
        |(mut bytes, at, byte)| {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            bytes
        },
    );
    prop_oneof![
        6 => valid(variant_is_delta),
        3 => mutated,
        1 => prop::collection::vec(any::<u8>(), 0..64),
    ]
    .prop_map(Bytes::from)
}

/// Messages for both variants, for the service of a type or the aggregated one.
type Stream = (bool, Option<ResourceType>, Vec<Bytes>);

fn stream() -> impl Strategy<Value = Stream> {
    let only = prop::option::of(prop::sample::select(ResourceType::ALL.to_vec()));
    (any::<bool>(), only).prop_flat_map(|(is_delta, only)| {
        (Just(is_delta), Just(only), prop::collection::vec(message(is_delta), 1..12))
    })
}

struct World {
    server: XdsServer,
    address: SocketAddr,
    witness: Client<Delta>,
    port: u16,
}

impl World {
    async fn new() -> Self {
        let server = server();
        server.publish("all", snapshot(&[("a", 1, 1)], &["a"]));
        let address = serve(&server).await;
        let witness = settled(&server, address, &["a"]).await;
        Self { server, address, witness, port: 1 }
    }

    /// The stream that was there before is served as if nothing had been.
    async fn check(&mut self) {
        eventually("other streams are gone", || self.server.clients().len() == 1).await;
        self.port = self.port % 60_000 + 1;
        self.server.publish("all", snapshot(&[("a", 1, self.port)], &["a"]));
        let response = self.witness.expect_acked(ClusterLoadAssignment).await;
        assert_eq!(Delta::names(&response), ["a"]);
    }
}

fn run<S: Strategy>(short: u32, strategy: S, test: impl AsyncFn(&mut World, S::Value)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut world = runtime.block_on(World::new());
    let config = Config { cases: cases(short), failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new(config);
    for _ in 0..cases(short) {
        let value = strategy.new_tree(&mut runner).unwrap().current();
        runtime.block_on(test(&mut world, value));
    }
}

#[test]
fn t5_no_message_disturbs_another_stream() {
    run(60, stream(), async |world, (is_delta, only, messages)| {
        let path = if is_delta { Delta::path(only) } else { Sotw::path(only) };
        let mut raw = RawClient::open(connect(world.address).await, path).await.unwrap();
        for message in messages {
            if !raw.send(message).await {
                break;
            }
        }
        // However it ended, it ended.
        let _ = raw.finish().await;
        world.check().await;
    });
}

#[test]
fn t5_no_bytes_on_the_connection_disturb_another() {
    let garbage = (any::<bool>(), prop::collection::vec(any::<u8>(), 0..400));
    run(30, garbage, async |world, (with_preface, bytes)| {
        let mut socket = TcpStream::connect(world.address).await.unwrap();
        if with_preface {
            socket.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
            socket.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
        }
        // The server may have closed the connection already.
        let _ = socket.write_all(&bytes).await;
        let _ = socket.shutdown().await;
        let mut rest = Vec::new();
        let _ = tokio::time::timeout(Duration::from_secs(5), socket.read_to_end(&mut rest)).await;
        drop(socket);
        world.check().await;
    });
}
