use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use crate::store::writer::Batch;

use super::Position;
use super::record::{FRAME_BYTES, Frame, Framed};

pub(super) const SUFFIX: &str = ".spool";
/// Names the format and, at the end, its version.
const HEAD: &[u8; 8] = b"CLVSPL\0\x01";
pub(super) const HEAD_BYTES: u64 = HEAD.len() as u64;

/// What was cut off a segment because it was not whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Torn {
    pub(super) bytes: u64,
    /// As far as they are known.
    pub(super) rows: u64,
}

/// One file of the spool.
#[derive(Debug)]
pub(super) struct Segment {
    number: u64,
    path: PathBuf,
    /// Length up to the end of the last whole record.
    bytes: u64,
    /// Where the oldest record begins that was not written out.
    read: u64,
    /// Rows from there on.
    rows: u64,
    file: File,
    grows: bool,
}

impl Segment {
    /// Makes an empty one.
    pub(super) fn create(dir: &Path, number: u64) -> io::Result<Self> {
        let path = path(dir, number);
        let mut file = File::options().read(true).append(true).create_new(true).open(&path)?;
        if let Err(error) = file.write_all(HEAD) {
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        Ok(Self { number, path, bytes: HEAD_BYTES, read: HEAD_BYTES, rows: 0, file, grows: true })
    }

    /// Opens one that a process before has left, and cuts what is not whole at its end.
    pub(super) fn recover(dir: &Path, number: u64) -> io::Result<(Self, Torn)> {
        let path = path(dir, number);
        let file = File::options().read(true).write(true).open(&path)?;
        let length = file.metadata()?.len();
        let mut segment =
            Self { number, path, bytes: HEAD_BYTES, read: HEAD_BYTES, rows: 0, file, grows: false };
        let mut head = [0; HEAD.len()];
        if length < HEAD_BYTES {
            return Ok((segment, Torn { bytes: length, rows: 0 }));
        }
        segment.file.read_exact_at(&mut head, 0)?;
        if head != *HEAD {
            let message = format!("{} is of another version", segment.path.display());
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        let mut torn = Torn { bytes: length - HEAD_BYTES, rows: 0 };
        while torn.bytes > 0 {
            let Ok(frame) = segment.frame_at(segment.bytes) else { break };
            let end = segment.bytes + FRAME_BYTES + u64::from(frame.length);
            let is_whole =
                end < length || (end == length && segment.payload_at(segment.bytes, &frame).is_ok());
            if !is_whole {
                torn.rows = u64::from(frame.rows);
                break;
            }
            segment.bytes = end;
            segment.rows += u64::from(frame.rows);
            torn.bytes = length - end;
        }
        if torn.bytes > 0 {
            segment.file.set_len(segment.bytes)?;
        }
        Ok((segment, torn))
    }

    /// Writes a record as a whole, or leaves the segment as it was.
    pub(super) fn append(&mut self, framed: &Framed) -> io::Result<()> {
        if let Err(error) = self.file.write_all(&framed.bytes) {
            self.file.set_len(self.bytes)?;
            return Err(error);
        }
        self.bytes += framed.bytes.len() as u64;
        self.rows += framed.rows;
        Ok(())
    }

    /// Waits until all of it is on the disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Has it grow no more.
    pub(super) fn finish(&mut self) {
        if std::mem::take(&mut self.grows)
            && let Err(error) = self.sync()
        {
            tracing::warn!(%error, path = %self.path.display(), "a segment of the spool may not be on the disk");
        }
    }

    /// Reads the oldest record that was not written out.
    pub(super) fn read(&self) -> io::Result<(Batch, Position)> {
        let frame = self.frame_at(self.read)?;
        let payload = self.payload_at(self.read, &frame)?;
        let batch = Batch::try_from(payload.as_slice())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
        let position = Position {
            segment: self.number,
            offset: self.read,
            bytes: FRAME_BYTES + u64::from(frame.length),
            rows: u64::from(frame.rows),
        };
        Ok((batch, position))
    }

    /// Goes on behind a record, if it is the oldest one here.
    pub(super) fn advance(&mut self, position: Position) {
        if self.holds(position) && position.offset == self.read {
            self.read += position.bytes;
            self.rows -= position.rows.min(self.rows);
        }
    }

    pub(super) fn holds(&self, position: Position) -> bool {
        position.segment == self.number
    }

    /// Deletes the file.
    pub(super) fn remove(self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "cannot remove a segment of the spool");
        }
    }

    pub(super) fn is_drained(&self) -> bool {
        self.read >= self.bytes
    }

    pub(super) fn grows(&self) -> bool {
        self.grows
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn frame_at(&self, offset: u64) -> io::Result<Frame> {
        let mut frame = [0; FRAME_BYTES as usize];
        self.file.read_exact_at(&mut frame, offset)?;
        Ok(Frame::decode(frame))
    }

    fn payload_at(&self, offset: u64, frame: &Frame) -> io::Result<Vec<u8>> {
        let mut payload = vec![0; frame.length as usize];
        self.file.read_exact_at(&mut payload, offset + FRAME_BYTES)?;
        if frame.is_of(&payload) {
            return Ok(payload);
        }
        Err(io::Error::new(io::ErrorKind::InvalidData, format!("wrong checksum at byte {offset}")))
    }
}

fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:020}{SUFFIX}"))
}
