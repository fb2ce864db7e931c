//! A service that says who came, and its client.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clairvoy_xds::{Connection, ServeError, TransportMetrics, TransportOptions, serve};
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use futures::Stream as _;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status, Streaming};

pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// What the streams of a [`Toy`] do after they have greeted their client.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// End with `UNAVAILABLE` when the connection is to drain.
    HeedDrain,
    /// Go on whatever happens.
    Stay,
    /// Send as much as the client takes.
    Flood,
}

/// Greets every stream with the address of its client as nonce.
#[derive(Clone)]
pub(crate) struct Toy {
    manner: Manner,
    seen: Arc<Seen>,
}

#[derive(Default)]
pub(crate) struct Seen {
    connections: Mutex<Vec<Connection>>,
    open: AtomicUsize,
}

impl Seen {
    pub(crate) fn open_streams(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    /// The identities of the client of the last stream.
    pub(crate) fn last_identities(&self) -> Vec<String> {
        self.connections.lock().unwrap().last().unwrap().peer.identities.clone()
    }
}

struct OpenStream(Arc<Seen>);

impl OpenStream {
    fn new(seen: &Arc<Seen>) -> Self {
        seen.open.fetch_add(1, Ordering::SeqCst);
        Self(seen.clone())
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

type Responses<T> = Pin<Box<dyn futures::Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl AggregatedDiscoveryService for Toy {
    type StreamAggregatedResourcesStream = Responses<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Responses<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        _: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        Err(Status::unimplemented("delta only"))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let open = OpenStream::new(&self.seen);
        let connection = request.extensions().get::<Connection>().unwrap().clone();
        assert_eq!(request.remote_addr(), Some(connection.peer.address));
        self.seen.connections.lock().unwrap().push(connection.clone());
        let (responses, outgoing) = mpsc::channel(1);
        tokio::spawn(converse(self.manner, connection, request.into_inner(), responses, open));
        Ok(Response::new(Box::pin(ReceiverStream::new(outgoing))))
    }
}

async fn converse(
    manner: Manner,
    connection: Connection,
    mut requests: Streaming<DeltaDiscoveryRequest>,
    responses: mpsc::Sender<Result<DeltaDiscoveryResponse, Status>>,
    _open: OpenStream,
) {
    let Ok(Some(_)) = requests.message().await else { return };
    let nonce = connection.peer.address.to_string();
    let _ = responses.send(Ok(DeltaDiscoveryResponse { nonce, ..Default::default() })).await;
    let flood = async {
        let response = DeltaDiscoveryResponse { nonce: "x".repeat(16 << 10), ..Default::default() };
        while responses.send(Ok(response.clone())).await.is_ok() {}
    };
    tokio::select! {
        () = connection.drain.cancelled(), if manner == Manner::HeedDrain => {
            let _ = responses.send(Err(Status::unavailable("go elsewhere"))).await;
        }
        _ = requests.message() => {}
        () = responses.closed() => {}
        () = flood, if manner == Manner::Flood => {}
    }
}

/// A server with a [`Toy`].
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) seen: Arc<Seen>,
    pub(crate) metrics: TransportMetrics,
    pub(crate) stop: CancellationToken,
    pub(crate) served: JoinHandle<Result<(), ServeError>>,
}

pub(crate) async fn start(manner: Manner, options: TransportOptions) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (seen, metrics, stop) =
        (Arc::new(Seen::default()), options.metrics.clone(), CancellationToken::new());
    let toy = Toy { manner, seen: seen.clone() };
    let routes = Routes::new(AggregatedDiscoveryServiceServer::new(toy).max_decoding_message_size(64 << 20));
    let served = tokio::spawn(serve(listener, routes, options, stop.clone().cancelled_owned()));
    Running { address, seen, metrics, stop, served }
}

/// A connection of its own.
pub(crate) async fn connect(address: SocketAddr) -> Channel {
    Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap()
}

/// A stream of a client.
pub(crate) struct Stream {
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    responses: Streaming<DeltaDiscoveryResponse>,
}

impl Stream {
    pub(crate) async fn open(channel: &Channel) -> Result<Self, Status> {
        Self::open_with(channel, DeltaDiscoveryRequest::default()).await
    }

    pub(crate) async fn open_with(channel: &Channel, first: DeltaDiscoveryRequest) -> Result<Self, Status> {
        let (requests, outgoing) = mpsc::channel(1);
        requests.send(first).await.unwrap();
        let mut client = AggregatedDiscoveryServiceClient::new(channel.clone());
        let call = client.delta_aggregated_resources(ReceiverStream::new(outgoing));
        let responses = tokio::time::timeout(PATIENCE, call).await.expect("an answer in time")?;
        Ok(Self { requests, responses: responses.into_inner() })
    }

    /// A stream that was greeted, and the address that its connection has.
    pub(crate) async fn greeted(channel: &Channel) -> (Self, String) {
        let mut stream = Self::open(channel).await.unwrap();
        let address = stream.greeting().await;
        (stream, address)
    }

    pub(crate) async fn greeting(&mut self) -> String {
        self.next().await.nonce
    }

    pub(crate) async fn next(&mut self) -> DeltaDiscoveryResponse {
        let response = tokio::time::timeout(PATIENCE, self.responses.message()).await;
        response.expect("an answer in time").unwrap().unwrap()
    }

    pub(crate) async fn send(&mut self, request: DeltaDiscoveryRequest) {
        self.requests.send(request).await.unwrap();
    }

    /// How the stream ends.
    pub(crate) async fn end(&mut self) -> Result<(), Status> {
        let end = async {
            while self.responses.message().await?.is_some() {}
            Ok(())
        };
        tokio::time::timeout(PATIENCE, end).await.expect("an end in time")
    }

    /// Ends the sending side and waits for the end.
    pub(crate) async fn finish(mut self) -> Result<(), Status> {
        let (closed, _) = mpsc::channel(1);
        drop(std::mem::replace(&mut self.requests, closed));
        self.end().await
    }

    /// True while nothing came.
    pub(crate) fn is_quiet(&mut self) -> bool {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        Pin::new(&mut self.responses).poll_next(&mut context).is_pending()
    }
}

/// Polls until the condition holds.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
