//! Points become samples: pure, with a `now` that is given.
//!
//! Each backend has a state: the newest value of every series that it was told. When newer points come, or when nothing
//! came for the flush time, the series are written as the metrics page that the backend would have shown at that moment,
//! and what follows is what follows on a scrape. So ranks, spellings, units, histograms and unbelievable values are
//! treated alike, however telemetry comes.

mod clock;
mod growth;
mod held;
mod pieces;
mod series;
mod source;
mod watch;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::telemetry::{
    Difference, DriftEvent, Drops, EngineReading, Field, LearnedLimits, Limits, Sample, ScrapeFailure,
    TelemetryFault, difference, read_page,
};

use super::batch::{Batch, Point};
use super::directory::{Directory, Member};

pub(super) use clock::SetBack;
use growth::check_growth;
use series::{Outcome, SeriesTable};
use source::{Moment, Side};
use watch::{Read, SILENCE_MS, SILENT_GAUGE_MS, Watched};

/// Points that are less than this apart are of one reading: senders stamp each series by itself, milliseconds apart.
const SAME_READING_MS: i64 = 500;
/// Most readings that one request closes for a backend; the rest become one: counters lose nothing by it.
const MOST_CLOSED_AT_ONCE: u32 = 16;
/// What is kept of the page's buffer between readings, bytes.
const KEPT_PAGE_BYTES: usize = 64 * 1024;

/// What was noticed while points were put together.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Noticed {
    /// Points that are not newer than what their series has: sent twice, or out of order.
    pub(super) late: u64,
    /// Series that were forgotten because their backend has too many.
    pub(super) evicted: u64,
    /// Backends whose counters went backwards.
    pub(super) restarts: u64,
    /// Values that were not believed.
    pub(super) drops: Drops,
    /// What began or ended to be wrong with backends' telemetry.
    pub(super) drift: Vec<Drifted>,
}

/// What changed about a backend's telemetry with one reading.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Drifted {
    pub(super) backend: Arc<str>,
    /// The time of the reading's sample.
    pub(super) at: DateTime<Utc>,
    pub(super) events: Vec<DriftEvent>,
    /// Why there is no sample, if there is none.
    pub(super) failure: Option<ScrapeFailure>,
}

/// All backends that push.
#[derive(Debug)]
pub(super) struct Assembler {
    backends: HashMap<Arc<str>, Backend>,
    flush_ms: i64,
    max_series: usize,
    /// Number of the request that is taken.
    turn: u64,
    /// The own clock, when it was looked at last.
    clock_ms: i64,
    /// The last time that it was set back.
    set_back: Option<SetBack>,
    page: String,
    pub(super) noticed: Noticed,
    /// Whether names that no engine has are to be taken from requests.
    pub(super) wants_names: bool,
}

#[derive(Debug)]
struct Backend {
    member: Arc<Member>,
    series: SeriesTable,
    pending: Option<Pending>,
    previous: Option<(EngineReading, i64)>,
    learned: LearnedLimits,
    limits: Limits,
    watched: Watched,
    /// The last request that closed readings, and how many.
    closed_in: (u64, u32),
}

/// A reading that is coming in.
#[derive(Clone, Copy, Debug)]
struct Pending {
    /// Time of its first point.
    first_ms: i64,
    /// Time of its newest point.
    newest_ms: i64,
    /// When its first point came, by the own clock.
    since_ms: i64,
    /// When its newest point came.
    heard_ms: i64,
}

impl Assembler {
    pub(super) fn new(flush: Duration, max_series: usize) -> Self {
        Self {
            backends: HashMap::new(),
            flush_ms: i64::try_from(flush.as_millis()).unwrap_or(i64::MAX),
            max_series,
            turn: 0,
            clock_ms: i64::MIN,
            set_back: None,
            page: String::new(),
            noticed: Noticed::default(),
            wants_names: true,
        }
    }

    /// Forgets backends that are not in a directory, or in it as something else.
    pub(super) fn retain(&mut self, directory: &Directory) {
        let members: HashMap<&str, &Arc<Member>> =
            directory.members().iter().map(|member| (member.address.as_ref(), member)).collect();
        self.backends.retain(|address, backend| match members.get(address.as_ref()) {
            Some(member) => {
                backend.member = Arc::clone(member);
                true
            }
            None => false,
        });
    }

    /// How far a backend's engine goes, as of its newest sample.
    pub(super) fn limits(&self, address: &str) -> Limits {
        self.backends.get(address).map(|backend| backend.limits).unwrap_or_default()
    }

    /// What is wrong with a backend's telemetry, as of its newest sample.
    pub(super) fn faults(&self, address: &str) -> Arc<[TelemetryFault]> {
        self.backends.get(address).map(|backend| backend.watched.faults()).unwrap_or_default()
    }

    pub(super) fn backends(&self) -> usize {
        self.backends.len()
    }
}

impl Backend {
    fn new(member: &Arc<Member>) -> Self {
        Self {
            member: Arc::clone(member),
            series: SeriesTable::default(),
            pending: None,
            previous: None,
            learned: LearnedLimits::default(),
            limits: Limits::default(),
            watched: Watched::default(),
            closed_in: (0, 0),
        }
    }

    /// Counts a reading that is to be closed for a request, and says how many were before it; none when these are enough.
    fn may_close(&mut self, turn: u64) -> Option<u32> {
        let closed = if self.closed_in.0 == turn { self.closed_in.1 } else { 0 };
        self.closed_in = (turn, closed.saturating_add(1));
        Some(closed).filter(|closed| *closed < MOST_CLOSED_AT_ONCE)
    }

    fn take(&mut self, batch: &Batch, point: &Point, now_ms: i64, max_series: usize, noticed: &mut Noticed) {
        match self.series.take(batch, point, max_series, now_ms) {
            Outcome::Late => noticed.late += 1,
            Outcome::Taken { evicted } => {
                noticed.evicted += evicted as u64;
                self.watched.asked(batch.wants_unknown);
                // What comes after its reading was closed waits for the next one; its value is not lost.
                if self.previous.as_ref().is_some_and(|(_, closed_ms)| point.at_ms <= *closed_ms) {
                    return;
                }
                let pending = self.pending.get_or_insert(Pending {
                    first_ms: point.at_ms,
                    newest_ms: point.at_ms,
                    since_ms: now_ms,
                    heard_ms: now_ms,
                });
                pending.heard_ms = now_ms;
                pending.newest_ms = pending.newest_ms.max(point.at_ms);
                self.series.join_reading(point);
            }
        }
    }

    fn close(
        &mut self,
        pending: Pending,
        now_ms: i64,
        page: &mut String,
        noticed: &mut Noticed,
    ) -> Option<Sample> {
        self.pending = None;
        let at_ms = pending.newest_ms;
        let moment = Moment { at_ms, heard_ms: pending.heard_ms };
        page.clear();
        self.series.write_page(moment, Side::Now, page);
        let mut read = read_page(page.as_bytes(), &self.member.packs);
        if !self.member.reads_gpu {
            read.reading.clear(Field::GpuUtilisation);
        }
        noticed.drops.merge(&read.drops);
        if read.known_series == 0 {
            return None;
        }
        if let Some((previous, _)) = &mut self.previous
            && self.series.has_changed(moment)
        {
            page.clear();
            self.series.write_page(moment, Side::Before, page);
            *previous = read_page(page.as_bytes(), &self.member.packs).reading;
        }
        let one_restarted = self.series.settle(moment);
        // A sender's clock may be ahead of ours; a sample from the future would look fresh for too long.
        let at = DateTime::from_timestamp_millis(at_ms.min(now_ms))?;
        let previous_ms = self.previous.as_ref().map(|(_, closed_ms)| *closed_ms);
        let previous = self.previous.as_ref().map(|(reading, closed_ms)| {
            (reading, Duration::from_millis(u64::try_from(at_ms - closed_ms).unwrap_or(0)))
        });
        let Difference { mut sample, restarted, drops } =
            difference(Arc::clone(&self.member.address), at, previous, &read.reading);
        noticed.drops.merge(&drops);
        let grown = |field| Some(read.reading.get(field)? - previous?.0.get(field)?);
        check_growth(&mut sample, grown, &mut noticed.drops);
        if restarted || one_restarted {
            noticed.restarts += 1;
            // It may run with other settings now.
            self.learned = LearnedLimits::default();
        }
        self.learned.observe(&sample);
        self.limits = Limits::of(&self.member.limits, &read.reading, &self.learned);
        if previous_ms.is_some_and(|closed_ms| at_ms - closed_ms > SILENCE_MS) {
            self.watched.interrupted();
        }
        self.watched.has_silent_gauge = self.series.has_silent_gauge(at_ms, SILENT_GAUGE_MS);
        let Member { packs, reads_gpu, .. } = &*self.member;
        let seen = Read { page: &read, packs, limits: &self.limits, restarted, reads_gpu: *reads_gpu };
        let events = self.watched.observe(&seen, now_ms, page);
        if !events.is_empty() {
            let backend = Arc::clone(&self.member.address);
            noticed.drift.push(Drifted { backend, at, events, failure: None });
        }
        if let (false, Some((before, _))) = (restarted, &self.previous) {
            read.reading.keep_counters(before);
        }
        self.previous = Some((read.reading, at_ms));
        Some(sample)
    }

    /// A backend that sends nothing known any more may send what it did under other names.
    fn look_at_silence(&mut self, now_ms: i64, flush_ms: i64, page: &mut String) -> Option<Drifted> {
        let closed_ms = self.previous.as_ref().map(|(_, closed_ms)| *closed_ms)?;
        if self.pending.is_some() || now_ms - closed_ms < SILENT_GAUGE_MS {
            return None;
        }
        self.watched.has_silent_gauge = now_ms - closed_ms < 60_000;
        let times = (closed_ms, now_ms, flush_ms);
        let (samples, events) = self.watched.observe_blank(&self.member.packs, &self.limits, times, page)?;
        Some(Drifted {
            backend: Arc::clone(&self.member.address),
            at: DateTime::from_timestamp_millis(now_ms)?,
            events,
            failure: Some(ScrapeFailure::NoKnownMetrics { samples, bad_lines: 0 }),
        })
    }
}

#[cfg(test)]
mod drift_tests;
#[cfg(test)]
mod tests;
