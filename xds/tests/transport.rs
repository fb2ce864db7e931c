//! The transport over real sockets. Tests are named after what they show.

#![expect(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by a panic")]

#[path = "transport/ads.rs"]
mod ads;
#[path = "transport/limits.rs"]
mod limits;
#[path = "transport/raw.rs"]
mod raw;
#[path = "transport/tls.rs"]
mod tls;
#[path = "transport/toy.rs"]
mod toy;

use std::time::{Duration, Instant};

use clairvoy_xds::{ServeError, TransportOptions};
use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tonic::transport::Endpoint;

use self::raw::{ACK, GOAWAY, PING};
use self::toy::{Manner, Stream, connect, eventually, start};

fn options(change: impl FnOnce(&mut TransportOptions)) -> TransportOptions {
    let mut options = TransportOptions::default();
    change(&mut options);
    options
}

/// Notices soon that a client is gone, with patience for a client on a busy machine.
fn impatient(options: &mut TransportOptions) {
    options.keepalive_interval = Duration::from_millis(100);
    options.keepalive_timeout = Duration::from_secs(1);
}

#[tokio::test]
async fn t7_requests_larger_than_the_windows_are_taken() {
    let server = start(Manner::HeedDrain, TransportOptions::default()).await;
    let channel = connect(server.address).await;
    let names = (0..20).map(|_| "n".repeat(1 << 20)).collect();
    let first = DeltaDiscoveryRequest { resource_names_subscribe: names, ..Default::default() };
    let mut stream = Stream::open_with(&channel, first).await.unwrap();
    stream.greeting().await;
    stream.finish().await.unwrap();
}

#[tokio::test]
async fn t8_fast_pings_are_answered_and_not_punished() {
    const PINGS: u64 = 2000;
    let server = start(Manner::HeedDrain, TransportOptions::default()).await;
    let mut socket = raw::handshake(server.address).await;
    let (mut reader, mut writer) = socket.split();
    let send = async {
        for number in 0..PINGS {
            writer.write_all(&raw::frame(PING, 0, &number.to_be_bytes())).await.unwrap();
        }
    };
    let receive = async {
        let mut answered = 0;
        while answered < PINGS {
            let frame = raw::read_frame(&mut reader).await.expect("the connection stays");
            assert_ne!(frame.kind, GOAWAY, "{frame:?}");
            if frame.kind == PING && frame.flags == ACK {
                assert_eq!(frame.payload, answered.to_be_bytes());
                answered += 1;
            }
        }
    };
    tokio::time::timeout(toy::PATIENCE, async { tokio::join!(send, receive) }).await.unwrap();
    assert_eq!(server.metrics.connections(), 1);
}

#[tokio::test]
async fn t8_a_half_open_connection_goes_with_its_streams() {
    let server = start(Manner::HeedDrain, options(impatient)).await;
    let freeze = CancellationToken::new();
    let through = connect(raw::freezable(server.address, freeze.clone()).await).await;
    let alive = connect(server.address).await;
    let (_frozen, _) = Stream::greeted(&through).await;
    let (mut stream, _) = Stream::greeted(&alive).await;
    freeze.cancel();
    eventually("the dead connection is gone", || server.metrics.connections() == 1).await;
    eventually("and its stream", || server.seen.open_streams() == 1).await;
    assert!(stream.is_quiet());
}

#[tokio::test]
async fn t8_a_client_that_takes_no_data_is_dropped() {
    let server = start(Manner::Flood, options(impatient)).await;
    let freeze = CancellationToken::new();
    let proxy = raw::freezable(server.address, freeze.clone()).await;
    // Windows so large that the sockets fill up before.
    let endpoint = Endpoint::from_shared(format!("http://{proxy}")).unwrap();
    let endpoint = endpoint.initial_stream_window_size(1 << 30).initial_connection_window_size(1 << 30);
    let channel = endpoint.connect().await.unwrap();
    let (_stream, _) = Stream::greeted(&channel).await;
    freeze.cancel();
    eventually("the connection is gone", || server.metrics.connections() == 0).await;
    eventually("and its stream", || server.seen.open_streams() == 0).await;
}

#[tokio::test]
async fn t11_a_client_opens_a_new_connection_when_the_old_one_ages() {
    let server = start(
        Manner::HeedDrain,
        options(|options| {
            options.max_connection_age = Some(Duration::from_secs(1));
        }),
    )
    .await;
    let channel = connect(server.address).await;
    let (mut stream, first) = Stream::greeted(&channel).await;
    assert_eq!(stream.end().await.unwrap_err().code(), Code::Unavailable);
    // The stream ended after the client was told, so it does not try the old connection again.
    let (_stream, second) = Stream::greeted(&channel).await;
    assert_ne!(first, second);
}

#[tokio::test]
async fn t11_an_old_connection_whose_streams_stay_is_cut() {
    let server = start(
        Manner::Stay,
        options(|options| {
            options.max_connection_age = Some(Duration::from_secs(1));
            options.grace = Duration::from_millis(100);
        }),
    )
    .await;
    let channel = connect(server.address).await;
    let (mut stream, _) = Stream::greeted(&channel).await;
    assert!(stream.end().await.is_err());
    eventually("the stream is gone", || server.seen.open_streams() == 0).await;
}

#[tokio::test]
async fn t12_shutdown_ends_streams_one_after_the_other() {
    const DRAIN: Duration = Duration::from_millis(1500);
    let server = start(
        Manner::HeedDrain,
        options(|options| {
            options.drain = DRAIN;
            options.seed = 1;
        }),
    )
    .await;
    let mut ends = Vec::new();
    for _ in 0..12 {
        let channel = connect(server.address).await;
        let (mut stream, _) = Stream::greeted(&channel).await;
        ends.push(tokio::spawn(async move {
            let end = stream.end().await;
            (Instant::now(), end.unwrap_err().code())
        }));
    }
    let stopped = Instant::now();
    server.stop.cancel();
    eventually("listening ended", || std::net::TcpStream::connect(server.address).is_err()).await;
    assert!(server.seen.open_streams() > 3, "listening ends before the streams do");
    let mut times = Vec::new();
    for end in ends {
        let (at, code) = end.await.unwrap();
        assert_eq!(code, Code::Unavailable);
        times.push(at - stopped);
    }
    times.sort();
    assert!(times[11] - times[0] > DRAIN / 2, "{times:?}");
    server.served.await.unwrap().unwrap();
    assert!(stopped.elapsed() < DRAIN + Duration::from_secs(3), "{:?}", stopped.elapsed());
}

#[tokio::test]
async fn t12_shutdown_cuts_streams_that_stay_and_clients_that_are_silent() {
    let server = start(
        Manner::Stay,
        options(|options| {
            options.drain = Duration::ZERO;
            options.grace = Duration::from_millis(200);
        }),
    )
    .await;
    let channel = connect(server.address).await;
    let (mut stream, _) = Stream::greeted(&channel).await;
    let mut silent = TcpStream::connect(server.address).await.unwrap();
    server.stop.cancel();
    assert!(stream.end().await.is_err());
    raw::closed(&mut silent).await;
    tokio::time::timeout(toy::PATIENCE, server.served).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn t12_a_client_is_told_before_its_streams_end() {
    let server = start(Manner::HeedDrain, options(|options| options.drain = Duration::ZERO)).await;
    let mut socket = raw::handshake(server.address).await;
    raw::open_stream(&mut socket, &[]).await;
    eventually("greeted", || server.seen.open_streams() == 1).await;
    server.stop.cancel();
    raw::told_before_the_end(&mut socket).await;
    raw::closed(&mut socket).await;
    server.served.await.unwrap().unwrap();
}

#[tokio::test]
async fn connections_that_say_nothing_are_dropped() {
    let server =
        start(Manner::Stay, options(|options| options.handshake_timeout = Duration::from_millis(500))).await;
    let mut silent = TcpStream::connect(server.address).await.unwrap();
    let mut slow = TcpStream::connect(server.address).await.unwrap();
    slow.write_all(&raw::PREFACE[..10]).await.unwrap();
    raw::closed(&mut silent).await;
    raw::closed(&mut slow).await;
    let (_stream, _) = Stream::greeted(&connect(server.address).await).await;
}

#[tokio::test]
async fn connections_that_speak_something_else_are_dropped_at_once() {
    let server =
        start(Manner::Stay, options(|options| options.handshake_timeout = Duration::from_secs(3600))).await;
    let mut browser = TcpStream::connect(server.address).await.unwrap();
    browser.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    raw::closed(&mut browser).await;
}

#[tokio::test]
async fn invalid_options_are_named() {
    let server = start(Manner::Stay, options(|options| options.max_concurrent_streams = 0)).await;
    let ServeError::Option { option, .. } = server.served.await.unwrap().unwrap_err() else {
        panic!("another error");
    };
    assert_eq!(option, "max_concurrent_streams");
}
