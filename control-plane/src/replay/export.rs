use std::collections::{BTreeSet, VecDeque};
use std::io::Write;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use crate::config::Config;
use crate::packed::unpacked;
use crate::run::{Input, Mark, Page, decisive};
use crate::store::{CheckpointMark, DecisionRow, PageRow, Store};
use crate::telemetry::Sample;

use super::file::Writer;
use super::pages::{Pages, Turn};
use super::row::{Gap, Kind, Row, Scope};
use super::samples::Samples;

/// Samples and decisions are read in pieces of this length, so that memory is bounded.
pub(super) const PIECE: TimeDelta = TimeDelta::seconds(10);
/// How long after its time a scraped sample may have been taken in, and a pushed one beyond the age that is allowed;
/// those never named are let go then.
const LATEST: TimeDelta = TimeDelta::seconds(120);

/// What was exported.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exported {
    /// Samples.
    pub samples: u64,
    /// Decisions.
    pub decisions: u64,
    /// Whether the order of the controller was recorded from a checkpoint on.
    pub ordered: bool,
    /// Samples that the record names and the database does not have.
    pub samples_missing: u64,
}

/// Reads what happened in a time out of the database. `progress` is told how far it is.
///
/// # Errors
/// A database that does not answer, or a file that cannot be written.
pub async fn export<W: Write>(
    store: &Store,
    config: &Config,
    scope: (DateTime<Utc>, DateTime<Utc>, Option<String>),
    out: &mut Writer<W>,
    progress: impl Fn(DateTime<Utc>),
) -> anyhow::Result<Exported> {
    let (from, to, model) = scope;
    let checkpoints = store.checkpoints(to).await?;
    let start = checkpoints.iter().rev().find(|mark| mark.at <= from).or(checkpoints.first());
    // Of one model alone there is no telling which of the learner's findings were its own.
    let ordered = start.is_some() && model.is_none();
    let program = format!("clairvoy {}", env!("CARGO_PKG_VERSION"));
    let scope = Scope { from, to, model, ordered, program };
    out.write(&Row(Kind::Scope(scope.clone())))?;
    let push = &config.telemetry.push;
    // What was decided up to a checkpoint came from what is before it.
    let after = |start: &CheckpointMark| from.max(start.at + TimeDelta::microseconds(1));
    let mut export = Export {
        store,
        out,
        samples: Samples::new(store, scope.model.clone(), from),
        decided: start.filter(|_| ordered).map_or(from, after),
        decisions: VecDeque::new(),
        latest: LATEST + TimeDelta::from_std(push.max_age.0).unwrap_or_default(),
        ahead: PIECE + TimeDelta::from_std(push.max_future.0).unwrap_or_default(),
        done: Exported { ordered, ..Exported::default() },
        scope,
    };
    match start.copied() {
        Some(start) if ordered => export.ordered(start, &checkpoints, &progress).await?,
        _ => export.unordered(config, &progress).await?,
    }
    Ok(export.done)
}

struct Export<'a, W: Write> {
    store: &'a Store,
    out: &'a mut Writer<W>,
    scope: Scope,
    samples: Samples<'a>,
    /// Decisions before this time are read.
    decided: DateTime<Utc>,
    /// Those that are not written yet.
    decisions: VecDeque<DecisionRow>,
    /// How long after its time a sample may have been taken in.
    latest: TimeDelta,
    /// How long before.
    ahead: TimeDelta,
    done: Exported,
}

impl<W: Write> Export<'_, W> {
    /// Without a record: samples by time, and the configuration of now.
    async fn unordered(&mut self, config: &Config, progress: &impl Fn(DateTime<Utc>)) -> anyhow::Result<()> {
        let at = self.scope.from;
        self.gap(at, "nothing was recorded that a replay could begin with")?;
        self.put(Kind::Input(Box::new(Input::Config { at, config: Arc::new(decisive(config)) })))?;
        let mut from = at;
        while from < self.scope.to {
            let to = (from + PIECE).min(self.scope.to);
            for sample in self.store.samples_whole(self.scope.model.as_deref(), from, to).await? {
                let taken_at = sample.at;
                self.sample(sample, taken_at)?;
            }
            self.decisions(to).await?;
            progress(to);
            from = to;
        }
        Ok(())
    }

    async fn ordered(
        &mut self,
        start: CheckpointMark,
        checkpoints: &[CheckpointMark],
        progress: &impl Fn(DateTime<Utc>),
    ) -> anyhow::Result<()> {
        let store = self.store;
        self.samples = Samples::new(store, None, start.at - self.latest);
        if start.at > self.scope.from {
            let why = format!("nothing before {} was recorded", start.at.to_rfc3339());
            self.gap(self.scope.from, &why)?;
        }
        self.checkpoint(start).await?;
        let mut last = (start.run, start.sequence, start.at);
        let mut exact = true;
        let mut stopped = BTreeSet::<Uuid>::new();
        let mut pages = Pages::after(store, start, self.scope.to).await?;
        while let Some(turn) = pages.next().await? {
            let row = match turn {
                Turn::Page(row) => row,
                Turn::End(run, _) if stopped.contains(&run) => continue,
                Turn::End(_, at) => {
                    self.gap(
                        at,
                        "what followed is not there: Clairvoy was killed, or has not written it yet",
                    )?;
                    continue;
                }
            };
            let page: Page = serde_json::from_str(&row.page)?;
            if page.last {
                stopped.insert(row.run);
            }
            let follows = (row.run, row.sequence) == (last.0, last.1 + 1);
            if follows && row.at < last.2 {
                let why = format!("the clock was set back from {}: some decisions are out of order", last.2);
                self.gap(row.at, &why)?;
            }
            if !follows || !exact {
                let before =
                    |mark: &&CheckpointMark| (mark.run, mark.sequence) == (row.run, row.sequence - 1);
                exact = match checkpoints.iter().find(before) {
                    Some(mark) => {
                        self.checkpoint(*mark).await?;
                        true
                    }
                    None => false,
                };
            }
            let has_all = self.page(&row, &page, exact || page.marks.is_empty()).await?;
            exact = exact && has_all && !page.broken;
            last = (row.run, row.sequence, row.at);
            progress(row.at);
        }
        self.decisions(self.scope.to).await
    }

    /// Writes a page; returns whether all its samples are there.
    async fn page(&mut self, row: &PageRow, page: &Page, exact: bool) -> anyhow::Result<bool> {
        if !exact {
            self.gap(page.since, "inputs before this are missing")?;
        }
        self.samples.load(row.at - self.latest, row.at + self.ahead).await?;
        let missing = self.done.samples_missing;
        for mark in &page.marks {
            match mark {
                Mark::Sample(number, micros, taken_micros) => {
                    let backend = page.backends.get(*number as usize).map_or("", String::as_str);
                    let at = page.since + TimeDelta::microseconds(*micros);
                    match self.samples.take(at, backend) {
                        Some(sample) => {
                            self.sample(sample, page.since + TimeDelta::microseconds(*taken_micros))?;
                        }
                        None => {
                            self.gap(at, &format!("the database does not have the sample of {backend}"))?;
                            self.done.samples_missing += 1;
                        }
                    }
                }
                Mark::Learned { waits, forecasts, signs } => {
                    self.put(Kind::Learned { waits: *waits, forecasts: *forecasts, signs: *signs })?;
                }
                Mark::Input(input) => self.put(Kind::Input(Box::new(input.clone())))?,
            }
        }
        self.samples.forget(row.at - self.latest);
        self.decisions(row.at + TimeDelta::microseconds(1)).await?;
        Ok(missing == self.done.samples_missing)
    }

    async fn checkpoint(&mut self, mark: CheckpointMark) -> anyhow::Result<()> {
        let row = self.store.checkpoint(mark.run, mark.sequence).await?;
        let (core, pending, learner) =
            (unpacked(&row.core)?, unpacked(&row.pending)?, unpacked(&row.learner)?);
        let at = serde_json::to_string(&row.at)?;
        let parts = [("at", at), ("core", core), ("pending", pending), ("learner", learner)];
        let parts = parts.map(|(name, part)| format!("\"{name}\":{part}"));
        self.put(Kind::Checkpoint(format!("{{{}}}", parts.join(","))))
    }

    /// Writes the decisions made before `to` that are not written yet.
    async fn decisions(&mut self, to: DateTime<Utc>) -> anyhow::Result<()> {
        let to = to.min(self.scope.to);
        loop {
            while let Some(row) = self.decisions.pop_front_if(|row| row.at < to) {
                self.done.decisions += 1;
                self.put(Kind::Decision(Box::new(row)))?;
            }
            if self.decided >= to {
                return Ok(());
            }
            let (from, end) = (self.decided, (self.decided + PIECE).min(self.scope.to));
            let rows = self.store.decisions_between(self.scope.model.as_deref(), from, end).await?;
            self.decided = end;
            self.decisions.extend(rows);
        }
    }

    fn sample(&mut self, sample: Sample, taken_at: DateTime<Utc>) -> anyhow::Result<()> {
        self.done.samples += 1;
        self.put(Kind::Sample(taken_at, Box::new(sample)))
    }

    fn gap(&mut self, at: DateTime<Utc>, why: &str) -> anyhow::Result<()> {
        self.put(Kind::Gap(Gap { at, why: why.to_owned() }))
    }

    fn put(&mut self, kind: Kind) -> anyhow::Result<()> {
        Ok(self.out.write(&Row(kind))?)
    }
}
