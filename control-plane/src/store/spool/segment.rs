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
    /// Open while it grows or is read.
    file: Option<File>,
    grows: bool,
    /// Whether some of it may not be on the disk yet.
    dirty: bool,
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
        Ok(Self {
            number,
            path,
            bytes: HEAD_BYTES,
            read: HEAD_BYTES,
            rows: 0,
            file: Some(file),
            grows: true,
            dirty: true,
        })
    }

    /// Opens one that a process before has left, and cuts what is not whole at its end.
    ///
    /// An error of the kind `InvalidData` means that it is no segment of this version; others may pass.
    pub(super) fn recover(dir: &Path, number: u64) -> io::Result<(Self, Torn)> {
        let path = path(dir, number);
        let mut segment = Self {
            number,
            path,
            bytes: HEAD_BYTES,
            read: HEAD_BYTES,
            rows: 0,
            file: None,
            grows: false,
            dirty: false,
        };
        let torn = segment.find_records()?;
        segment.file = None;
        Ok((segment, torn))
    }

    fn find_records(&mut self) -> io::Result<Torn> {
        let file = opened(&mut self.file, &self.path)?;
        let length = file.metadata()?.len();
        let mut head = [0; HEAD.len()];
        if length < HEAD_BYTES {
            return Ok(Torn { bytes: length, rows: 0 });
        }
        file.read_exact_at(&mut head, 0)?;
        if head != *HEAD {
            let message = format!("{} is of another version", self.path.display());
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        let mut torn = Torn { bytes: length - HEAD_BYTES, rows: 0 };
        while torn.bytes > 0 {
            let Some(frame) = if_whole(frame_at(file, self.bytes))? else { break };
            let end = self.bytes + FRAME_BYTES + u64::from(frame.length);
            let is_whole =
                end < length || (end == length && if_whole(payload_at(file, self.bytes, &frame))?.is_some());
            if !is_whole {
                torn.rows = u64::from(frame.rows);
                break;
            }
            self.bytes = end;
            self.rows += u64::from(frame.rows);
            torn.bytes = length - end;
        }
        if torn.bytes > 0 {
            file.set_len(self.bytes)?;
        }
        Ok(torn)
    }

    /// Writes a record as a whole, or leaves the segment as it was.
    pub(super) fn append(&mut self, framed: &Framed) -> io::Result<()> {
        let mut file = opened(&mut self.file, &self.path)?;
        if let Err(error) = file.write_all(&framed.bytes) {
            file.set_len(self.bytes)?;
            return Err(error);
        }
        self.dirty = true;
        self.bytes += framed.bytes.len() as u64;
        self.rows += framed.rows;
        Ok(())
    }

    /// Waits until all of it is on the disk.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        if self.dirty {
            opened(&mut self.file, &self.path)?.sync_data()?;
            self.dirty = false;
            if !self.grows {
                self.file = None;
            }
        }
        Ok(())
    }

    /// Has it grow no more. A large spool has more segments than a process may have open files.
    pub(super) fn finish(&mut self) {
        self.grows = false;
        // What fails here is tried again, and told, with the next sync of the spool.
        let _ = self.sync();
        self.file = None;
    }

    /// Reads the oldest record that was not written out.
    pub(super) fn read(&mut self) -> io::Result<(Batch, Position)> {
        let file = opened(&mut self.file, &self.path)?;
        let frame = frame_at(file, self.read)?;
        if self.read + FRAME_BYTES + u64::from(frame.length) > self.bytes {
            return Err(wrong(self.read));
        }
        let payload = payload_at(file, self.read, &frame)?;
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

    #[cfg(test)]
    pub(super) fn is_open(&self) -> bool {
        self.file.is_some()
    }
}

/// Whether an error says that what was read is wrong or gone, so that reading it again is of no use.
pub(super) fn is_damage(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidData, NotFound, UnexpectedEof};
    matches!(error.kind(), InvalidData | NotFound | UnexpectedEof)
}

/// Tells what is not whole from what cannot be read.
fn if_whole<T>(read: io::Result<T>) -> io::Result<Option<T>> {
    match read {
        Ok(found) => Ok(Some(found)),
        Err(error) if is_damage(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn opened<'a>(file: &'a mut Option<File>, path: &Path) -> io::Result<&'a File> {
    match file {
        Some(file) => Ok(file),
        None => Ok(file.insert(File::options().read(true).append(true).open(path)?)),
    }
}

fn frame_at(file: &File, offset: u64) -> io::Result<Frame> {
    let mut frame = [0; FRAME_BYTES as usize];
    file.read_exact_at(&mut frame, offset)?;
    Ok(Frame::decode(frame))
}

fn payload_at(file: &File, offset: u64, frame: &Frame) -> io::Result<Vec<u8>> {
    let mut payload = vec![0; frame.length as usize];
    file.read_exact_at(&mut payload, offset + FRAME_BYTES)?;
    if frame.is_of(&payload) {
        return Ok(payload);
    }
    Err(wrong(offset))
}

fn wrong(offset: u64) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("wrong checksum at byte {offset}"))
}

fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:020}{SUFFIX}"))
}
