//! HTTP/1.1: connections to Envoy and its admin interface, and servers behind Envoy.

use std::error::Error;
use std::time::Duration;

use ::http::Request;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time;

/// Longer than anything that a test waits for.
const LIMIT: Duration = Duration::from_secs(10);

pub(crate) type Failure = Box<dyn Error + Send + Sync>;

/// A connection that is kept alive.
pub(crate) struct Http {
    sender: SendRequest<Empty<Bytes>>,
}

impl Http {
    pub(crate) async fn connect(port: u16) -> Result<Self, Failure> {
        Self::over(TcpStream::connect(("127.0.0.1", port)).await?).await
    }

    pub(crate) async fn over(
        socket: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> Result<Self, Failure> {
        let (sender, connection) = http1::handshake(TokioIo::new(socket)).await?;
        tokio::spawn(connection);
        Ok(Self { sender })
    }

    /// The status and the body of the answer.
    pub(crate) async fn get(&mut self, path: &str) -> Result<(u16, String), Failure> {
        let request = Request::get(path).header("host", "test").body(Empty::new())?;
        let exchange = async {
            let response = self.sender.send_request(request).await?;
            let status = response.status().as_u16();
            let body = response.into_body().collect().await?.to_bytes();
            Ok((status, String::from_utf8_lossy(&body).into_owned()))
        };
        time::timeout(LIMIT, exchange).await?
    }

    pub(crate) async fn get_once(port: u16, path: &str) -> Result<(u16, String), Failure> {
        Self::connect(port).await?.get(path).await
    }
}

/// Starts a server that answers everything with its name, and returns its port.
pub(crate) async fn origin(name: &str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{name}", name.len());
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                while matches!(socket.read(&mut buffer).await, Ok(n) if n > 0) {
                    let _ = socket.write_all(answer.as_bytes()).await;
                }
            });
        }
    });
    port
}
