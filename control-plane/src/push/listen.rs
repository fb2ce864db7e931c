use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::intake::Intake;
use super::serve::Surface;

/// A connection on which nothing was asked for this long to twice as long is closed, however far it came.
const IDLE: Duration = Duration::from_secs(60);
/// Longest time for the head of a request.
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
    pub async fn serve(self, listener: TcpListener, surface: Surface, stop: CancellationToken) {
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
            let (intake, builder, stop) = (self.clone(), Arc::clone(&builder), stop.clone());
            tokio::spawn(async move {
                intake.metrics().connections.inc();
                connection(&intake, &builder, socket, surface, &stop).await;
                intake.metrics().connections.dec();
                drop(entered);
            });
        }
        // Those that take longer are cut off with the process.
        let _ = tokio::time::timeout(GRACE * 2, self.doors().emptied()).await;
    }
}

/// Serves one connection to its end, `stop`, or a long silence.
async fn connection(
    intake: &Intake,
    builder: &Builder<TokioExecutor>,
    socket: TcpStream,
    surface: Surface,
    stop: &CancellationToken,
) {
    let _ = socket.set_nodelay(true);
    // Requests begun in the lower half, ended in the upper one.
    let activity = Arc::new(AtomicU64::new(0));
    let service = service_fn(|request| {
        activity.fetch_add(1, Ordering::Relaxed);
        let (intake, activity) = (intake.clone(), Arc::clone(&activity));
        async move {
            let answer = intake.answer(surface, request).await;
            activity.fetch_add(1 << 32, Ordering::Relaxed);
            Ok::<_, Infallible>(answer)
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
                let under_way = now as u32 != (now >> 32) as u32;
                if before.replace(now) == Some(now) && !under_way {
                    break;
                }
            }
        }
    }
    served.as_mut().graceful_shutdown();
    let _ = tokio::time::timeout(GRACE, served).await;
}
