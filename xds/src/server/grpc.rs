//! gRPC messages out of an HTTP body, without a buffer for streams that say nothing.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use http_body::Body as _;
use tonic::Status;
use tonic::body::Body;

/// Flag and length before each message.
const PREFIX: usize = 5;

/// The messages that a client sends.
pub(super) struct Messages {
    body: Body,
    /// The beginning of a message whose rest has not come yet.
    partial: BytesMut,
    limit: usize,
}

impl Messages {
    pub(super) fn new(body: Body, limit: usize) -> Self {
        Self { body, partial: BytesMut::new(), limit }
    }

    /// The next message; `None` when the client has ended its side.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Status>>> {
        loop {
            if let Some(message) = self.take()? {
                return Poll::Ready(Some(Ok(message)));
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.partial.extend_from_slice(&data);
                    }
                }
                Some(Err(status)) => return Poll::Ready(Some(Err(status))),
                None if self.partial.is_empty() => return Poll::Ready(None),
                None => {
                    let status = Status::internal("the stream ended within a message");
                    return Poll::Ready(Some(Err(status)));
                }
            }
        }
    }

    /// A message that is there as a whole.
    fn take(&mut self) -> Result<Option<Bytes>, Status> {
        let Some((prefix, rest)) = self.partial.split_first_chunk::<PREFIX>() else { return Ok(None) };
        let [compressed, length @ ..] = *prefix;
        if compressed != 0 {
            return Err(Status::unimplemented("compressed messages are not taken"));
        }
        let length = u32::from_be_bytes(length) as usize;
        if length > self.limit {
            let limit = self.limit;
            return Err(Status::resource_exhausted(format!(
                "a message of {length} bytes, more than {limit}"
            )));
        }
        if rest.len() < length {
            return Ok(None);
        }
        let mut message = self.partial.split_to(PREFIX + length);
        message.advance(PREFIX);
        if self.partial.is_empty() {
            // Not kept: most streams say something once in minutes.
            self.partial = BytesMut::new();
        }
        Ok(Some(message.freeze()))
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures::stream;
    use http_body_util::StreamBody;
    use proptest::prelude::*;
    use tonic::Code;

    use super::*;

    /// What comes out of these parts, up to the first error.
    fn read(parts: Vec<Vec<u8>>, limit: usize) -> (Vec<Bytes>, Option<Code>) {
        let frames =
            parts.into_iter().map(|part| Ok::<_, Infallible>(http_body::Frame::data(Bytes::from(part))));
        let mut messages = Messages::new(Body::new(StreamBody::new(stream::iter(frames))), limit);
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut all = Vec::new();
        loop {
            match messages.poll_next(&mut cx) {
                Poll::Ready(Some(Ok(message))) => all.push(message),
                Poll::Ready(Some(Err(status))) => return (all, Some(status.code())),
                Poll::Ready(None) => return (all, None),
                Poll::Pending => panic!("all is there"),
            }
        }
    }

    fn framed(message: &[u8]) -> Vec<u8> {
        let length = (message.len() as u32).to_be_bytes();
        [&[0], &length[..], message].concat()
    }

    proptest! {
        #[test]
        fn t5_messages_come_whole_however_they_are_cut(
            messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..8),
            cut in 1..20_usize,
        ) {
            let bytes: Vec<u8> = messages.iter().flat_map(|message| framed(message)).collect();
            let parts = bytes.chunks(cut).map(<[u8]>::to_vec).collect();
            let (read, error) = read(parts, 100);
            prop_assert_eq!(error, None);
            prop_assert_eq!(read.iter().map(|m| m.to_vec()).collect::<Vec<_>>(), messages);
        }

        #[test]
        fn t5_no_bytes_do_harm(parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..8)) {
            read(parts, 100);
        }
    }

    #[test]
    fn t5_what_cannot_be_read_is_named() {
        assert_eq!(read(vec![framed(&[0; 101])], 100).1, Some(Code::ResourceExhausted));
        assert_eq!(read(vec![vec![1, 0, 0, 0, 0]], 100).1, Some(Code::Unimplemented));
        assert_eq!(read(vec![vec![0, 0, 0, 0, 3, 1]], 100).1, Some(Code::Internal));
    }
}
