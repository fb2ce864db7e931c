//! The server on a port of the loopback interface, and waiting for what clients do.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use clairvoy_xds::{ServerOptions, Snapshot, SyncState, XdsServer};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;

/// How long a test waits for what must come. A proxy whose request is not answered waits 15 s.
pub(crate) const PATIENCE: Duration = Duration::from_secs(8);

pub(crate) const GROUP: &str = "all";

/// A server with one group, listening.
pub(crate) struct Serving {
    pub(crate) server: XdsServer,
    pub(crate) address: SocketAddr,
    stop: oneshot::Sender<()>,
    listening: JoinHandle<Result<(), tonic::transport::Error>>,
}

impl Serving {
    pub(crate) async fn start(snapshot: Snapshot) -> Self {
        Self::on(([127, 0, 0, 1], 0).into(), snapshot).await
    }

    /// Listens on this address as soon as it is free.
    async fn on(address: SocketAddr, snapshot: Snapshot) -> Self {
        let server = XdsServer::new(ServerOptions::single_group(GROUP));
        server.publish(GROUP, snapshot);
        let mut listener = TcpListener::bind(address).await;
        let deadline = Instant::now() + PATIENCE;
        while listener.is_err() && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(10)).await;
            listener = TcpListener::bind(address).await;
        }
        let listener = listener.expect("the address becomes free");
        let address = listener.local_addr().unwrap();
        let router = tonic::transport::Server::builder().add_routes(server.routes());
        let (stop, stopped) = oneshot::channel();
        let stopped = async { drop(stopped.await) };
        let listening =
            tokio::spawn(router.serve_with_incoming_shutdown(TcpListenerStream::new(listener), stopped));
        Self { server, address, stop, listening }
    }

    /// Ends this server, and starts another one on its address with what this one had.
    pub(crate) async fn restarted(self) -> Self {
        let snapshot = self.server.newest(GROUP).expect("a snapshot was published");
        let _ = self.stop.send(());
        self.server.shutdown();
        tokio::time::timeout(PATIENCE, self.listening).await.expect("the server ends").unwrap().unwrap();
        Self::on(self.address, snapshot).await
    }

    pub(crate) fn publish(&self, snapshot: Snapshot) {
        self.server.publish(GROUP, snapshot);
    }

    /// Waits until every stream has ACKed the newest snapshot.
    pub(crate) async fn in_sync(&self, what: &str) {
        eventually(what, async || {
            let clients = self.server.clients();
            !clients.is_empty() && clients.iter().all(|client| client.sync == SyncState::InSync)
        })
        .await;
    }

    pub(crate) async fn nacked(&self, what: &str) {
        eventually(what, async || {
            self.server.clients().iter().any(|client| client.sync == SyncState::Nacked)
        })
        .await;
    }
}

/// Polls until the condition holds, and tells how long that took.
pub(crate) async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !condition().await {
        assert!(start.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    start.elapsed()
}
