//! The recorder: writes down in which order the controller took its inputs, and now and then all that it remembers, so
//! that `replay` can go the same way. Telemetry itself is in the database already; a page only names its samples.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use crate::learn::Insight;
use crate::packed::packed;
use crate::store::{CheckpointRow, PageRow};

use super::control::{Core, Input, Pending};
use super::page::{Mark, Page};

/// Time between two checkpoints, seconds.
const CHECKPOINT_EVERY_SECONDS: i64 = 3600;
/// The same after something that the inputs do not tell: a learner that drops lessons must not be given more to do.
const MEND_AFTER_SECONDS: i64 = 60;
/// Backends of which the learner's models are kept in a checkpoint: 100 KiB each, before they are packed. A larger fleet
/// has none, and is replayed without what was learned.
const MOST_BACKENDS: usize = 2000;

/// What was taken in since the last tick, and the checkpoint that waits for the learner.
pub(super) struct Recorder {
    run: Uuid,
    sequence: i64,
    page: Page,
    numbers: BTreeMap<Arc<str>, u32>,
    waits: u32,
    forecasts: u32,
    signs: u32,
    waiting: Option<Waiting>,
    checkpoint_at: Option<DateTime<Utc>>,
    /// Whether the inputs since the last checkpoint do not tell everything.
    is_broken: bool,
    /// Checkpoints that were dropped, one after the other.
    dropped: u32,
}

/// A checkpoint of which the learner's part is still to come.
struct Waiting {
    sequence: i64,
    at: DateTime<Utc>,
    core: Vec<u8>,
    pending: Vec<Pending>,
}

impl Recorder {
    pub(super) fn new(now: DateTime<Utc>) -> Self {
        Self {
            run: Uuid::now_v7(),
            sequence: 0,
            page: Page::since(now),
            numbers: BTreeMap::new(),
            waits: 0,
            forecasts: 0,
            signs: 0,
            waiting: None,
            checkpoint_at: None,
            is_broken: false,
            dropped: 0,
        }
    }

    /// Notes an input, just before the core takes it.
    pub(super) fn input(&mut self, input: &Input) {
        if input.evaluates() {
            self.insights();
        }
        let mark = match input {
            Input::Sample { at, sample } => {
                let next = u32::try_from(self.numbers.len()).unwrap_or(u32::MAX);
                let number = *self.numbers.entry(Arc::clone(&sample.backend)).or_insert(next);
                if number == next {
                    self.page.backends.push(sample.backend.to_string());
                }
                let since =
                    |time: DateTime<Utc>| (time - self.page.since).num_microseconds().unwrap_or(i64::MAX);
                Mark::Sample(number, since(sample.at), since(*at))
            }
            other => Mark::Input(other.as_recorded()),
        };
        self.page.marks.push(mark);
    }

    /// Notes that the core takes a finding.
    pub(super) fn insight(&mut self, insight: &Insight) {
        let Some(pending) = Pending::of(insight) else { return };
        match &pending {
            Pending::Wait(..) => self.waits += 1,
            Pending::Forecast(..) => self.forecasts += 1,
            Pending::Signs(..) => self.signs += 1,
        }
        if let Some(waiting) = &mut self.waiting {
            waiting.pending.push(pending);
        }
    }

    /// Notes that the inputs alone do not tell what followed, until the next checkpoint.
    pub(super) fn broken(&mut self) {
        self.page.broken = true;
        self.is_broken = true;
    }

    /// The page that ends with the process, when that stops in order.
    pub(super) fn finish(&mut self, now: DateTime<Utc>) -> Option<PageRow> {
        self.page.last = true;
        self.cut(now)
    }

    /// The page that ends with a tick.
    pub(super) fn cut(&mut self, now: DateTime<Utc>) -> Option<PageRow> {
        self.insights();
        let page = std::mem::replace(&mut self.page, Page::since(now));
        self.numbers.clear();
        self.sequence += 1;
        Some(PageRow {
            run: self.run,
            sequence: self.sequence,
            at: now,
            page: serde_json::to_string(&page).ok()?,
        })
    }

    fn insights(&mut self) {
        let [waits, forecasts, signs] =
            [&mut self.waits, &mut self.forecasts, &mut self.signs].map(std::mem::take);
        if waits + forecasts + signs > 0 {
            self.page.marks.push(Mark::Learned { waits, forecasts, signs });
        }
    }

    /// Whether it is time for a checkpoint; right after [`Recorder::cut`].
    pub(super) fn is_due(&self, now: DateTime<Utc>) -> bool {
        // Making one that is dropped again costs as much as one that is not.
        let mend = (MEND_AFTER_SECONDS << self.dropped.min(6)).min(CHECKPOINT_EVERY_SECONDS);
        let after = if self.is_broken { mend } else { CHECKPOINT_EVERY_SECONDS };
        self.waiting.is_none() && self.checkpoint_at.is_none_or(|at| now - at >= TimeDelta::seconds(after))
    }

    /// Begins a checkpoint; returns whether the learner is to be asked for its part, with the lessons up to here.
    pub(super) fn begin(&mut self, core: &Core, now: DateTime<Utc>) -> bool {
        self.checkpoint_at = Some(now);
        self.is_broken = false;
        if core.fleet.backends().count() > MOST_BACKENDS {
            return false;
        }
        let Some(core) = packed(&core.checkpoint()) else { return false };
        self.waiting = Some(Waiting { sequence: self.sequence, at: now, core, pending: Vec::new() });
        true
    }

    /// The learner was not asked after all.
    pub(super) fn abandon(&mut self) {
        self.waiting = None;
        self.is_broken = true;
    }

    /// The last page was dropped.
    pub(super) fn page_lost(&mut self) {
        self.is_broken = true;
    }

    /// The last checkpoint was taken to be written, or dropped; returns whether that is news to somebody.
    pub(super) fn checkpoint_written(&mut self, is_kept: bool) -> bool {
        self.is_broken |= !is_kept;
        self.dropped = if is_kept { 0 } else { self.dropped.saturating_add(1) };
        self.dropped == 1
    }

    /// Takes the learner's part; returns the whole.
    pub(super) fn complete(&mut self, learner: Vec<u8>) -> Option<CheckpointRow> {
        let Waiting { sequence, at, core, pending } = self.waiting.take()?;
        let pending = packed(&pending)?;
        Some(CheckpointRow { run: self.run, sequence, at, core, pending, learner })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::seconds(second)
    }

    /// The seconds at which checkpoints are begun, each kept or not.
    fn checkpoints(seconds: i64, is_kept: impl Fn(i64) -> bool) -> (Vec<i64>, u32) {
        let core = Core::new(Arc::new(Config::default()), at(0));
        let (mut recorder, mut begun, mut told) = (Recorder::new(at(0)), Vec::new(), 0);
        for second in 0..seconds {
            recorder.cut(at(second)).unwrap();
            if recorder.is_due(at(second)) {
                assert!(recorder.begin(&core, at(second)));
                recorder.complete(Vec::new()).unwrap();
                told += u32::from(recorder.checkpoint_written(is_kept(second)));
                begun.push(second);
            }
        }
        (begun, told)
    }

    #[test]
    fn a_checkpoint_that_was_dropped_is_made_again_ever_later_and_told_once() {
        let (begun, told) = checkpoints(20_000, |_| false);
        assert_eq!(begun, [0, 120, 360, 840, 1800, 3720, 7320, 10920, 14520, 18120]);
        assert_eq!(told, 1);
        let (begun, told) = checkpoints(8_000, |second| second > 300);
        assert_eq!((begun, told), (vec![0, 120, 360, 3960, 7560], 1));
    }

    #[test]
    fn a_page_that_was_dropped_is_mended_within_a_minute() {
        let core = Core::new(Arc::new(Config::default()), at(0));
        let mut recorder = Recorder::new(at(0));
        recorder.begin(&core, at(0));
        recorder.complete(Vec::new()).unwrap();
        assert!(!recorder.is_due(at(61)));
        recorder.page_lost();
        assert!(!recorder.is_due(at(59)) && recorder.is_due(at(60)));
    }

    #[test]
    fn only_the_page_before_an_orderly_end_is_the_last() {
        let mut recorder = Recorder::new(at(0));
        assert!(!recorder.cut(at(1)).unwrap().page.contains("last"));
        let order =
            super::super::control::Order::Drain { pool: "a".to_owned(), address: ([10, 0, 0, 1], 80).into() };
        recorder.input(&Input::Order { at: at(1), order });
        let row = recorder.finish(at(2)).unwrap();
        let page: Page = serde_json::from_str(&row.page).unwrap();
        assert!(page.last && row.sequence == 2 && page.marks.len() == 1, "{page:?}");
    }
}
