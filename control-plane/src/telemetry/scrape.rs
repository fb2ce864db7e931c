use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::drift::{DriftEvent, TelemetryFault};
use super::failure::ScrapeFailure;
use super::fetch::Fetcher;
use super::follow::{LastReading, Names, follow};
use super::limits::Limits;
use super::lookup::{PackChoice, Packs};
use super::metrics::TelemetryMetrics;
use super::sample::Sample;
use super::slots::Slots;
use super::target::ScrapeTarget;

/// How backends are scraped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScrapeOptions {
    /// Time between the starts of two scrapes of one backend.
    pub interval: Duration,
    /// Longest time from the start of a scrape to its outcome; below the interval.
    pub deadline: Duration,
    /// Longest page that is read, in bytes.
    pub max_page_bytes: usize,
    /// Most scrapes that are outstanding at once, shared out evenly among the pools; each holds a connection or two and one
    /// page.
    pub max_concurrent: usize,
}

impl Default for ScrapeOptions {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(1),
            deadline: Duration::from_millis(900),
            max_page_bytes: 4 * 1024 * 1024,
            max_concurrent: 1024,
        }
    }
}

/// What one scrape of one backend gave.
#[derive(Clone, Debug, PartialEq)]
pub struct ScrapeOutcome {
    /// The backend's address, as configured.
    pub backend: Arc<str>,
    /// When the page arrived, or the attempt was given up.
    pub at: DateTime<Utc>,
    /// The sample, or why there is none.
    pub result: Result<Sample, ScrapeFailure>,
    /// How far the engine goes, as far as it is known.
    pub limits: Limits,
    /// What began or ended to be wrong with the backend's telemetry.
    pub drift: Vec<DriftEvent>,
    /// What is wrong with it now.
    pub faults: Arc<[TelemetryFault]>,
}

impl ScrapeOutcome {
    /// An outcome of which nothing more is known.
    pub fn new(backend: Arc<str>, at: DateTime<Utc>, result: Result<Sample, ScrapeFailure>) -> Self {
        Self { backend, at, result, limits: Limits::default(), drift: Vec::new(), faults: Arc::default() }
    }
}

/// Scrapes every target once per interval, spread evenly over it, and sends on what it finds.
///
/// A target has one scrape outstanding at most, so a slow one delays nobody and loses only its own samples. When
/// the reader of the outcomes is too slow, outcomes are dropped and counted: a late sample is worth nothing.
pub struct Scraper {
    shared: Arc<Shared>,
    targets: watch::Receiver<Arc<Vec<ScrapeTarget>>>,
}

/// What the tasks of all targets have in common.
pub(super) struct Shared {
    pub(super) options: ScrapeOptions,
    pub(super) fetcher: Fetcher,
    pub(super) slots: Slots,
    pub(super) outcomes: mpsc::Sender<ScrapeOutcome>,
    pub(super) metrics: TelemetryMetrics,
}

/// The tables of names in use, one for each choice.
struct Tables {
    engines: Vec<(Arc<PackChoice>, Arc<Packs>)>,
    gpu: Arc<Packs>,
}

impl Default for Tables {
    fn default() -> Self {
        Self { engines: Vec::new(), gpu: Arc::new(Packs::of(&[])) }
    }
}

impl Tables {
    fn names(&mut self, choice: &Arc<PackChoice>) -> Names {
        let known = self.engines.iter().find(|(known, _)| Arc::ptr_eq(known, choice) || known == choice);
        let engine = match known {
            Some((_, packs)) => Arc::clone(packs),
            None => {
                let packs = Arc::new(Packs::new(choice));
                self.engines.push((Arc::clone(choice), Arc::clone(&packs)));
                packs
            }
        };
        Names { engine, gpu: Arc::clone(&self.gpu) }
    }

    /// Forgets the tables that no target uses.
    fn sweep(&mut self) {
        self.engines.retain(|(_, packs)| Arc::strong_count(packs) > 1);
    }
}

/// A target with the task that scrapes it.
struct Followed {
    target: ScrapeTarget,
    task: AbortHandle,
    last: LastReading,
}

impl Scraper {
    /// Prepares a scraper; `targets` can be replaced at any time.
    ///
    /// # Errors
    /// When no HTTP client can be built.
    pub fn new(
        options: ScrapeOptions,
        targets: watch::Receiver<Arc<Vec<ScrapeTarget>>>,
        outcomes: mpsc::Sender<ScrapeOutcome>,
        metrics: TelemetryMetrics,
    ) -> Result<Self, reqwest::Error> {
        let fetcher = Fetcher::new(options.deadline, options.max_page_bytes, metrics.bytes.clone())?;
        let slots = Slots::new(options.max_concurrent, metrics.clone());
        Ok(Self { shared: Arc::new(Shared { options, fetcher, slots, outcomes, metrics }), targets })
    }

    /// Scrapes until `shutdown`; scrapes under way are then given up.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut tasks = JoinSet::new();
        let mut followed = HashMap::new();
        let mut tables = Tables::default();
        let mut started = 0_u64;
        let mut replaceable = true;
        loop {
            let wanted = Arc::clone(&self.targets.borrow_and_update());
            self.reconcile(&wanted, &mut followed, &mut tasks, &mut tables, &mut started);
            tokio::select! {
                () = shutdown.cancelled() => break,
                changed = self.targets.changed(), if replaceable => replaceable = changed.is_ok(),
                Some(ended) = tasks.join_next() => {
                    // Nothing but a panic ends a task that was not aborted; the next round starts it again.
                    if let Err(error) = ended && error.is_panic() {
                        tracing::error!(error = %error, "scrape task panicked");
                    }
                }
            }
        }
        tasks.shutdown().await;
    }

    /// Ends the tasks of targets that left or changed, and starts those that are missing.
    fn reconcile(
        &self,
        wanted: &[ScrapeTarget],
        followed: &mut HashMap<Arc<str>, Followed>,
        tasks: &mut JoinSet<()>,
        tables: &mut Tables,
        started: &mut u64,
    ) {
        let wanted: HashMap<&str, &ScrapeTarget> =
            wanted.iter().map(|target| (target.backend.as_ref(), target)).collect();
        let pools: BTreeSet<Arc<str>> = wanted.values().map(|target| Arc::clone(&target.pool)).collect();
        self.shared.slots.share(&pools);
        let mut left: HashMap<Arc<str>, Followed> = HashMap::new();
        for (backend, held) in std::mem::take(followed) {
            let keep = wanted.get(backend.as_ref()).is_some_and(|target| **target == held.target);
            if !keep {
                held.task.abort();
            }
            let kept = if keep && !held.task.is_finished() { &mut *followed } else { &mut left };
            kept.insert(backend, held);
        }
        for target in wanted.into_values() {
            if followed.contains_key(&target.backend) {
                continue;
            }
            let first = Instant::now() + phase(*started, self.shared.options.interval);
            *started += 1;
            let names = tables.names(&target.names);
            // Other settings do not make another engine of it: its counters go on, as long as they are read by the same names.
            let before = left.remove(&target.backend).filter(|held| held.target.names == target.names);
            let last = before.map(|held| held.last).unwrap_or_default();
            let following = follow(Arc::clone(&self.shared), target.clone(), names, Arc::clone(&last), first);
            let task = tasks.spawn(following);
            followed.insert(Arc::clone(&target.backend), Followed { target: target.clone(), task, last });
        }
        tables.sweep();
        self.shared.metrics.targets.set(i64::try_from(followed.len()).unwrap_or(i64::MAX));
    }
}

/// Where within the interval the n-th target is scraped.
///
/// Steps of the golden ratio fill the interval evenly whatever the number of targets, and those that are there
/// need not move when others come.
fn phase(nth: u64, interval: Duration) -> Duration {
    const GOLDEN_RATIO: f64 = 0.618_033_988_749_894_9;
    // Beyond 2^32 targets started the product would lose the digits that matter.
    let nth = f64::from(u32::try_from(nth % (1 << 32)).unwrap_or(u32::MAX));
    interval.mul_f64((nth * GOLDEN_RATIO).fract())
}

/// Ticks once per interval from `first` on; ticks that were missed are left out.
pub(super) fn ticks(first: Instant, interval: Duration) -> tokio::time::Interval {
    let mut ticks = tokio::time::interval_at(first, interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    ticks
}

#[cfg(test)]
mod tests;
