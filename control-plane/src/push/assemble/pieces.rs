//! Large work is done in pieces, so that the task that does it can let others run in between.

use std::sync::Arc;

use crate::telemetry::Sample;

use super::super::batch::Batch;
use super::super::directory::Directory;
use super::{Assembler, Backend, KEPT_PAGE_BYTES, SAME_READING_MS};

/// Bytes of pages that are written and read in a piece: some milliseconds of work.
const PIECE_BYTES: usize = 512 * 1024;
/// What a point counts in that.
const POINT_BYTES: usize = 256;
/// Bytes of the pages that one request has written for readings beyond the first of each backend; points after that join the
/// reading that is open, which loses no count. What one backend may have always fits.
const MOST_MORE_BYTES: usize = 64 * 1024 * 1024;

/// A request that is being taken.
#[derive(Debug)]
pub(in super::super) struct Taking {
    batch: Batch,
    /// Who pushes now; the batch may have waited since somebody left.
    newest: Arc<Directory>,
    next: usize,
    more_bytes: usize,
}

impl Taking {
    pub(in super::super) fn is_done(&self) -> bool {
        self.next >= self.batch.points.len() && self.batch.unknown.is_empty()
    }
}

impl Assembler {
    /// Begins with the points of a request.
    pub(in super::super) fn begin(
        &mut self,
        mut batch: Batch,
        newest: Arc<Directory>,
        now_ms: i64,
    ) -> Taking {
        self.look_at_clock(now_ms);
        if let Some(set_back) = self.set_back.filter(|_| batch.decoded_ms > now_ms) {
            // It was decoded before the clock was set back.
            batch.set_back(set_back.at(now_ms));
        }
        batch.sort();
        self.turn += 1;
        Taking { batch, newest, next: 0, more_bytes: 0 }
    }

    /// Takes some of its points; returns the samples of readings that are over.
    pub(in super::super) fn go_on(&mut self, taking: &mut Taking, now_ms: i64) -> Vec<Sample> {
        let Taking { batch, newest, next, more_bytes } = taking;
        let mut samples = Vec::new();
        let directory = Arc::clone(&batch.directory);
        let mut bytes = 0;
        while let Some(point) = batch.points.get(*next) {
            if bytes >= PIECE_BYTES {
                break;
            }
            *next += 1;
            bytes += POINT_BYTES;
            let Some(member) = directory.member(point.member) else { continue };
            let backend = match self.backends.get_mut(&member.address) {
                Some(backend) => backend,
                None => {
                    let Some(member) = newest.same(&directory, member) else { continue };
                    self.backends.entry(Arc::clone(&member.address)).or_insert_with(|| Backend::new(member))
                }
            };
            if let Some(pending) = backend.pending
                && point.at_ms - pending.first_ms >= SAME_READING_MS
                // A reading waits for the other senders until one of those that it has comes again.
                && backend.series.is_in_reading(point)
                && let Some(nth) = backend.may_close(self.turn)
                && (nth == 0 || *more_bytes < MOST_MORE_BYTES)
            {
                let page_bytes = backend.series.page_bytes();
                bytes += page_bytes;
                *more_bytes += if nth == 0 { 0 } else { page_bytes };
                samples.extend(backend.close(pending, now_ms, &mut self.page, &mut self.noticed));
            }
            backend.take(batch, point, now_ms, self.max_series, &mut self.noticed);
        }
        if *next >= batch.points.len() {
            for unknown in batch.unknown.drain(..) {
                let member = directory.member(unknown.member);
                if let Some(backend) = member.and_then(|member| self.backends.get_mut(&member.address)) {
                    backend.watched.note(&unknown, now_ms);
                }
            }
        }
        self.forget_page();
        samples
    }

    /// The backends whose readings have waited for the flush time.
    pub(in super::super) fn due(&mut self, now_ms: i64) -> Vec<Arc<str>> {
        self.look_at_clock(now_ms);
        let flush_ms = self.flush_ms;
        self.open(|since_ms| now_ms - since_ms >= flush_ms)
    }

    /// The backends of which a reading is open.
    pub(in super::super) fn all_open(&self) -> Vec<Arc<str>> {
        self.open(|_| true)
    }

    fn open(&self, is_due: impl Fn(i64) -> bool) -> Vec<Arc<str>> {
        let due = |backend: &Backend| backend.pending.is_some_and(|pending| is_due(pending.since_ms));
        let open = self.backends.iter().filter(|(_, backend)| due(backend));
        open.map(|(address, _)| Arc::clone(address)).collect()
    }

    /// Closes the open readings of some of these backends, which are taken from the list.
    pub(in super::super) fn close_some(&mut self, due: &mut Vec<Arc<str>>, now_ms: i64) -> Vec<Sample> {
        let (mut samples, mut bytes) = (Vec::new(), 0);
        while bytes < PIECE_BYTES
            && let Some(address) = due.pop()
        {
            if let Some(backend) = self.backends.get_mut(&address)
                && let Some(pending) = backend.pending
            {
                bytes += POINT_BYTES + backend.series.page_bytes();
                samples.extend(backend.close(pending, now_ms, &mut self.page, &mut self.noticed));
            }
        }
        self.forget_page();
        samples
    }

    /// Looks at backends that have fallen silent, and at what is wanted of senders.
    pub(in super::super) fn look_around(&mut self, now_ms: i64) {
        self.wants_names = false;
        for backend in self.backends.values_mut() {
            let drifted = backend.look_at_silence(now_ms, self.flush_ms, &mut self.page);
            self.noticed.drift.extend(drifted);
            self.wants_names |= backend.watched.wants_names();
        }
        self.forget_page();
    }

    fn forget_page(&mut self) {
        self.page.clear();
        self.page.shrink_to(KEPT_PAGE_BYTES);
    }
}
