//! A codec that leaves messages encoded.

use std::marker::PhantomData;

use bytes::{Buf, Bytes};
use prost::Message;
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder};
use tonic_prost::ProstEncoder;

/// Requests as they came, responses of the type `R`.
#[derive(Clone, Copy, Debug)]
pub(super) struct EncodedRequests<R>(PhantomData<R>);

impl<R> Default for EncodedRequests<R> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<R: Message + 'static> Codec for EncodedRequests<R> {
    type Encode = R;
    type Decode = Bytes;
    type Encoder = ProstEncoder<R>;
    type Decoder = AsItCame;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::default()
    }

    fn decoder(&mut self) -> Self::Decoder {
        AsItCame
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct AsItCame;

impl Decoder for AsItCame {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        // Splits the stream's buffer: no copy.
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}

/// What a stream ends with whose bytes are no message.
pub(super) fn no_message(error: prost::DecodeError) -> Status {
    Status::invalid_argument(error.to_string())
}
