use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::server::TlsStream;

use clairvoy_xds::Tls;

/// Longest time for a handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Handshakes at once; further connections wait in the system's queue.
const MOST_HANDSHAKES: usize = 256;
/// After a failure to accept, as when there are no file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

type Accepted = (TlsStream<TcpStream>, SocketAddr);

/// A listener whose connections have shaken hands: a slow client holds up no other.
#[derive(Debug)]
pub(in crate::run) struct TlsListener {
    accepted: mpsc::Receiver<Accepted>,
    address: SocketAddr,
}

impl TlsListener {
    pub(in crate::run) fn new(listener: TcpListener, tls: Tls) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let (ready, accepted) = mpsc::channel(1);
        tokio::spawn(accept(listener, tls, ready));
        Ok(Self { accepted, address })
    }
}

impl axum::serve::Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> Accepted {
        match self.accepted.recv().await {
            Some(accepted) => accepted,
            // The task that accepts ends after this listener only.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

/// Accepts until nobody wants connections any more.
async fn accept(listener: TcpListener, tls: Tls, ready: mpsc::Sender<Accepted>) {
    let places = Arc::new(Semaphore::new(MOST_HANDSHAKES));
    loop {
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await.ok();
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            () = ready.closed() => return,
            next = next => next,
        };
        let Ok((socket, address)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let (tls, ready) = (tls.clone(), ready.clone());
        tokio::spawn(async move {
            let _ = socket.set_nodelay(true);
            match tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(socket)).await {
                Ok(Ok((stream, _))) => {
                    // Fails when the server has just ended.
                    let _ = ready.send((stream, address)).await;
                }
                Ok(Err(error)) => tracing::debug!(peer.address = %address, %error, "handshake failed"),
                Err(_) => tracing::debug!(peer.address = %address, "no handshake in time"),
            }
            drop(place);
        });
    }
}
