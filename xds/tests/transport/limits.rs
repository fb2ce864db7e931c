//! T10: streams and connections beyond the limits.

use std::num::NonZeroU32;
use std::time::Duration;

use clairvoy_xds::{RateLimit, TransportOptions};
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use futures::future::join_all;
use tokio::net::TcpStream;
use tonic::Code;

use crate::options;
use crate::raw;
use crate::toy::{Manner, PATIENCE, Stream, connect, eventually, start};

fn rate(per_second: u32, burst: u32) -> Option<RateLimit> {
    Some(RateLimit {
        per_second: NonZeroU32::new(per_second).unwrap(),
        burst: NonZeroU32::new(burst).unwrap(),
    })
}

#[tokio::test]
async fn t10_new_streams_beyond_the_rate_are_refused() {
    let server = start(Manner::Stay, options(|options| options.new_streams = rate(1, 3))).await;
    let channel = connect(server.address).await;
    let mut streams = Vec::new();
    // A slow machine gets more than three, since tokens come back meanwhile.
    let refused = loop {
        match Stream::open(&channel).await {
            Ok(stream) => streams.push(stream),
            Err(refused) => break refused,
        }
        assert!(streams.len() < 50, "none is refused");
    };
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(streams.len() >= 3);
    assert_eq!(server.seen.open_streams(), streams.len(), "the service never saw the refused one");
    // A token comes back, and the connection is still good.
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while Stream::open(&channel).await.is_err() {
        assert!(tokio::time::Instant::now() < deadline, "no token came back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn t10_many_clients_share_a_connection() {
    let server = start(Manner::Stay, TransportOptions::default()).await;
    let channel = connect(server.address).await;
    let streams = join_all((0..500).map(|_| Stream::greeted(&channel))).await;
    assert!(streams.iter().all(|(_, address)| *address == streams[0].1), "one connection");
    assert_eq!(server.seen.open_streams(), 500);
}

#[tokio::test]
async fn t10_streams_beyond_those_of_a_connection_wait() {
    let server = start(Manner::Stay, options(|options| options.max_concurrent_streams = 2)).await;
    let channel = connect(server.address).await;
    let (first, _) = Stream::greeted(&channel).await;
    let (_second, _) = Stream::greeted(&channel).await;
    let third = tokio::spawn(async move { Stream::greeted(&channel).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!third.is_finished());
    first.finish().await.unwrap();
    tokio::time::timeout(PATIENCE, third).await.unwrap().unwrap();
}

#[tokio::test]
async fn t10_connections_beyond_the_limit_are_closed() {
    let server = start(Manner::Stay, options(|options| options.max_connections = 2)).await;
    let kept = raw::handshake(server.address).await;
    let _other = raw::handshake(server.address).await;
    let mut refused = TcpStream::connect(server.address).await.unwrap();
    raw::closed(&mut refused).await;
    drop(kept);
    eventually("one is gone", || server.metrics.connections() == 1).await;
    let (_stream, _) = Stream::greeted(&connect(server.address).await).await;
}

#[tokio::test]
async fn t10_connections_of_one_peer_beyond_its_limit_are_closed() {
    let server = start(Manner::Stay, options(|options| options.max_connections_per_peer = 1)).await;
    let kept = raw::handshake(server.address).await;
    let mut refused = TcpStream::connect(server.address).await.unwrap();
    raw::closed(&mut refused).await;
    drop(kept);
    eventually("it is gone", || server.metrics.connections() == 0).await;
    let (_stream, _) = Stream::greeted(&connect(server.address).await).await;
}

#[tokio::test]
async fn t10_a_connection_without_a_stream_is_closed() {
    let brief = |options: &mut TransportOptions| {
        options.first_stream_timeout = Duration::from_millis(500);
        options.grace = Duration::from_millis(100);
    };
    let server = start(Manner::Stay, options(brief)).await;
    let (stream, _) = Stream::greeted(&connect(server.address).await).await;
    let mut idle = raw::handshake(server.address).await;
    // One that was refused is none.
    let mut refused = AggregatedDiscoveryServiceClient::new(connect(server.address).await);
    let status = refused.stream_aggregated_resources(futures::stream::pending()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    eventually("all but one are gone", || server.metrics.connections() == 1).await;
    raw::closed(&mut idle).await;
    assert_eq!(server.seen.open_streams(), 1);
    stream.finish().await.unwrap();
}

#[tokio::test]
async fn t10_new_connections_beyond_the_rate_are_closed() {
    let server = start(Manner::Stay, options(|options| options.new_connections = rate(1, 2))).await;
    let _served = raw::handshake(server.address).await;
    let mut others = Vec::new();
    for _ in 0..30 {
        others.push(TcpStream::connect(server.address).await.unwrap());
    }
    raw::closed(&mut others[29]).await;
    assert_eq!(server.metrics.connections(), 1);
}

#[tokio::test]
async fn t13_streams_opened_and_dropped_in_a_row_do_not_end_the_connection() {
    let server = start(Manner::Stay, TransportOptions::default()).await;
    let channel = connect(server.address).await;
    let (_stream, address) = Stream::greeted(&channel).await;
    for _ in 0..300 {
        drop(Stream::open(&channel).await.unwrap());
    }
    // Cancelled before there is an answer.
    for _ in 0..10 {
        let opening = join_all((0..100).map(|_| Stream::open(&channel)));
        let _ = tokio::time::timeout(Duration::from_micros(200), opening).await;
    }
    let (_last, last_address) = Stream::greeted(&channel).await;
    assert_eq!(address, last_address);
    eventually("what was dropped is gone", || server.seen.open_streams() == 2).await;
}
