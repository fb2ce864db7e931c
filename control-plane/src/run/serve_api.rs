//! The server of the API: connections that are bounded, in whole and by peer, and that have to ask for something soon.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tower::Service as _;

use clairvoy_xds::{Bounds, Doors, Tls};

use crate::config::Listen;

/// Longest time for a handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time for the head of a request, and between two requests on a connection.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// Between pings of HTTP/2; a client that does not answer is gone.
const PING_EVERY: Duration = Duration::from_secs(30);
/// Requests at once on one HTTP/2 connection.
const MAX_STREAMS: u32 = 100;
/// Longest head of a request, in bytes, over HTTP/2.
const MAX_HEADER_BYTES: u32 = 16 * 1024;
/// The same over HTTP/1.1, with what is read ahead.
const MAX_BUFFER_BYTES: usize = 64 * 1024;
/// How long requests under way may take after `stop`.
const GRACE: Duration = Duration::from_secs(2);
/// After a failure to accept, as when there are no file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves the API until `stop`, and then what was under way.
pub(super) async fn serve_api(
    listener: TcpListener,
    tls: Option<Tls>,
    router: Router,
    listen: &Listen,
    stop: CancellationToken,
) {
    let most = (listen.max_connections, listen.max_connections_per_peer);
    serve(listener, tls, router, most, HEADER_TIMEOUT, stop).await;
}

async fn serve(
    listener: TcpListener,
    tls: Option<Tls>,
    router: Router,
    (most, most_of_peer): (usize, usize),
    header_timeout: Duration,
    stop: CancellationToken,
) {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        .max_buf_size(MAX_BUFFER_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Some(PING_EVERY))
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADER_BYTES);
    let builder = Arc::new(builder);
    let doors = Arc::new(Doors::new(Bounds {
        most,
        most_of_peer,
        who: "clients of the API",
        most_setting: "listen.max_connections",
        most_of_peer_setting: "listen.max_connections_per_peer",
    }));
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let Ok((socket, peer)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let entered = match doors.enter(peer.ip()) {
            Ok(entered) => entered,
            Err(full) => {
                doors.tell(peer.ip(), full, Instant::now());
                continue;
            }
        };
        let (builder, router, tls, stop) = (Arc::clone(&builder), router.clone(), tls.clone(), stop.clone());
        tokio::spawn(async move {
            connection(&builder, socket, peer, router, tls, header_timeout, &stop).await;
            drop(entered);
        });
    }
    // Those that take longer are cut off with the process.
    let _ = tokio::time::timeout(GRACE, doors.emptied()).await;
}

/// Serves one connection, after the handshake of TLS where it is spoken.
async fn connection(
    builder: &Builder<TokioExecutor>,
    socket: TcpStream,
    peer: SocketAddr,
    router: Router,
    tls: Option<Tls>,
    header_timeout: Duration,
    stop: &CancellationToken,
) {
    let _ = socket.set_nodelay(true);
    let Some(tls) = tls else { return exchange(builder, socket, router, header_timeout, stop).await };
    let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(socket));
    match stop.run_until_cancelled(Box::pin(handshake)).await {
        Some(Ok(Ok((socket, _)))) => exchange(builder, socket, router, header_timeout, stop).await,
        Some(Ok(Err(error))) => tracing::debug!(peer.address = %peer, %error, "handshake failed"),
        Some(Err(_)) => tracing::debug!(peer.address = %peer, "no handshake in time"),
        None => {}
    }
}

/// Serves one connection to its end, or `stop`; one that has not come to a request in time is dropped.
async fn exchange<S>(
    builder: &Builder<TokioExecutor>,
    socket: S,
    router: Router,
    header_timeout: Duration,
    stop: &CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let asked = Arc::<AtomicBool>::default();
    let service = service_fn(|request: Request<Incoming>| {
        asked.store(true, Ordering::Relaxed);
        router.clone().call(request)
    });
    let served = builder.serve_connection(TokioIo::new(socket), service);
    tokio::pin!(served);
    // The builder's own limit begins only once it knows which version of HTTP is spoken.
    tokio::select! {
        _ = served.as_mut() => return,
        () = stop.cancelled() => {}
        () = tokio::time::sleep(header_timeout) => {
            if !asked.load(Ordering::Relaxed) {
                return;
            }
            tokio::select! {
                _ = served.as_mut() => return,
                () = stop.cancelled() => {}
            }
        }
    }
    served.as_mut().graceful_shutdown();
    let _ = tokio::time::timeout(GRACE, served).await;
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    async fn start(most_of_peer: usize, header_timeout: Duration) -> (SocketAddr, CancellationToken) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/", get(|| async { "here" }));
        let stop = CancellationToken::new();
        tokio::spawn(serve(listener, None, router, (100, most_of_peer), header_timeout, stop.clone()));
        (address, stop)
    }

    /// All that comes until the connection ends.
    async fn rest(socket: &mut TcpStream) -> String {
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(PATIENCE, socket.read_to_end(&mut answer)).await.unwrap();
        String::from_utf8(answer).unwrap()
    }

    async fn ask(socket: &mut TcpStream) -> String {
        // A connection that is closed at once may be reset already.
        let _ = socket.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
        rest(socket).await
    }

    #[tokio::test]
    async fn one_address_has_no_more_connections_than_it_may_have() {
        let (address, stop) = start(2, PATIENCE).await;
        let idle = TcpStream::connect(address).await.unwrap();
        let mut asking = TcpStream::connect(address).await.unwrap();
        let mut beyond = TcpStream::connect(address).await.unwrap();
        assert_eq!(ask(&mut beyond).await, "");
        assert!(ask(&mut asking).await.ends_with("here"));
        drop(idle);
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !ask(&mut TcpStream::connect(address).await.unwrap()).await.ends_with("here") {
            assert!(tokio::time::Instant::now() < deadline, "nobody is let in any more");
        }
        stop.cancel();
    }

    #[tokio::test]
    async fn who_sends_no_whole_head_is_not_waited_for() {
        let (address, stop) = start(10, Duration::from_millis(100)).await;
        let mut silent = TcpStream::connect(address).await.unwrap();
        let mut slow = TcpStream::connect(address).await.unwrap();
        slow.write_all(b"GET / HTTP/1.1\r\nHost:").await.unwrap();
        // As HTTP/2 begins, and a POST.
        let mut undecided = TcpStream::connect(address).await.unwrap();
        undecided.write_all(b"P").await.unwrap();
        assert!(!rest(&mut slow).await.contains("here"));
        assert_eq!(rest(&mut silent).await, "");
        assert_eq!(rest(&mut undecided).await, "");
        stop.cancel();
    }
}
