//! One connection and its streams, on plain HTTP/2.

use std::net::SocketAddr;
use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use h2::SendStream;
use h2::client::{Builder, Connection, ResponseFuture};
use http::{HeaderMap, Request, Version};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

use super::ledger::Ledger;
use crate::protocol::Variant;
use crate::requests::{Requests, Subject};
use crate::resources;
use crate::wire::{Malformed, Messages, Response, any_of_resource, assignment};

/// The windows that Envoy has by default for its own streams.
const STREAM_WINDOW_BYTES: u32 = 16 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 24 << 20;

/// What a stalled connection takes before the kernel tells the server to wait.
const SMALL_BUFFER_BYTES: u32 = 4096;

/// Whether a connection is one of those that stall.
pub(crate) fn is_stallable(connection: usize) -> bool {
    connection % 2 == 1
}

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Connector {
    pub(crate) target: SocketAddr,
    pub(crate) variant: Variant,
    pub(crate) requests: Requests,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) connecting: Arc<Semaphore>,
    pub(crate) stall: watch::Receiver<bool>,
    pub(crate) stallable: bool,
}

impl Connector {
    /// Opens a connection with its streams, and serves it until it is dropped. An end of any other kind is a
    /// failure.
    pub(crate) async fn run(self: Arc<Self>, number: usize, streams: Range<usize>) {
        if let Err(error) = self.connect(number, streams).await {
            self.ledger.fail(format!("{error:#}"));
        }
    }

    async fn connect(self: &Arc<Self>, number: usize, streams: Range<usize>) -> Result<()> {
        let permit = self.connecting.clone().acquire_owned().await?;
        let stalls = self.stallable && is_stallable(number);
        let socket = TcpSocket::new_v4()?;
        if stalls {
            socket.set_recv_buffer_size(SMALL_BUFFER_BYTES)?;
        }
        let tcp = socket.connect(self.target).await.context("cannot connect")?;
        tcp.set_nodelay(true)?;
        let (mut sender, connection) = Builder::new()
            .initial_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .enable_push(false)
            .handshake::<_, Bytes>(tcp)
            .await
            .context("the handshake failed")?;

        // Dropped with this task, and so are the tasks in it.
        let mut tasks = JoinSet::new();
        let stall = stalls.then(|| self.stall.clone());
        tasks.spawn(drive(connection, stall));
        let mut permit = Some(permit);
        for stream in streams {
            sender = sender.ready().await.context("no stream can be opened")?;
            let (response, mut send) = sender.send_request(self.request()?, false)?;
            send.send_data(self.requests.first(stream), false)?;
            let stream = Stream {
                connector: self.clone(),
                number: stream,
                send,
                subscribed: false,
                connecting: permit.take(),
            };
            tasks.spawn(stream.receive(response));
        }
        while let Some(outcome) = tasks.join_next().await {
            outcome??;
        }
        Ok(())
    }

    fn request(&self) -> Result<Request<()>> {
        let method = match self.variant {
            Variant::Delta => "DeltaAggregatedResources",
            Variant::Sotw => "StreamAggregatedResources",
        };
        let service = "envoy.service.discovery.v3.AggregatedDiscoveryService";
        Ok(Request::post(format!("http://{}/{service}/{method}", self.target))
            .version(Version::HTTP_2)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())?)
    }
}

/// Turns a connection; one that can be stalled is left alone meanwhile, so that its socket is not read.
async fn drive(connection: Connection<TcpStream, Bytes>, stall: Option<watch::Receiver<bool>>) -> Result<()> {
    let mut connection = pin!(connection);
    let Some(mut stall) = stall else {
        return connection.await.context("the connection failed");
    };
    loop {
        stall.wait_for(|stalled| !stalled).await?;
        tokio::select! {
            outcome = &mut connection => return outcome.context("the connection failed"),
            stalled = stall.wait_for(|stalled| *stalled) => drop(stalled?),
        }
    }
}

struct Stream {
    connector: Arc<Connector>,
    number: usize,
    send: SendStream<Bytes>,
    subscribed: bool,
    /// Held by the first stream of a connection until its first response.
    connecting: Option<OwnedSemaphorePermit>,
}

impl Stream {
    async fn receive(mut self, response: ResponseFuture) -> Result<()> {
        let response = response.await.context("no response headers")?;
        ended(response.headers())?;
        let mut body = response.into_body();
        let mut messages = Messages::default();
        while let Some(chunk) = body.data().await {
            let chunk = chunk.context("the stream broke")?;
            body.flow_control().release_capacity(chunk.len())?;
            messages.push(&chunk, |message| self.take(message))?;
        }
        if let Some(trailers) = body.trailers().await? {
            ended(&trailers)?;
        }
        bail!("the server ended the stream")
    }

    /// Takes a response as a proxy does: enters it, acknowledges it, and after the first clusters asks for
    /// their endpoints.
    fn take(&mut self, message: &[u8]) -> Result<(), Malformed> {
        self.connecting = None;
        let response = Response::read(message)?;
        let subject = Subject::of(response.type_url).ok_or(Malformed("a type that was not asked for"))?;
        let Connector { ledger, requests, .. } = &*self.connector;
        if subject == Subject::Endpoints {
            let is_delta = self.connector.variant == Variant::Delta;
            let assignments = response.resources().map(|resource| {
                let any = if is_delta { any_of_resource(resource?)? } else { resource? };
                let (name, generation) = assignment(any)?;
                let cluster = resources::number(name).ok_or(Malformed("a name that was not asked for"))?;
                Ok((cluster, generation))
            });
            ledger.enter(self.number, message.len(), assignments)?;
        }
        let ack = requests.ack(subject, response.version, response.nonce);
        self.send.send_data(ack, false).map_err(|_| Malformed("ended before its acknowledgement"))?;
        if subject == Subject::Clusters && !self.subscribed {
            self.subscribed = true;
            let subscribe = requests.subscribe();
            self.send.send_data(subscribe, false).map_err(|_| Malformed("ended before the subscription"))?;
        }
        Ok(())
    }
}

/// An error when the headers or trailers end the stream.
fn ended(headers: &HeaderMap) -> Result<()> {
    let text = |name| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()));
    match text("grpc-status") {
        None => Ok(()),
        Some(status) => bail!("status {status}: {}", text("grpc-message").unwrap_or_default()),
    }
}
