use std::collections::VecDeque;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::store::{CheckpointMark, PageRow, RunMark, Store, StoreError};

/// Pages that are read at a time, and about how many bytes.
const MOST_PAGES: u32 = 100;
const MOST_BYTES: u32 = 4 * 1024 * 1024;

/// The pages of all runs from a checkpoint on, a few at a time: nothing is held in the database in between. Those of one
/// run come in their order, even where the clock was set back; of several runs the page that ended first.
pub(super) struct Pages<'a> {
    store: &'a Store,
    to: DateTime<Utc>,
    runs: Vec<Run>,
}

/// What comes next.
pub(super) enum Turn {
    /// A page.
    Page(PageRow),
    /// Nothing more is known of a run from here on, though the time that is asked for goes on.
    End(Uuid, DateTime<Utc>),
}

struct Run {
    run: Uuid,
    /// The newest page that was read.
    read: i64,
    /// When the next page ended, or the latest one before it.
    at: DateTime<Utc>,
    waiting: VecDeque<PageRow>,
}

impl Run {
    fn look(&mut self) {
        self.at = self.waiting.front().map_or(self.at, |row| self.at.max(row.at));
    }
}

impl<'a> Pages<'a> {
    pub(super) async fn after(
        store: &'a Store,
        start: CheckpointMark,
        to: DateTime<Utc>,
    ) -> Result<Self, StoreError> {
        let begin = |mark: RunMark| Run {
            run: mark.run,
            read: mark.sequence - 1,
            at: mark.at,
            waiting: VecDeque::new(),
        };
        let others = store.runs(start.at, to).await?.into_iter().filter(|mark| mark.run != start.run);
        let first = Run { run: start.run, read: start.sequence, at: start.at, waiting: VecDeque::new() };
        let runs = std::iter::once(first).chain(others.map(begin)).collect();
        Ok(Self { store, to, runs })
    }

    /// Returns the next page: of each run up to the first that ended at `to` or later.
    pub(super) async fn next(&mut self) -> Result<Option<Turn>, StoreError> {
        loop {
            let Some(index) = (0..self.runs.len()).min_by_key(|index| self.runs[*index].at) else {
                return Ok(None);
            };
            let run = &mut self.runs[index];
            if let Some(row) = run.waiting.pop_front() {
                run.look();
                if row.at >= self.to {
                    self.runs.remove(index);
                }
                return Ok(Some(Turn::Page(row)));
            }
            let rows = self.store.pages(run.run, run.read, MOST_PAGES, MOST_BYTES).await?;
            let Some(last) = rows.last() else {
                let ended = self.runs.remove(index);
                return Ok(Some(Turn::End(ended.run, ended.at)));
            };
            run.read = last.sequence;
            run.waiting.extend(rows);
            run.look();
        }
    }
}
