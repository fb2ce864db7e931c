//! A client that sends any bytes as messages.

use bytes::{Buf, BufMut, Bytes};
use http::uri::PathAndQuery;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};

use super::PATIENCE;

pub(crate) struct RawClient {
    requests: mpsc::Sender<Bytes>,
    responses: Streaming<Bytes>,
}

impl RawClient {
    pub(crate) async fn open(channel: Channel, path: &'static str) -> Result<Self, Status> {
        let (requests, outgoing) = mpsc::channel(256);
        let mut grpc = Grpc::new(channel);
        grpc.ready().await.unwrap();
        let outgoing = Request::new(ReceiverStream::new(outgoing));
        let responses = grpc.streaming(outgoing, PathAndQuery::from_static(path), Plain).await?.into_inner();
        Ok(Self { requests, responses })
    }

    /// False when the stream has ended.
    pub(crate) async fn send(&mut self, message: Bytes) -> bool {
        self.requests.send(message).await.is_ok()
    }

    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        tokio::time::timeout(PATIENCE, self.responses.message()).await.expect("an answer in time")
    }

    /// Ends the sending side, and gives how many responses still came and how the stream ended.
    pub(crate) async fn finish(mut self) -> (usize, Result<(), Status>) {
        let (closed, _) = mpsc::channel(1);
        drop(std::mem::replace(&mut self.requests, closed));
        let mut responses = 0;
        loop {
            match self.next().await {
                Ok(Some(_)) => responses += 1,
                Ok(None) => return (responses, Ok(())),
                Err(status) => return (responses, Err(status)),
            }
        }
    }
}

/// Messages as they are.
struct Plain;

impl Codec for Plain {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put(item);
        Ok(())
    }
}

impl Decoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        let length = from.remaining();
        Ok(Some(from.copy_to_bytes(length)))
    }
}
