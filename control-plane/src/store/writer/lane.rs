use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::postgres::PgConnectOptions;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::store::EventLevel;
use crate::store::spool::{SpoolHandle, Spooled};
use crate::telemetry::Sample;

use super::session::Session;
use super::{Batch, BatchId, Ids, Shared};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Attempts at a batch whose values the database refuses, before it is given up.
const ATTEMPTS_AT_REFUSED: u32 = 3;
/// A clock may be ahead of ours by this much; partitions exist that far.
const AHEAD: TimeDelta = TimeDelta::days(1);

/// One connection that writes batches. The first one writes out the spool, too: one only, because it is in order.
pub(super) struct Lane {
    number: usize,
    shared: Arc<Shared>,
    spool: watch::Receiver<Option<SpoolHandle>>,
    connect: watch::Receiver<Option<PgConnectOptions>>,
    away: watch::Receiver<bool>,
    session: Session,
    ids: Ids,
    pause: Duration,
}

enum Work {
    Fresh(Vec<Sample>),
    Spooled(Spooled),
}

/// How an attempt ended.
enum Outcome {
    /// The database has it; `false` when it had it before.
    Written(bool),
    /// The database does not want these values.
    Refused,
    /// It may or may not be written, and can be tried again.
    Failed,
}

impl Lane {
    pub(super) fn new(
        number: usize,
        shared: Arc<Shared>,
        spool: watch::Receiver<Option<SpoolHandle>>,
        connect: watch::Receiver<Option<PgConnectOptions>>,
    ) -> Self {
        let away = shared.away.subscribe();
        Self {
            number,
            shared,
            spool,
            connect,
            away,
            session: Session::default(),
            ids: Ids::new(),
            pause: FIRST_PAUSE,
        }
    }

    /// Writes until the queue is closed and empty, or closed and the database away.
    pub(super) async fn run(mut self) {
        let is_first = self.number == 0;
        loop {
            let work = if is_first { self.next_work().await } else { self.next_help().await };
            match work {
                ControlFlow::Continue(Work::Fresh(samples)) => self.send_fresh(samples).await,
                ControlFlow::Continue(Work::Spooled(spooled)) => self.send_spooled(spooled).await,
                ControlFlow::Break(()) => break,
            }
        }
        self.session.close().await;
    }

    async fn next_work(&mut self) -> ControlFlow<(), Work> {
        let shared = Arc::clone(&self.shared);
        tokio::select! {
            // What was queued before the end is still written.
            biased;
            // An error means that the writer is gone, and this task with it.
            _ = self.connect.wait_for(Option::is_some) => {}
            () = shared.queue.closed() => return ControlFlow::Break(()),
        }
        loop {
            let spool = self.spool.borrow_and_update().clone();
            if *self.away.borrow_and_update() {
                tokio::select! {
                    () = shared.queue.closed() => return ControlFlow::Break(()),
                    () = sleep(self.pause) => {}
                }
                // The oldest batch of the spool finds out whether the database is back.
                if let Some(spool) = &spool
                    && let Some(spooled) = spool.oldest().await
                {
                    return ControlFlow::Continue(Work::Spooled(spooled));
                }
                shared.away.send_replace(false);
            }
            if let Some(samples) = shared.queue.try_batch(shared.settings.batch_time) {
                return ControlFlow::Continue(Work::Fresh(samples));
            }
            let spool = spool.as_ref().filter(|_| !shared.queue.is_closed());
            if let Some(spool) = spool
                && spool.has_work()
                && let Some(spooled) = spool.oldest().await
            {
                return ControlFlow::Continue(Work::Spooled(spooled));
            }
            let filled = async {
                match spool {
                    Some(spool) => spool.filled().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                batch = shared.queue.next_batch(shared.settings.batch_time) => {
                    return batch.map_or(ControlFlow::Break(()), |batch| ControlFlow::Continue(Work::Fresh(batch)));
                }
                () = filled => {}
                // The writer holds the other end until the lanes have ended.
                _ = self.spool.changed() => {}
                _ = self.away.wait_for(|away| *away) => {}
            }
        }
    }

    /// Waits until the first lane is two batches behind.
    async fn next_help(&mut self) -> ControlFlow<(), Work> {
        let shared = Arc::clone(&self.shared);
        let rows = shared.help_water();
        let help = async {
            if self.connect.wait_for(Option::is_some).await.is_err()
                || self.away.wait_for(|away| !*away).await.is_err()
            {
                return None;
            }
            shared.queue.next_above(rows).await
        };
        let closed_while_away = async {
            shared.queue.closed().await;
            if !*shared.away.borrow() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            batch = help => batch.map_or(ControlFlow::Break(()), |batch| ControlFlow::Continue(Work::Fresh(batch))),
            () = shared.hurry.cancelled() => ControlFlow::Break(()),
            () = closed_while_away => ControlFlow::Break(()),
        }
    }

    async fn send_fresh(&mut self, samples: Vec<Sample>) {
        let (samples, unstorable) = self.storable(samples);
        self.shared.counters.dropped(unstorable);
        if samples.is_empty() {
            return;
        }
        let rows = samples.len();
        self.note_at_hand(rows);
        let batch = Arc::new(Batch { id: self.ids.next(), samples });
        loop {
            match self.attempt(&batch.samples, batch.id).await {
                Outcome::Written(_) => {
                    self.shared.counters.succeeded(rows);
                    self.recovered();
                    break;
                }
                Outcome::Refused => {
                    self.shared.counters.dropped(rows as u64);
                    break;
                }
                Outcome::Failed => {}
            }
            let spool = self.spool.borrow().clone();
            if let Some(spool) = spool
                && spool.append(Arc::clone(&batch)).await.is_ok()
            {
                // From now on these numbers belong to the spool, which is behind what comes next.
                self.ids.renew();
                self.went_away();
                break;
            }
            if self.shared.hurry.is_cancelled() {
                self.shared.counters.dropped(rows as u64);
                break;
            }
            self.rest().await;
        }
        self.note_at_hand(0);
    }

    async fn send_spooled(&mut self, spooled: Spooled) {
        let Some(spool) = self.spool.borrow().clone() else { return };
        let Spooled { batch, inherited, position } = spooled;
        let id = batch.id;
        let (samples, unstorable) = self.storable(batch.samples);
        let outcome = match samples.is_empty() {
            true => Outcome::Refused,
            false => self.attempt(&samples, id).await,
        };
        match outcome {
            Outcome::Written(new) => {
                // What the run before had written, it had counted.
                if new || !inherited {
                    self.shared.counters.succeeded(samples.len());
                }
                self.shared.counters.dropped(unstorable);
                spool.done(position).await;
                self.recovered();
            }
            Outcome::Refused => {
                self.shared.counters.dropped(unstorable + samples.len() as u64);
                spool.done(position).await;
            }
            Outcome::Failed => {
                spool.keep(position).await;
                self.went_away();
                self.pause = (self.pause * 2).min(LONGEST_PAUSE);
            }
        }
    }

    /// Tries once, or a few times while the database refuses the values.
    async fn attempt(&mut self, samples: &[Sample], id: BatchId) -> Outcome {
        let mut refused = 0;
        loop {
            let Some(options) = self.connect.borrow().clone() else { return Outcome::Failed };
            let hurry = self.shared.hurry.clone();
            let written = tokio::select! {
                biased;
                written = self.session.write(&options, samples, id) => written,
                () = hurry.cancelled() => return Outcome::Failed,
            };
            let error = match written {
                Ok(new) => return Outcome::Written(new),
                Err(error) => error,
            };
            self.shared.counters.failed(error.to_string());
            if !is_refusal(&error) {
                tracing::warn!(%error, rows = samples.len(), "cannot write telemetry; trying again");
                return Outcome::Failed;
            }
            refused += 1;
            if refused >= ATTEMPTS_AT_REFUSED {
                let rows = samples.len();
                let message =
                    format!("the database refuses {rows} rows of telemetry, which are dropped: {error}");
                self.shared.counters.tell(EventLevel::Error, message);
                return Outcome::Refused;
            }
            self.rest().await;
        }
    }

    /// Leaves out samples whose time has no partition; says how many.
    fn storable(&self, mut samples: Vec<Sample>) -> (Vec<Sample>, u64) {
        let taken = samples.len();
        let (now, days) = (Utc::now(), self.shared.settings.samples_days);
        samples.retain(|sample| is_storable(sample.at, now, days));
        let left_out = (taken - samples.len()) as u64;
        (samples, left_out)
    }

    async fn rest(&mut self) {
        let hurry = self.shared.hurry.clone();
        tokio::select! {
            () = hurry.cancelled() => {}
            () = sleep(self.pause) => {}
        }
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }

    fn recovered(&mut self) {
        self.pause = FIRST_PAUSE;
        let is_back = self.shared.away.send_if_modified(|away| std::mem::replace(away, false));
        if is_back {
            self.shared.counters.tell(EventLevel::Info, "the database takes telemetry again".to_owned());
        }
    }

    fn went_away(&self) {
        let is_new = self.shared.away.send_if_modified(|away| !std::mem::replace(away, true));
        if is_new && !self.shared.hurry.is_cancelled() {
            let why = self.shared.counters.last_error().unwrap_or_default();
            let message = format!("the database takes no telemetry, which goes to the spool now: {why}");
            self.shared.counters.tell(EventLevel::Warning, message);
        }
    }

    fn note_at_hand(&self, rows: usize) {
        if let Some(at_hand) = self.shared.at_hand.get(self.number) {
            at_hand.store(rows, Ordering::Relaxed);
        }
    }
}

/// Returns whether a sample is neither past retention nor of a clock that is far ahead. Days are whole UTC days, like
/// the partitions.
fn is_storable(at: DateTime<Utc>, now: DateTime<Utc>, samples_days: u32) -> bool {
    let oldest = (now - TimeDelta::days(i64::from(samples_days))).date_naive();
    at.date_naive() >= oldest && at <= now + AHEAD
}

/// Returns whether the database refuses the values themselves, so that trying again is no use.
fn is_refusal(error: &sqlx::Error) -> bool {
    error
        .as_database_error()
        .and_then(|error| error.code())
        .is_some_and(|code| code.starts_with("22") || code.starts_with("23"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_days_with_a_partition_are_taken() {
        let at = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
        let now = at("2026-03-10T12:00:00Z");
        assert!(is_storable(at("2026-03-03T00:00:00Z"), now, 7));
        assert!(!is_storable(at("2026-03-02T23:59:59Z"), now, 7));
        assert!(is_storable(at("2026-03-11T11:00:00Z"), now, 7));
        assert!(!is_storable(at("2026-03-11T13:00:00Z"), now, 7));
    }
}
