//! Batches of telemetry on disk, while the database does not take them.
//!
//! A folder of segments, `00000000000000000001.spool` and on: eight bytes that name format and version, then records.
//! A record is the length of its payload, its number of rows and a checksum over both and the payload (each 4 bytes,
//! little-endian), and the payload (`record.rs`). Only the newest segment grows; a segment goes when the last of its
//! records is written out. After a restart the records of a segment that was begun are read again, and the identity in
//! each tells the database what it has already.
//!
//! What is appended survives the death of the process at once, and that of the machine after a second, as far as the
//! disk takes it: each second what is new is synced, and a sync that fails is tried again.

mod handle;
mod record;
mod segment;

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(super) use self::handle::SpoolHandle;

use self::record::Framed;
use self::segment::Segment;
use super::EventLevel;
use super::writer::{Batch, SpoolSettings, WriterCounters};

/// A segment is this part of the spool at most, so that dropping one leaves most of it.
const PARTS: u64 = 16;
const LARGEST_SEGMENT: u64 = 16 * 1024 * 1024;
/// How long after an append the disk is waited for.
const SYNC_EVERY: Duration = Duration::from_secs(1);
/// Least time between two words about what was dropped.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// Why the spool cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum SpoolError {
    #[error("cannot use the spool in {dir}: {source}")]
    Open { dir: PathBuf, source: io::Error },
    #[error("the spool in {0} is in use by another process")]
    Locked(PathBuf),
    #[error("cannot write to the spool in {dir}: {source}")]
    Append { dir: PathBuf, source: io::Error },
    #[error("a batch of {bytes} bytes is larger than the spool")]
    TooLarge { bytes: u64 },
    #[error("a batch cannot be encoded: {0}")]
    Encode(#[from] postcard::Error),
    #[error("the task that writes the spool failed: {0}")]
    Task(#[from] tokio::task::JoinError),
}

/// Where a record lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    segment: u64,
    offset: u64,
    bytes: u64,
    rows: u64,
}

/// The oldest batch, still in the spool.
#[derive(Debug)]
pub(super) struct Spooled {
    pub(super) batch: Batch,
    /// Whether a run before left it.
    pub(super) inherited: bool,
    pub(super) position: Position,
}

/// The spool. Every method blocks.
#[derive(Debug)]
struct Spool {
    settings: SpoolSettings,
    segment_bytes: u64,
    /// Oldest first. Only the last one may still grow.
    segments: VecDeque<Segment>,
    next_number: u64,
    /// Segments below this number were there at the start.
    first_own: u64,
    /// The record that is being written out, and whether its segment was dropped meanwhile.
    in_hand: Option<(Position, bool)>,
    /// Whether the folder has names that may not be on the disk yet.
    new_names: bool,
    /// When a trouble with the disk was last told.
    told_trouble: Option<Instant>,
    /// Rows dropped and not told yet, and when the last were told.
    untold: u64,
    told: Option<Instant>,
    counters: Arc<WriterCounters>,
    /// Held as long as the folder is used.
    _lock: File,
}

impl Spool {
    /// Opens the folder, made if missing, and cuts what a run before did not finish writing. A segment that cannot be
    /// read now is an error, which may pass; with `skip_unreadable` it is left alone instead.
    fn open(
        settings: SpoolSettings,
        counters: Arc<WriterCounters>,
        skip_unreadable: bool,
    ) -> Result<Self, SpoolError> {
        let failed = |source| SpoolError::Open { dir: settings.dir.clone(), source };
        fs::create_dir_all(&settings.dir).map_err(failed)?;
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(settings.dir.join("lock"))
            .map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(SpoolError::Locked(settings.dir)),
            Err(fs::TryLockError::Error(error)) => return Err(failed(error)),
        }
        let mut numbers = numbers(&settings.dir).map_err(failed)?;
        numbers.sort_unstable();
        let next_number = numbers.last().map_or(1, |last| last + 1);
        let mut segments = VecDeque::new();
        for number in numbers {
            let (segment, torn) = match Segment::recover(&settings.dir, number) {
                Ok(found) => found,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                // Later batches of the same writer must not come before these.
                Err(error) if error.kind() != io::ErrorKind::InvalidData && !skip_unreadable => {
                    return Err(failed(error));
                }
                Err(error) => {
                    let message =
                        format!("segment {number} of the spool is left alone, it cannot be read: {error}");
                    counters.tell(EventLevel::Error, message);
                    continue;
                }
            };
            if torn.bytes > 0 {
                counters.dropped(torn.rows);
                let message = format!(
                    "the spool ends in the middle of a batch: {} bytes of {} are cut",
                    torn.bytes,
                    segment.path().display()
                );
                counters.tell(EventLevel::Warning, message);
            }
            if segment.is_drained() {
                segment.remove();
            } else {
                segments.push_back(segment);
            }
        }
        let segment_bytes = (settings.max_bytes / PARTS).clamp(1, LARGEST_SEGMENT);
        let mut spool = Self {
            settings,
            segment_bytes,
            segments,
            next_number,
            first_own: next_number,
            in_hand: None,
            new_names: false,
            told_trouble: None,
            untold: 0,
            told: None,
            counters,
            _lock: lock,
        };
        while spool.bytes() > spool.settings.max_bytes && spool.drop_oldest() {}
        let rows = spool.rows();
        if rows > 0 {
            let message = format!("the run before left {rows} rows of telemetry in the spool");
            spool.counters.tell(EventLevel::Info, message);
        }
        spool.publish();
        Ok(spool)
    }

    /// Adds a batch. Where there is no room for it, in the bound or on the disk, the oldest segments are dropped.
    fn append(&mut self, batch: &Batch) -> Result<(), SpoolError> {
        let framed = Framed::encode(batch)?;
        let bytes = framed.bytes.len() as u64 + segment::HEAD_BYTES;
        if bytes > self.settings.max_bytes {
            return Err(SpoolError::TooLarge { bytes });
        }
        while self.bytes() + bytes > self.settings.max_bytes && self.drop_oldest() {}
        let written = loop {
            match self.write(&framed) {
                // A disk that is full is a smaller bound.
                Err(error) if is_full(&error) && self.drop_oldest() => {}
                written => break written,
            }
        };
        self.publish();
        written.map_err(|source| SpoolError::Append { dir: self.settings.dir.clone(), source })?;
        self.counters.spooled(framed.rows);
        Ok(())
    }

    /// Writes a record as a whole or not at all.
    fn write(&mut self, framed: &Framed) -> io::Result<()> {
        let bytes = framed.bytes.len() as u64;
        let fits = |segment: &Segment| segment.grows() && segment.bytes() + bytes <= self.segment_bytes;
        if !self.segments.back().is_some_and(fits) {
            if let Some(last) = self.segments.back_mut() {
                last.finish();
            }
            self.segments.push_back(Segment::create(&self.settings.dir, self.next_number)?);
            self.next_number += 1;
            self.new_names = true;
        }
        let Some(segment) = self.segments.back_mut() else { return Ok(()) };
        if let Err(error) = segment.append(framed) {
            segment.finish();
            if segment.is_drained()
                && let Some(empty) = self.segments.pop_back()
            {
                empty.remove();
            }
            return Err(error);
        }
        Ok(())
    }

    /// Waits until all of it is on the disk. Returns false when it should be tried again.
    fn sync(&mut self) -> bool {
        let mut trouble = None;
        if self.new_names {
            match File::open(&self.settings.dir).and_then(|dir| dir.sync_all()) {
                Ok(()) => self.new_names = false,
                Err(error) => trouble = Some(error),
            }
        }
        for segment in &mut self.segments {
            trouble = segment.sync().err().or(trouble);
        }
        let Some(error) = trouble else { return true };
        self.tell_trouble(format!("the spool may not be on the disk, which is tried again: {error}"));
        false
    }

    fn tell_trouble(&mut self, message: String) {
        if self.told_trouble.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
            self.counters.tell(EventLevel::Error, message);
            self.told_trouble = Some(Instant::now());
        }
    }

    /// Returns the oldest batch, which stays until it is [`done`](Self::done). Segments that are not whole are dropped;
    /// one that cannot be read now stays, and is an error.
    fn oldest(&mut self) -> io::Result<Option<Spooled>> {
        while let Some(segment) = self.segments.front_mut() {
            if segment.is_drained() {
                self.drop_drained();
                continue;
            }
            match segment.read() {
                Ok((batch, position)) => {
                    self.in_hand = Some((position, false));
                    let inherited = position.segment < self.first_own;
                    return Ok(Some(Spooled { batch, inherited, position }));
                }
                Err(error) if !segment::is_damage(&error) => {
                    let path = segment.path().display().to_string();
                    self.tell_trouble(format!(
                        "{path} in the spool cannot be read, which is tried again: {error}"
                    ));
                    return Err(error);
                }
                Err(error) => {
                    let (path, rows) = (segment.path().display().to_string(), segment.rows());
                    let message =
                        format!("{path} in the spool is not whole, {rows} rows are dropped: {error}");
                    self.counters.dropped(rows);
                    self.counters.tell(EventLevel::Error, message);
                    if let Some(segment) = self.segments.pop_front() {
                        segment.remove();
                    }
                }
            }
        }
        self.publish();
        Ok(None)
    }

    /// Forgets a batch that was written out.
    fn done(&mut self, position: Position) {
        self.in_hand = None;
        if let Some(segment) = self.segments.front_mut() {
            segment.advance(position);
            if segment.is_drained() {
                self.drop_drained();
            }
        }
        self.publish();
        if self.segments.is_empty() {
            tracing::info!("the spool of telemetry is written out");
        }
    }

    /// Notes that a batch could not be written out.
    fn keep(&mut self, position: Position) {
        if let Some((_, true)) = self.in_hand.take() {
            self.lost(position.rows);
        }
    }

    fn drop_drained(&mut self) {
        if let Some(segment) = self.segments.pop_front() {
            segment.remove();
        }
    }

    /// Makes room. Returns false when there is nothing left to drop.
    fn drop_oldest(&mut self) -> bool {
        let Some(segment) = self.segments.pop_front() else { return false };
        let mut rows = segment.rows();
        if let Some((position, gone)) = &mut self.in_hand
            && segment.holds(*position)
        {
            // It is lost only if it cannot be written out now.
            *gone = true;
            rows -= position.rows.min(rows);
        }
        segment.remove();
        self.lost(rows);
        true
    }

    fn lost(&mut self, rows: u64) {
        self.counters.dropped(rows);
        self.untold += rows;
        if self.untold > 0 && self.told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
            let message =
                format!("the spool is full: its oldest {} rows of telemetry are dropped", self.untold);
            self.counters.tell(EventLevel::Error, message);
            self.untold = 0;
            self.told = Some(Instant::now());
        }
    }

    fn bytes(&self) -> u64 {
        self.segments.iter().map(Segment::bytes).sum()
    }

    fn rows(&self) -> u64 {
        self.segments.iter().map(Segment::rows).sum()
    }

    fn publish(&self) {
        self.counters.spool_holds(self.rows(), self.bytes());
    }
}

/// The numbers of the segments in a folder.
fn numbers(dir: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(segment::SUFFIX));
        numbers.extend(number.and_then(|number| number.parse::<u64>().ok()));
    }
    Ok(numbers)
}

/// Returns whether there is no room, on the disk or for this user.
fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests;
