//! A codec whose responses are encoded already.

use bytes::BufMut;
use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use tonic::Status;
use tonic::codec::{Codec, EncodeBuf, Encoder};
use tonic_prost::ProstDecoder;

use crate::encode::EncodedResponse;

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct DeltaCodec;

impl Codec for DeltaCodec {
    type Encode = EncodedResponse;
    type Decode = DeltaDiscoveryRequest;
    type Encoder = ResponseEncoder;
    type Decoder = ProstDecoder<DeltaDiscoveryRequest>;

    fn encoder(&mut self) -> Self::Encoder {
        ResponseEncoder
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstDecoder::default()
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct ResponseEncoder;

impl Encoder for ResponseEncoder {
    type Item = EncodedResponse;
    type Error = Status;

    fn encode(&mut self, response: EncodedResponse, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.reserve(response.len());
        for part in response.parts() {
            buffer.put_slice(part);
        }
        Ok(())
    }
}
