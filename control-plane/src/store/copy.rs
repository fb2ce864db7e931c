//! Rows in the binary format of Postgres's COPY.
//!
//! A signature, flags and a header length; for each row the number of fields and each field as a length and a
//! big-endian value, the length −1 for null; at the end −1 in place of a number of fields.
//! Source: the PostgreSQL manual, COPY, "Binary Format".

use chrono::{DateTime, Utc};

const SIGNATURE: &[u8; 11] = b"PGCOPY\n\xff\r\n\0";
const NULL: i32 = -1;
const TRAILER: i16 = -1;
/// 2000-01-01T00:00:00Z, from which Postgres counts, in microseconds since 1970.
const POSTGRES_EPOCH_MICROS: i64 = 946_684_800_000_000;

/// Builds one COPY stream.
#[derive(Debug)]
pub(super) struct CopyRows {
    bytes: Vec<u8>,
    fields: i16,
}

impl CopyRows {
    /// Starts a stream of rows with `fields` fields each, with room for `rows` of them.
    pub(super) fn new(fields: i16, rows: usize) -> Self {
        let width = usize::try_from(fields).unwrap_or(0) * 12 + 2;
        let mut bytes = Vec::with_capacity(32 + rows * width);
        bytes.extend_from_slice(SIGNATURE);
        bytes.extend_from_slice(&0_i32.to_be_bytes());
        bytes.extend_from_slice(&0_i32.to_be_bytes());
        Self { bytes, fields }
    }

    /// Starts a row; exactly as many fields must follow as the stream was made for.
    pub(super) fn row(&mut self) -> &mut Self {
        self.bytes.extend_from_slice(&self.fields.to_be_bytes());
        self
    }

    /// A `timestamptz`.
    pub(super) fn timestamp(&mut self, value: DateTime<Utc>) -> &mut Self {
        self.field(&(value.timestamp_micros() - POSTGRES_EPOCH_MICROS).to_be_bytes())
    }

    /// An `integer`.
    pub(super) fn integer(&mut self, value: i32) -> &mut Self {
        self.field(&value.to_be_bytes())
    }

    /// A `real`. Numbers beyond its range become infinite.
    #[expect(clippy::cast_possible_truncation, reason = "seven digits are enough for a gauge")]
    pub(super) fn real(&mut self, value: f64) -> &mut Self {
        self.field(&(value as f32).to_be_bytes())
    }

    /// A `real` that may be null.
    pub(super) fn real_or_null(&mut self, value: Option<f64>) -> &mut Self {
        match value {
            Some(value) => self.real(value),
            None => self.null(),
        }
    }

    /// A `double precision`.
    pub(super) fn double(&mut self, value: f64) -> &mut Self {
        self.field(&value.to_be_bytes())
    }

    /// A `boolean`.
    pub(super) fn boolean(&mut self, value: bool) -> &mut Self {
        self.field(&[u8::from(value)])
    }

    /// Ends the stream and returns its bytes.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.bytes.extend_from_slice(&TRAILER.to_be_bytes());
        self.bytes
    }

    fn null(&mut self) -> &mut Self {
        self.bytes.extend_from_slice(&NULL.to_be_bytes());
        self
    }

    /// A fixed-size value: at most 8 bytes.
    fn field<const N: usize>(&mut self, value: &[u8; N]) -> &mut Self {
        #[expect(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "N is at most 8")]
        self.bytes.extend_from_slice(&(N as i32).to_be_bytes());
        self.bytes.extend_from_slice(value);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_those_of_the_manual() {
        let mut rows = CopyRows::new(3, 1);
        rows.row()
            .timestamp(DateTime::from_timestamp(946_684_801, 0).unwrap())
            .real_or_null(None)
            .boolean(true);
        let mut expected = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0".to_vec();
        expected.extend_from_slice(&[0, 3]);
        expected.extend_from_slice(&[0, 0, 0, 8, 0, 0, 0, 0, 0, 0x0f, 0x42, 0x40]);
        expected.extend_from_slice(&[0xff, 0xff, 0xff, 0xff]);
        expected.extend_from_slice(&[0, 0, 0, 1, 1]);
        expected.extend_from_slice(&[0xff, 0xff]);
        assert_eq!(rows.finish(), expected);
    }
}
