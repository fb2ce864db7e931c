//! Serves gRPC over HTTP/2: connections that are cheap, limited, kept alive and ended in order.
//!
//! A connection is one task and the state of HTTP/2. It holds no buffers before its client speaks HTTP/2,
//! has one timer beside that of the pings, and every request on it carries a [`Connection`]: who is at the
//! other end, and when to end.

mod connection;
mod doors;
mod io;
mod metrics;
mod options;
mod order;
mod peer;
mod rate;
mod service;
mod tls;

pub use self::doors::{Bounds, Doors, Entered, Full};
pub use self::metrics::TransportMetrics;
pub use self::options::TransportOptions;
pub use self::order::Order;
pub use self::peer::{Connection, Peer};
pub use self::rate::RateLimit;
pub use self::tls::{PemSource, Tls, TlsError, TlsOptions};

use std::io::ErrorKind;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper_util::rt::TokioExecutor;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;

use self::metrics::Refusal;
use self::rate::Limiter;

/// Pause after an accept that failed for lack of something, most often file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why nothing can be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// An option has a value that it cannot have.
    #[error("invalid {option} {value}: {reason}")]
    Option {
        /// The option.
        option: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// What all connections of a listener see.
#[derive(Debug)]
struct Shared {
    options: TransportOptions,
    routes: Routes,
    http2: hyper::server::conn::http2::Builder<TokioExecutor>,
    new_streams: Option<Limiter>,
    stopping: Order,
}

/// Serves `routes` to every client of `listener`, until `shutdown`.
///
/// Then listening ends at once, every client is told to open no new streams (GOAWAY), and is told to end its
/// streams (see [`Connection::drain`]) at its own moment within [`TransportOptions::drain`]. What is left
/// [`TransportOptions::grace`] later is cut off. Returns when the last connection is gone, at most the sum of
/// both later. Readiness should be withdrawn when `shutdown` is given. If the future is dropped, connections
/// go in the same way, with nobody waiting for them.
///
/// The listener decides who can connect: bind it to loopback (`127.0.0.1` or `[::1]`) unless somebody said
/// otherwise, and use [`TransportOptions::tls`] if it is not loopback.
///
/// # Errors
///
/// A [`ServeError`] at once if an option is invalid. What goes wrong with a connection ends that connection
/// only.
///
/// # Examples
///
/// ```no_run
/// use clairvoy_xds::{ServerOptions, TransportOptions, XdsServer, serve};
/// use tonic::service::Routes;
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let server = XdsServer::new(ServerOptions::single_group("all"));
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:18000").await?;
/// let stop = async { drop(tokio::signal::ctrl_c().await) };
/// serve(listener, Routes::new(server.service()), TransportOptions::default(), stop).await?;
/// # Ok(())
/// # }
/// ```
pub async fn serve(
    listener: TcpListener,
    routes: Routes,
    options: TransportOptions,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    options.check()?;
    let now = Instant::now();
    let new_connections = options.new_connections.map(|limit| Limiter::new(limit, now));
    let mut places = StdRng::seed_from_u64(options.seed);
    let shared = Arc::new(Shared {
        routes: routes.prepare(),
        http2: options.http2(),
        new_streams: options.new_streams.map(|limit| Limiter::new(limit, now)),
        stopping: Order::new(),
        options,
    });
    let _stop_on_drop = shared.stopping.drop_guard();
    let doors = Arc::new(Doors::new(Bounds {
        most: shared.options.max_connections,
        most_of_peer: shared.options.max_connections_per_peer,
        who: "clients of discovery",
        most_setting: "max_connections",
        most_of_peer_setting: "max_connections_per_peer",
    }));
    let connections = TaskTracker::new();

    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut shutdown => break,
            accepted = listener.accept() => accepted,
        };
        let (socket, address) = match accepted {
            Ok(accepted) => accepted,
            // Of one client, gone before its turn.
            Err(error)
                if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset) =>
            {
                continue;
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections");
                if tokio::time::timeout(ACCEPT_PAUSE, &mut shutdown).await.is_ok() {
                    break;
                }
                continue;
            }
        };
        let entered = match doors.enter(address.ip()) {
            Ok(entered) => entered,
            Err(full) => {
                doors.tell(address.ip(), full, Instant::now());
                shared.options.metrics.refuse(match full {
                    Full::All => Refusal::connections,
                    Full::Peer => Refusal::peer_connections,
                });
                continue;
            }
        };
        if new_connections.as_ref().is_some_and(|limiter| !limiter.admit(Instant::now())) {
            shared.options.metrics.refuse(Refusal::rate);
            continue;
        }
        let place = places.random::<f64>();
        let shared = shared.clone();
        connections.spawn(async move {
            connection::run(shared, socket, address, place).await;
            drop(entered);
        });
    }

    drop(listener);
    tracing::info!(connections = connections.len(), "listening ended");
    shared.stopping.cancel();
    connections.close();
    connections.wait().await;
    Ok(())
}
