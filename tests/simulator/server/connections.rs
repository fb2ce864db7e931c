//! The port: opened after the cold start, closed by a stop or a kill.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::core::Core;
use super::routes;

/// How long a graceful stop waits for running answers; the grace period that Kubernetes gives by default.
const STOP_LIMIT: Duration = Duration::from_secs(30);
/// Pause after a failed accept, which mostly means that the process has no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Reserves the address without listening: until then a client's connection is refused.
pub(super) fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // With a port from the system this option could give two sockets the same one, as neither listens yet.
    if address.port() != 0 {
        socket.set_reuseaddr(true)?;
    }
    socket.bind(address)?;
    Ok(socket)
}

pub(super) struct Connections {
    core: Arc<Core>,
    stop: CancellationToken,
}

impl Connections {
    pub(super) fn new(core: Arc<Core>, stop: CancellationToken) -> Self {
        Self { core, stop }
    }

    /// Serves until stopped or killed.
    pub(super) async fn serve(self, socket: TcpSocket, load_delay: Duration) {
        let kill = self.core.kill.clone();
        tokio::select! {
            () = tokio::time::sleep(load_delay) => {}
            () = self.core.open.notified() => {}
            () = self.stop.cancelled() => return,
            () = kill.cancelled() => return,
        }
        let listener = match socket.listen(1024) {
            Ok(listener) => listener,
            Err(error) => {
                tracing::error!(%error, "cannot listen");
                kill.cancel();
                return;
            }
        };
        self.core.loaded();
        let mut connections = JoinSet::new();
        tokio::select! {
            () = self.core.drive() => {}
            () = self.accept_until_drained(listener, &mut connections) => {}
            () = kill.cancelled() => {}
        }
        // After a kill each connection resets its socket; after a drain there is none left.
        while connections.join_next().await.is_some() {}
    }

    async fn accept_until_drained(&self, listener: TcpListener, connections: &mut JoinSet<()>) {
        let router = routes::router(Arc::clone(&self.core));
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        let (stop, kill) = (self.stop.clone(), self.core.kill.clone());
                        connections.spawn(connection(stream, router.clone(), stop, kill));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(_) = connections.join_next(), if !connections.is_empty() => {}
                () = self.stop.cancelled() => break,
            }
        }
        drop(listener);
        let drained = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(STOP_LIMIT, drained).await.is_err() {
            tracing::warn!(limit_seconds = STOP_LIMIT.as_secs(), "answers still run; dropping them");
            self.core.kill.cancel();
        }
    }
}

async fn connection(stream: TcpStream, router: Router, stop: CancellationToken, kill: CancellationToken) {
    let _ = stream.set_nodelay(true);
    // A second handle on the socket, as hyper owns the first when the time comes to reset it.
    let Ok(handle) = SockRef::from(&stream).try_clone() else { return };
    let service = TowerToHyperService::new(router);
    let mut connection = pin!(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    let mut stopping = false;
    loop {
        tokio::select! {
            result = connection.as_mut() => {
                if let Err(error) = result {
                    tracing::debug!(%error, "connection ended early");
                }
                return;
            }
            () = stop.cancelled(), if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
            () = kill.cancelled() => {
                // Zero linger: closing sends a reset.
                let _ = handle.set_linger(Some(Duration::ZERO));
                return;
            }
        }
    }
}
