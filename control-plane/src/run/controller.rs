//! The controller: the one task that owns the core. It reads the clock once per event, feeds the core, and carries out what
//! the core decides; it decides nothing itself.

mod effects;
mod inbox;
mod picture;
mod publish;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use arc_swap::ArcSwap;
use chrono::{DateTime, Utc};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use clairvoy_xds::{ClientEvent, XdsServer};

use crate::config::{Config, ConfigError};
use crate::learn::{Insight, LearnerHandle};
use crate::metrics::ControlMetrics;
use crate::signal::Deliverer;
use crate::store::{Store, TelemetryWriter};
use crate::telemetry::{ScrapeOutcome, ScrapeTarget, TelemetryMetrics};
use crate::view::DecisionView;

use super::commands::Command;
use super::control::{Core, Input};
use super::database::Memory;
use super::journal::Journal;
use super::recent::{Events, Recent};
use super::recorder::Recorder;
use super::show::Frame;

const TICK: Duration = Duration::from_secs(1);
/// The picture is taken this long after a decision, when the Envoys have had time to answer.
const PICTURE_AFTER: Duration = Duration::from_millis(300);
/// Longest wait at start for what the last run left in the database; afterwards Clairvoy steers without it.
const MEMORY_PATIENCE: Duration = Duration::from_secs(15);

/// Where the controller's input comes from.
pub(super) struct Inputs {
    pub(super) outcomes: mpsc::Receiver<ScrapeOutcome>,
    pub(super) insights: mpsc::Receiver<Insight>,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) reloads: mpsc::Receiver<Result<Arc<Config>, ConfigError>>,
    pub(super) memory: oneshot::Receiver<Memory>,
    pub(super) store: watch::Receiver<Option<Store>>,
    /// Pools whose last plan reached no autoscaler.
    pub(super) undelivered: mpsc::Receiver<String>,
    /// What happens to the Envoys.
    pub(super) clients: broadcast::Receiver<ClientEvent>,
}

/// Where the controller's output goes.
pub(super) struct Outputs {
    pub(super) xds: XdsServer,
    /// Shared with the function that gives an Envoy its gateway.
    pub(super) config: Arc<ArcSwap<Config>>,
    pub(super) targets: watch::Sender<Arc<Vec<ScrapeTarget>>>,
    pub(super) learner: LearnerHandle,
    pub(super) journal: Journal,
    pub(super) deliverer: Deliverer,
    pub(super) frames: watch::Sender<Option<Arc<Frame>>>,
    pub(super) metrics: ControlMetrics,
    pub(super) telemetry: TelemetryMetrics,
}

/// The controller's state.
pub(super) struct Controller {
    core: Core,
    recorder: Recorder,
    decisions: Recent<DecisionView>,
    events: Events,
    counts: Counts,
    writer: Option<TelemetryWriter>,
    published_once: bool,
    outputs: Outputs,
}

#[derive(Default)]
struct Counts {
    forecasts: u64,
    decisions: u64,
    weight_changes: u64,
    samples_without_database: u64,
    /// Telemetry rows that earlier runs wrote.
    rows_before: u64,
    lessons_dropped: AtomicU64,
}

impl Controller {
    pub(super) fn new(config: Arc<Config>, outputs: Outputs, now: DateTime<Utc>) -> Self {
        Self {
            core: Core::new(config, now),
            recorder: Recorder::new(now),
            decisions: Recent::default(),
            events: Events::default(),
            counts: Counts::default(),
            writer: None,
            published_once: false,
            outputs,
        }
    }

    /// Runs until `stop`; returns after the last telemetry is written.
    pub(super) async fn run(mut self, mut inputs: Inputs, queue_rows: usize, stop: CancellationToken) {
        self.remember(&mut inputs.memory, &stop).await;
        self.core.reconcile(clock());
        self.carry_out(clock());
        // What came before is in the checkpoint that this begins.
        self.record(clock());
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let mut pictures = tokio::time::interval_at(tokio::time::Instant::now() + PICTURE_AFTER, TICK);
        pictures.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let mut late_memory = true;
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(command) = inputs.commands.recv() => self.obey(command, clock()),
                Some(reloaded) = inputs.reloads.recv() => self.reload(reloaded, clock()),
                _ = ticks.tick() => self.tick(clock()),
                _ = pictures.tick() => self.show(clock()),
                Ok(()) = inputs.store.changed() => {
                    let store = inputs.store.borrow_and_update().clone();
                    self.database_opened(store.as_ref(), queue_rows, clock());
                }
                memory = &mut inputs.memory, if late_memory && !inputs.memory.is_terminated() => {
                    late_memory = false;
                    if let Ok(memory) = memory {
                        self.take_memory(memory, clock());
                    }
                }
                Ok(event) = inputs.clients.recv() => self.heard(&event, clock()),
                Some(pool) = inputs.undelivered.recv() => {
                    let _ = self.feed(Input::Undelivered { pool }, clock());
                }
                insight = inputs.insights.recv() => match insight {
                    Some(insight) => self.learned(insight, clock()),
                    None => {
                        tracing::error!("the learner ended");
                        break;
                    }
                },
                Some(outcome) = inputs.outcomes.recv() => self.scraped(outcome, clock()),
            }
        }
        if let Some(writer) = &self.writer {
            writer.shutdown(Duration::from_secs(5)).await;
        }
    }

    /// Waits for the database to tell what the last run left: backends registered through the API are known only there,
    /// and publishing without them would take them from every Envoy.
    async fn remember(&mut self, memory: &mut oneshot::Receiver<Memory>, stop: &CancellationToken) {
        let waiting = tokio::time::timeout(MEMORY_PATIENCE, memory);
        let Some(waited) = stop.run_until_cancelled(waiting).await else { return };
        match waited {
            Ok(Ok(memory)) => self.take_memory(memory, clock()),
            Ok(Err(_)) => {}
            Err(_) => {
                let message = "the database is away: steering from the configuration and from memory; registered \
                               backends come back with it";
                self.note("error", message.to_owned(), clock());
            }
        }
    }
}

/// The time, as fine as it is kept.
fn clock() -> DateTime<Utc> {
    let now = Utc::now();
    DateTime::from_timestamp_micros(now.timestamp_micros()).unwrap_or(now)
}
