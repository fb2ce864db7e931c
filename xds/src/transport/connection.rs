//! The life of one connection.
//!
//! ```text
//! accepted ── TLS, preface ──► open ── age, or shutdown ──► told (GOAWAY) ──► draining ──► cut
//!     └── handshake_timeout ─►  ╳                              │  at once by age,  │  grace  │
//!                                                              │  by its place in  │         ╳
//!                                                              └─ the drain time ──┘
//! ```
//!
//! Streams of discovery never end by themselves, so those of a connection are told to end, by
//! [`Connection::drain`], after their client was told not to open new ones. A connection without streams ends
//! as soon as the client has answered the GOAWAY.

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Poll, Waker};

use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::coop::unconstrained;
use tokio::time::{Instant, Sleep};

use super::Shared;
use super::io::{Begun, Guarded, Socket};
use super::metrics::{End, Refusal};
use super::order::Order;
use super::peer::{Connection, Peer};
use super::service::ConnectionService;

/// What the timer of a connection stands for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The connection has to get a stream, and ages, if connections do.
    Open,
    /// The client was told; its streams are to end when the timer fires.
    Told,
    /// The streams were told; what is left is cut when the timer fires.
    Draining,
}

/// Serves a connection until it ends. `place` is its place between 0 and 1 among all others, for what is not
/// to happen to all at once.
pub(super) async fn run(shared: Arc<Shared>, socket: TcpStream, address: SocketAddr, place: f64) {
    let opened = Instant::now();
    let options = &shared.options;
    // Boxed, so that what is needed only here is given back.
    let handshake = Box::pin(handshake(&shared, socket));
    let (socket, identities) = tokio::select! {
        done = tokio::time::timeout(options.handshake_timeout, handshake) => match done {
            Ok(Ok(begun)) => begun,
            Ok(Err(error)) => {
                tracing::debug!(peer.address = %address, %error, "connection without HTTP/2");
                return options.metrics.refuse(Refusal::handshake);
            }
            Err(_) => {
                tracing::debug!(peer.address = %address, "no HTTP/2 in time");
                return options.metrics.refuse(Refusal::handshake_timeout);
            }
        },
        () = shared.stopping.cancelled() => return,
    };
    let peer = Arc::new(Peer { address, identities });
    let drain = Order::new();
    let connection = Connection { peer, drain: drain.clone() };
    let used = Arc::<AtomicBool>::default();
    let service = ConnectionService { shared: shared.clone(), connection, used: used.clone() };
    let http2 = shared.http2.serve_connection(TokioIo::new(socket), service);
    let times = Times {
        first_stream: opened + options.first_stream_timeout,
        age: options.age_at(place).map(|age| opened + age),
    };
    drive(&shared, address, pin!(http2), &drain, &used, times, place).await;
}

async fn handshake(shared: &Shared, socket: TcpStream) -> io::Result<(Begun, Vec<String>)> {
    socket.set_nodelay(true)?;
    let socket = Guarded::new(socket, shared.options.write_timeout());
    let Some(tls) = &shared.options.tls else {
        return Ok((Begun::read_preface(Socket::Plain(socket)).await?, Vec::new()));
    };
    let (socket, identities) = tls.accept(socket).await?;
    Ok((Begun::read_preface(Socket::Tls(Box::new(socket))).await?, identities))
}

/// When a connection is looked at.
struct Times {
    /// By when it has to have a stream.
    first_stream: Instant,
    /// When it is too old.
    age: Option<Instant>,
}

/// What happens to a connection.
enum Event {
    Ended(hyper::Result<()>),
    Stop,
    Timer,
}

type Http2 =
    hyper::server::conn::http2::Connection<TokioIo<Begun>, ConnectionService, hyper_util::rt::TokioExecutor>;

async fn drive(
    shared: &Shared,
    address: SocketAddr,
    mut http2: Pin<&mut Http2>,
    drain: &Order,
    used: &AtomicBool,
    times: Times,
    place: f64,
) {
    let options = &shared.options;
    let mut open = options.metrics.open();
    let mut phase = Phase::Open;
    let mut timed = true;
    let first = times.age.map_or(times.first_stream, |age| age.min(times.first_stream));
    let mut timer: Pin<&mut Sleep> = pin!(tokio::time::sleep_until(first));
    let mut stop = pin!(shared.stopping.cancelled());
    // What waits for this waker need not be asked again with each request and response.
    let mut waiting: Option<Waker> = None;
    loop {
        let event = poll_fn(|cx| {
            // HTTP/2 goes first: a GOAWAY is on its way before the streams are told to end.
            if let Poll::Ready(done) = http2.as_mut().poll(cx) {
                return Poll::Ready(Event::Ended(done));
            }
            let waits = waiting.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()));
            if phase == Phase::Open
                && (!waits || shared.stopping.is_cancelled())
                && stop.as_mut().poll(cx).is_ready()
            {
                return Poll::Ready(Event::Stop);
            }
            // Without the budget of the task: a timer that is turned away has not been set.
            if timed
                && (!waits || timer.is_elapsed())
                && pin!(unconstrained(timer.as_mut())).poll(cx).is_ready()
            {
                return Poll::Ready(Event::Timer);
            }
            if !waits {
                waiting = Some(cx.waker().clone());
            }
            Poll::Pending
        })
        .await;
        waiting = None;
        match (event, phase) {
            (Event::Ended(done), _) => {
                open.end = if done.is_ok() { End::closed } else { End::error };
                if let Err(error) = done {
                    tracing::debug!(peer.address = %address, %error, "connection broke off");
                }
                break;
            }
            (Event::Stop, _) => {
                http2.as_mut().graceful_shutdown();
                phase = Phase::Told;
                timed = true;
                timer.as_mut().reset(Instant::now() + options.drain.mul_f64(place));
            }
            (Event::Timer, Phase::Open) => {
                let now = Instant::now();
                let is_old = times.age.is_some_and(|age| age <= now);
                if !is_old && used.load(Ordering::Relaxed) {
                    match times.age {
                        Some(age) => timer.as_mut().reset(age),
                        None => timed = false,
                    }
                    continue;
                }
                if is_old {
                    options.metrics.aged.inc();
                } else {
                    tracing::debug!(peer.address = %address, "no stream in time");
                    options.metrics.unused.inc();
                }
                http2.as_mut().graceful_shutdown();
                phase = Phase::Told;
                timer.as_mut().reset(now);
            }
            (Event::Timer, Phase::Told) => {
                drain.cancel();
                phase = Phase::Draining;
                timer.as_mut().reset(Instant::now() + options.grace);
            }
            (Event::Timer, Phase::Draining) => {
                tracing::info!(peer.address = %address, "connection cut off, its streams did not end");
                open.end = End::cut;
                break;
            }
        }
    }
    // Streams of a connection that is gone have nothing to wait for.
    drain.cancel();
}
