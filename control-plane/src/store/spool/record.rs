use std::collections::HashMap;
use std::sync::Arc;

use chrono::DateTime;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::store::writer::{Batch, BatchId};
use crate::telemetry::Sample;

/// Length, rows and checksum before each payload.
pub(super) const FRAME_BYTES: u64 = 12;

/// What stands before a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) length: u32,
    pub(super) rows: u32,
    checksum: u32,
}

impl Frame {
    fn of(payload: &[u8], rows: u32) -> Option<Self> {
        let length = u32::try_from(payload.len()).ok()?;
        Some(Self { length, rows, checksum: checksum(length, rows, payload) })
    }

    pub(super) fn decode(bytes: [u8; FRAME_BYTES as usize]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = bytes;
        Self {
            length: u32::from_le_bytes([a, b, c, d]),
            rows: u32::from_le_bytes([e, f, g, h]),
            checksum: u32::from_le_bytes([i, j, k, l]),
        }
    }

    pub(super) fn is_of(&self, payload: &[u8]) -> bool {
        checksum(self.length, self.rows, payload) == self.checksum
    }
}

fn checksum(length: u32, rows: u32, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&length.to_le_bytes());
    hasher.update(&rows.to_le_bytes());
    hasher.update(payload);
    hasher.finalize()
}

/// A record as it is written.
#[derive(Debug)]
pub(super) struct Framed {
    pub(super) bytes: Vec<u8>,
    pub(super) rows: u64,
}

impl Framed {
    pub(super) fn encode(batch: &Batch) -> Result<Self, postcard::Error> {
        let payload = postcard::to_allocvec(&Payload::from(batch))?;
        let rows = u32::try_from(batch.samples.len()).map_err(|_| postcard::Error::SerializeBufferFull)?;
        let frame = Frame::of(&payload, rows).ok_or(postcard::Error::SerializeBufferFull)?;
        let mut bytes = Vec::with_capacity(payload.len() + FRAME_BYTES as usize);
        for part in [frame.length, frame.rows, frame.checksum] {
            bytes.extend_from_slice(&part.to_le_bytes());
        }
        bytes.extend_from_slice(&payload);
        Ok(Self { bytes, rows: u64::from(rows) })
    }
}

/// A batch on disk. A change of it or of [`Row`] needs a new version of the segments.
#[derive(Serialize, Deserialize)]
struct Payload {
    writer: [u8; 16],
    number: i64,
    /// Each address once; rows name them by their place.
    backends: Vec<Arc<str>>,
    rows: Vec<Row>,
}

/// A sample, with the precision that the database keeps.
#[derive(Serialize, Deserialize)]
struct Row {
    at_micros: i64,
    backend: u32,
    interval_seconds: f32,
    queue_depth: Option<f32>,
    running: Option<f32>,
    kv_used: Option<f32>,
    kv_used_max: Option<f32>,
    gpu_utilisation: Option<f32>,
    ttft_seconds: Option<f32>,
    ttft_count: f64,
    ttft_p50_seconds: Option<f32>,
    ttft_p95_seconds: Option<f32>,
    inter_token_seconds: Option<f32>,
    inter_token_p95_seconds: Option<f32>,
    queue_wait_seconds: Option<f32>,
    iterations: f32,
    iteration_tokens: f32,
    preempted: f32,
    arrived: f64,
    completed: f64,
    prompt_tokens: f64,
    output_tokens: f64,
    simulated: bool,
}

impl From<&Batch> for Payload {
    fn from(batch: &Batch) -> Self {
        let mut backends: Vec<Arc<str>> = Vec::new();
        let mut places: HashMap<Arc<str>, u32> = HashMap::new();
        let mut rows = Vec::with_capacity(batch.samples.len());
        for sample in &batch.samples {
            let place = *places.entry(Arc::clone(&sample.backend)).or_insert_with(|| {
                backends.push(Arc::clone(&sample.backend));
                u32::try_from(backends.len() - 1).unwrap_or(u32::MAX)
            });
            rows.push(Row::of(sample, place));
        }
        Self { writer: batch.id.writer.into_bytes(), number: batch.id.number, backends, rows }
    }
}

impl TryFrom<&[u8]> for Batch {
    type Error = postcard::Error;

    fn try_from(bytes: &[u8]) -> Result<Self, Self::Error> {
        let payload: Payload = postcard::from_bytes(bytes)?;
        let sample = |row: &Row| row.sample(&payload.backends).ok_or(postcard::Error::SerdeDeCustom);
        Ok(Self {
            id: BatchId { writer: Uuid::from_bytes(payload.writer), number: payload.number },
            samples: payload.rows.iter().map(sample).collect::<Result<_, _>>()?,
        })
    }
}

impl Row {
    #[expect(clippy::cast_possible_truncation, reason = "the database keeps seven digits, too")]
    fn of(sample: &Sample, backend: u32) -> Self {
        let real = |value: Option<f64>| value.map(|value| value as f32);
        Self {
            at_micros: sample.at.timestamp_micros(),
            backend,
            interval_seconds: sample.interval_seconds as f32,
            queue_depth: real(sample.queue_depth),
            running: real(sample.running),
            kv_used: real(sample.kv_used),
            kv_used_max: real(sample.kv_used_max),
            gpu_utilisation: real(sample.gpu_utilisation),
            ttft_seconds: real(sample.ttft_seconds),
            ttft_count: sample.ttft_count,
            ttft_p50_seconds: real(sample.ttft_p50_seconds),
            ttft_p95_seconds: real(sample.ttft_p95_seconds),
            inter_token_seconds: real(sample.inter_token_seconds),
            inter_token_p95_seconds: real(sample.inter_token_p95_seconds),
            queue_wait_seconds: real(sample.queue_wait_seconds),
            iterations: sample.iterations as f32,
            iteration_tokens: sample.iteration_tokens as f32,
            preempted: sample.preempted as f32,
            arrived: sample.arrived,
            completed: sample.completed,
            prompt_tokens: sample.prompt_tokens,
            output_tokens: sample.output_tokens,
            simulated: sample.simulated,
        }
    }

    /// `None` when it names no backend or time.
    fn sample(&self, backends: &[Arc<str>]) -> Option<Sample> {
        let double = |value: Option<f32>| value.map(f64::from);
        Some(Sample {
            at: DateTime::from_timestamp_micros(self.at_micros)?,
            backend: Arc::clone(backends.get(usize::try_from(self.backend).ok()?)?),
            interval_seconds: self.interval_seconds.into(),
            queue_depth: double(self.queue_depth),
            running: double(self.running),
            kv_used: double(self.kv_used),
            kv_used_max: double(self.kv_used_max),
            gpu_utilisation: double(self.gpu_utilisation),
            ttft_seconds: double(self.ttft_seconds),
            ttft_count: self.ttft_count,
            ttft_p50_seconds: double(self.ttft_p50_seconds),
            ttft_p95_seconds: double(self.ttft_p95_seconds),
            inter_token_seconds: double(self.inter_token_seconds),
            inter_token_p95_seconds: double(self.inter_token_p95_seconds),
            queue_wait_seconds: double(self.queue_wait_seconds),
            iterations: self.iterations.into(),
            iteration_tokens: self.iteration_tokens.into(),
            preempted: self.preempted.into(),
            arrived: self.arrived,
            completed: self.completed,
            prompt_tokens: self.prompt_tokens,
            output_tokens: self.output_tokens,
            simulated: self.simulated,
        })
    }
}
