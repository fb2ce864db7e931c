use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// A way to an address that can be blocked, as by a network that loses everything: connections stay, and nothing comes
/// through.
#[derive(Debug)]
pub(crate) struct Tunnel {
    pub(crate) address: SocketAddr,
    open: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Tunnel {
    pub(crate) async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (open, is_open) = watch::channel(true);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(connect(client, target, is_open.clone()));
            }
        });
        Self { address, open, task }
    }

    pub(crate) fn block(&self) {
        self.open.send_replace(false);
    }

    pub(crate) fn unblock(&self) {
        self.open.send_replace(true);
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn connect(client: TcpStream, target: SocketAddr, mut is_open: watch::Receiver<bool>) -> Option<()> {
    is_open.wait_for(|open| *open).await.ok()?;
    let server = TcpStream::connect(target).await.ok()?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    // Whichever way ends first ends the other.
    tokio::select! {
        done = forward(from_client, to_server, is_open.clone()) => done,
        done = forward(from_server, to_client, is_open.clone()) => done,
    }
}

async fn forward(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut is_open: watch::Receiver<bool>,
) -> Option<()> {
    let mut bytes = vec![0; 65_536];
    loop {
        let count = from.read(&mut bytes).await.ok().filter(|count| *count > 0)?;
        is_open.wait_for(|open| *open).await.ok()?;
        to.write_all(&bytes[..count]).await.ok()?;
    }
}
