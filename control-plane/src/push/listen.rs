use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use clairvoy_xds::Tls;

use super::access::Certified;
use super::intake::Intake;
use super::serve::Surface;
use super::shares::Peer;

/// A connection on which nothing was asked for this long to twice as long is closed, however far it came.
const IDLE: Duration = Duration::from_secs(60);
/// Longest time for the head of a request, and for the handshake of TLS.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Requests at once on one HTTP/2 connection.
const MAX_STREAMS: u32 = 100;
/// Longest head of a request, in bytes.
const MAX_HEADER_BYTES: u32 = 16 * 1024;
/// How long requests under way may take after `stop`, or on a connection that is being closed.
const GRACE: Duration = Duration::from_secs(2);
/// After a failure to accept, as when there are no file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

impl Intake {
    /// Serves an address until `stop`.
    pub async fn serve(
        self,
        listener: TcpListener,
        surface: Surface,
        tls: Option<Tls>,
        stop: CancellationToken,
    ) {
        let mut builder = Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).max_buf_size(64 * 1024);
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(Some(IDLE / 2))
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(MAX_HEADER_BYTES)
            .initial_stream_window_size(256 * 1024)
            .initial_connection_window_size(1024 * 1024);
        let builder = Arc::new(builder);
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            let Ok((socket, peer)) = accepted else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let entered = match self.doors().enter(peer.ip()) {
                Ok(entered) => entered,
                Err(full) => {
                    self.metrics().connection_refused(full);
                    self.doors().tell(peer.ip(), full, Instant::now());
                    continue;
                }
            };
            let (intake, builder, tls, stop) =
                (self.clone(), Arc::clone(&builder), tls.clone(), stop.clone());
            tokio::spawn(async move {
                intake.metrics().connections.inc();
                connection(&intake, &builder, socket, (surface, Peer::of(peer.ip())), tls, &stop).await;
                intake.metrics().connections.dec();
                drop(entered);
            });
        }
        // Those that take longer are cut off with the process.
        let _ = tokio::time::timeout(GRACE * 2, self.doors().emptied()).await;
    }
}

/// Serves one connection, after the handshake of TLS where it is spoken.
async fn connection(
    intake: &Intake,
    builder: &Builder<TokioExecutor>,
    socket: TcpStream,
    heard: (Surface, Peer),
    tls: Option<Tls>,
    stop: &CancellationToken,
) {
    let _ = socket.set_nodelay(true);
    let Some(tls) = tls else {
        return Box::pin(exchange(intake, builder, socket, heard, None, stop)).await;
    };
    // Boxed, so that what is needed only here is given back.
    let handshake = Box::pin(tokio::time::timeout(HEADER_TIMEOUT, tls.accept(socket)));
    let Some(done) = stop.run_until_cancelled(handshake).await else { return };
    match done {
        Ok(Ok((socket, identities))) => {
            let certified = intake.certified(&identities);
            Box::pin(exchange(intake, builder, socket, heard, certified, stop)).await;
        }
        Ok(Err(error)) => {
            tracing::debug!(%error, "a sender's handshake failed");
            intake.metrics().handshakes_failed.inc();
        }
        Err(_) => {
            intake.metrics().handshakes_failed.inc();
        }
    }
}

/// A request that has begun, until it is answered or its stream is reset.
struct UnderWay(Arc<AtomicU64>);

impl UnderWay {
    fn new(activity: &Arc<AtomicU64>) -> Self {
        activity.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(activity))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_add(1 << 32, Ordering::Relaxed);
    }
}

fn is_under_way(activity: u64) -> bool {
    activity as u32 != (activity >> 32) as u32
}

/// Serves one connection to its end, `stop`, or a long silence.
async fn exchange<S>(
    intake: &Intake,
    builder: &Builder<TokioExecutor>,
    socket: S,
    (surface, peer): (Surface, Peer),
    certified: Option<Certified>,
    stop: &CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    // Requests begun in the lower half, ended in the upper one.
    let activity = Arc::new(AtomicU64::new(0));
    let service = service_fn(|mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        if let Some(certified) = &certified {
            request.extensions_mut().insert(certified.clone());
        }
        let under_way = UnderWay::new(&activity);
        let intake = intake.clone();
        async move {
            let _under_way = under_way;
            Ok::<_, Infallible>(intake.answer(surface, request).await)
        }
    });
    let served = builder.serve_connection(TokioIo::new(socket), service);
    tokio::pin!(served);
    let mut before = None;
    loop {
        tokio::select! {
            _ = served.as_mut() => return,
            () = stop.cancelled() => break,
            () = tokio::time::sleep(IDLE) => {
                let now = activity.load(Ordering::Relaxed);
                if before.replace(now) == Some(now) && !is_under_way(now) {
                    break;
                }
            }
        }
    }
    served.as_mut().graceful_shutdown();
    let _ = tokio::time::timeout(GRACE, served).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_under_way_until_it_is_answered_or_given_up() {
        let activity = Arc::new(AtomicU64::new(0));
        let looks = || is_under_way(activity.load(Ordering::Relaxed));
        let (first, second) = (UnderWay::new(&activity), UnderWay::new(&activity));
        assert!(looks());
        // As when the stream of a request is reset: what would have answered it is dropped unfinished.
        let given_up = async move {
            let _under_way = first;
            std::future::pending::<()>().await;
        };
        drop(given_up);
        assert!(looks());
        drop(second);
        assert!(!looks());
    }
}
