//! Bodies: read within a time, within a length, and within the memory that all of them share, with what is decoded of them.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, header};
use bytes::{Buf, Bytes};
use flate2::read::MultiGzDecoder;
use http_body::Body;
use http_body_util::BodyExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use super::refusal::RequestRefusal;

const NO_MEMORY: RequestRefusal = RequestRefusal::Busy("too many bytes of other requests are in memory");
/// Steps in which inflated bytes are reserved.
const STEP: usize = 64 * 1024;

/// The limits of bodies.
#[derive(Clone, Debug)]
pub(super) struct BodyLimits {
    pub(super) max_bytes: usize,
    pub(super) deadline: Duration,
    /// One permit for each byte that is held.
    pub(super) memory: Arc<Semaphore>,
}

/// A body, and its part of the memory that all of them share.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) bytes: Bytes,
    memory: Option<OwnedSemaphorePermit>,
}

#[cfg(test)]
impl Held {
    /// A body that was read.
    pub(super) fn of(bytes: Bytes) -> Self {
        Self { bytes, memory: None }
    }
}

/// How the bytes of a body are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packing {
    Plain,
    Gzip,
    Snappy,
}

impl Packing {
    /// Reads the header; several packings on each other are not supported.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, RequestRefusal> {
        let Some(value) = headers.get(header::CONTENT_ENCODING) else { return Ok(Self::Plain) };
        match value.to_str().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
            "" | "identity" => Ok(Self::Plain),
            "gzip" => Ok(Self::Gzip),
            "snappy" => Ok(Self::Snappy),
            other => {
                let shown: String = other.chars().take(40).collect();
                Err(RequestRefusal::Unsupported(format!("content encoding {shown:?} is not supported")))
            }
        }
    }
}

impl BodyLimits {
    /// Takes so many bytes more of the memory that all requests share.
    pub(super) fn reserve(
        &self,
        held: &mut Option<OwnedSemaphorePermit>,
        bytes: usize,
    ) -> Result<(), RequestRefusal> {
        let count = u32::try_from(bytes).map_err(|_| NO_MEMORY)?;
        let more = Arc::clone(&self.memory).try_acquire_many_owned(count).map_err(|_| NO_MEMORY)?;
        match held {
            Some(permit) => permit.merge(more),
            None => *held = Some(more),
        }
        Ok(())
    }

    fn too_large(&self) -> RequestRefusal {
        RequestRefusal::TooLarge { limit: self.max_bytes }
    }

    /// Reads a body to its end.
    pub(super) async fn read<B>(&self, headers: &HeaderMap, mut body: B) -> Result<Held, RequestRefusal>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let said = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        if said.is_some_and(|said: u64| said > self.max_bytes as u64) {
            return Err(self.too_large());
        }
        let end = Instant::now() + self.deadline;
        let mut chunks: Vec<Bytes> = Vec::new();
        let (mut length, mut memory) = (0, None);
        loop {
            let frame = timeout_at(end, body.frame()).await;
            let Some(frame) = frame.map_err(|_| RequestRefusal::TooSlow(self.deadline))? else { break };
            let Ok(chunk) = frame.map_err(|_| RequestRefusal::Broken)?.into_data() else { continue };
            length += chunk.len();
            if length > self.max_bytes {
                return Err(self.too_large());
            }
            // Tiny chunks cost more than their bytes.
            self.reserve(&mut memory, chunk.len() + size_of::<Bytes>())?;
            chunks.push(chunk);
        }
        let bytes = match chunks.len() {
            0 => Bytes::new(),
            1 => chunks.swap_remove(0),
            _ => {
                self.reserve(&mut memory, length)?;
                let mut whole = Vec::with_capacity(length);
                chunks.into_iter().for_each(|chunk| whole.extend_from_slice(chunk.chunk()));
                whole.into()
            }
        };
        Ok(Held { bytes, memory })
    }

    /// Unpacks a body; what it grows to is limited like the body itself.
    pub(super) fn unpack(&self, held: Held, packing: Packing) -> Result<Held, RequestRefusal> {
        match packing {
            Packing::Plain => Ok(held),
            Packing::Gzip => self.gunzip(held),
            Packing::Snappy => self.unsnap(held),
        }
    }

    fn gunzip(&self, held: Held) -> Result<Held, RequestRefusal> {
        let Held { bytes, mut memory } = held;
        let mut reader = MultiGzDecoder::new(bytes.as_ref());
        let mut inflated = Vec::new();
        loop {
            self.reserve(&mut memory, STEP)?;
            let read = reader.by_ref().take(STEP as u64).read_to_end(&mut inflated);
            let read = read.map_err(|error| RequestRefusal::Malformed(format!("no gzip: {error}")))?;
            if inflated.len() > self.max_bytes {
                return Err(self.too_large());
            }
            if read == 0 {
                return Ok(Held { bytes: inflated.into(), memory });
            }
        }
    }

    fn unsnap(&self, held: Held) -> Result<Held, RequestRefusal> {
        let Held { bytes, mut memory } = held;
        let malformed = |error: snap::Error| RequestRefusal::Malformed(format!("no snappy block: {error}"));
        let length = snap::raw::decompress_len(&bytes).map_err(malformed)?;
        if length > self.max_bytes {
            return Err(self.too_large());
        }
        self.reserve(&mut memory, length)?;
        let inflated = snap::raw::Decoder::new().decompress_vec(&bytes).map_err(malformed)?;
        Ok(Held { bytes: inflated.into(), memory })
    }
}
