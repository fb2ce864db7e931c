//! Clients that speak HTTP/2 by hand, or stop to.

use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::toy::PATIENCE;

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const ACK: u8 = 1;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// A frame.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) payload: Vec<u8>,
}

/// A frame of the connection.
pub(crate) fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    frame_of(0, kind, flags, payload)
}

fn frame_of(stream: u32, kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Opens stream 1 with a request of fewer than 256 bytes, and leaves it open.
pub(crate) async fn open_stream(socket: &mut TcpStream, request: &[u8]) {
    let path = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
    // Entries 3 and 6 of the static table of RFC 7541: POST, http. Then names and values in full.
    let mut headers = vec![0x83, 0x86];
    for (name, value) in [(":path", path), (":authority", "localhost"), ("content-type", "application/grpc")]
    {
        for text in [name, value] {
            headers.extend(if text == name { &[0][..] } else { &[] });
            headers.push(u8::try_from(text.len()).unwrap());
            headers.extend(text.as_bytes());
        }
    }
    socket.write_all(&frame_of(1, HEADERS, END_HEADERS, &headers)).await.unwrap();
    let message = [&[0, 0, 0, 0, u8::try_from(request.len()).unwrap()], request].concat();
    socket.write_all(&frame_of(1, DATA, 0, &message)).await.unwrap();
}

/// The next frame; `None` when the server has closed the connection.
pub(crate) async fn read_frame(socket: &mut (impl AsyncRead + Unpin)) -> Option<Frame> {
    let mut head = [0; 9];
    socket.read_exact(&mut head).await.ok()?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let mut payload = vec![0; length as usize];
    socket.read_exact(&mut payload).await.ok()?;
    Some(Frame { kind: head[3], flags: head[4], payload })
}

/// Reads until the end of a stream, and checks that a GOAWAY came before it.
pub(crate) async fn told_before_the_end(socket: &mut TcpStream) {
    let mut told = false;
    loop {
        let next = tokio::time::timeout(PATIENCE, read_frame(socket)).await;
        let next = next.expect("a frame in time").expect("the end of the stream");
        match next.kind {
            PING if next.flags == 0 => {
                socket.write_all(&frame(PING, ACK, &next.payload)).await.unwrap();
            }
            GOAWAY => {
                // No error: the code follows the number of the last stream.
                assert_eq!(next.payload[4..8], [0; 4]);
                told = true;
            }
            HEADERS if next.flags & END_STREAM != 0 => break,
            _ => {}
        }
    }
    assert!(told);
}

/// A connection with its settings exchanged.
pub(crate) async fn handshake(address: SocketAddr) -> TcpStream {
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.write_all(PREFACE).await.unwrap();
    socket.write_all(&frame(SETTINGS, 0, &[])).await.unwrap();
    let settings = read_frame(&mut socket).await.unwrap();
    assert_eq!((settings.kind, settings.flags), (SETTINGS, 0));
    socket.write_all(&frame(SETTINGS, ACK, &[])).await.unwrap();
    socket
}

/// Waits until the server has closed the connection.
pub(crate) async fn closed(socket: &mut TcpStream) {
    let mut rest = Vec::new();
    // A reset is a way to close, too.
    let _ = tokio::time::timeout(PATIENCE, socket.read_to_end(&mut rest)).await.expect("closed in time");
}

/// Stands between a client and a server, and moves nothing any more once `freeze` is cancelled, as a network
/// that has failed.
pub(crate) async fn freezable(server: SocketAddr, freeze: CancellationToken) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        let mut server = TcpStream::connect(server).await.unwrap();
        tokio::select! {
            _ = copy_bidirectional(&mut client, &mut server) => {}
            () = freeze.cancelled() => std::future::pending().await,
        }
    });
    address
}
