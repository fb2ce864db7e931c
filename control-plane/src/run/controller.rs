//! The controller: the one task that owns the core. It reads the clock once per event, feeds the core, and carries out what
//! the core decides; it decides nothing itself.

mod canaries;
mod effects;
mod gateways;
mod inbox;
mod picture;
mod publish;
mod zones;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use arc_swap::ArcSwap;
use chrono::{DateTime, Utc};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use clairvoy_xds::{ClientEvent, Delivery, Intake, XdsServer};

use crate::compile::BearerToken;
use crate::config::{Config, ConfigError};
use crate::decide::Zone;
use crate::discovery::{DiscoveryMetrics, Looked};
use crate::envoy::{ComparedSince, EnvoyMetrics, EnvoyNews};
use crate::learn::{Insight, LearnerHandle};
use crate::metrics::ControlMetrics;
use crate::push::Directory;
use crate::signal::Deliverer;
use crate::store::{SpoolSettings, Store, TelemetryWriter, WriterSettings};
use crate::telemetry::{ScrapeOutcome, ScrapeTarget, TelemetryMetrics};
use crate::view::DecisionView;

use super::commands::Command;
use super::control::{Core, Input};
use super::database::Memory;
use super::deliveries::Deliveries;
use super::journal::{Entry, Journal};
use super::listen::ZoneGroups;
use super::recent::{Events, Recent};
use super::recorder::Recorder;
use super::show::Frame;
use super::turns::STARTED;

const TICK: Duration = Duration::from_secs(1);
/// The picture is taken this long after a decision, when the Envoys have had time to answer.
const PICTURE_AFTER: Duration = Duration::from_millis(300);
/// Longest wait at start for what the last run left in the database; afterwards Clairvoy steers without it.
const MEMORY_PATIENCE: Duration = Duration::from_secs(15);
/// Longest wait at the end for the last telemetry: as long as pushed points are put together, and a second.
const LAST_OUTCOMES: Duration = Duration::from_secs(4);
/// Longest time to write it; what is left goes to the spool.
const LAST_WRITING: Duration = Duration::from_secs(5);

/// Where the controller's input comes from.
pub(super) struct Inputs {
    pub(super) outcomes: mpsc::Receiver<ScrapeOutcome>,
    pub(super) insights: mpsc::Receiver<Insight>,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) reloads: mpsc::Receiver<Result<Arc<Config>, ConfigError>>,
    /// What DNS said.
    pub(super) looked: mpsc::Receiver<Looked>,
    pub(super) memory: oneshot::Receiver<Memory>,
    pub(super) store: watch::Receiver<Option<Store>>,
    /// Pools whose last plan reached no autoscaler.
    pub(super) undelivered: mpsc::Receiver<String>,
    /// What the Envoys tell.
    pub(super) envoys: mpsc::Receiver<EnvoyNews>,
    /// What happens to the Envoys.
    pub(super) clients: broadcast::Receiver<ClientEvent>,
}

/// Where the controller's output goes.
pub(super) struct Outputs {
    pub(super) xds: XdsServer,
    /// Shared with the function that gives an Envoy its group.
    pub(super) zone_groups: ZoneGroups,
    /// Shared with what sums up access logs.
    pub(super) compared_since: ComparedSince,
    /// What Envoys report to; its interval follows their number.
    pub(super) load_reports: Intake,
    pub(super) envoy_metrics: EnvoyMetrics,
    /// What Envoys show when they log.
    pub(super) log_token: Option<BearerToken>,
    /// Shared with the function that gives an Envoy its gateway.
    pub(super) config: Arc<ArcSwap<Config>>,
    pub(super) targets: watch::Sender<Arc<Vec<ScrapeTarget>>>,
    /// Backends whose telemetry is pushed.
    pub(super) push: Arc<ArcSwap<Directory>>,
    pub(super) learner: LearnerHandle,
    pub(super) journal: Journal,
    pub(super) deliverer: Deliverer,
    pub(super) frames: watch::Sender<Option<Arc<Frame>>>,
    pub(super) metrics: ControlMetrics,
    pub(super) discovery: DiscoveryMetrics,
    pub(super) telemetry: TelemetryMetrics,
}

/// The end of the controller's steering, before the end of all.
#[derive(Clone, Debug, Default)]
pub(super) struct Leave {
    /// The Envoys are to be told to go by capacity shares.
    pub(super) leave: CancellationToken,
    /// They were told.
    pub(super) left: CancellationToken,
}

/// The controller's state.
pub(super) struct Controller {
    core: Core,
    recorder: Recorder,
    decisions: Recent<DecisionView>,
    events: Events,
    counts: Counts,
    writer: TelemetryWriter,
    published_once: bool,
    /// Endpoints that the last publication changed, of each group.
    sent: Vec<Delivery>,
    deliveries: Deliveries,
    /// How many Envoys there are in the zones that are known.
    zones: Vec<(Zone, u32)>,
    /// Gateways, and zones of them, whose newest state is published.
    stood_by: BTreeSet<String>,
    /// Envoys that take no runtime layer, of which was told.
    without_layer: BTreeSet<String>,
    /// It is about to end.
    is_leaving: bool,
    /// How often Envoys are asked to report, seconds; 0 before they were.
    report_seconds: u64,
    outputs: Outputs,
}

#[derive(Default)]
struct Counts {
    forecasts: u64,
    decisions: u64,
    weight_changes: u64,
    /// Telemetry rows that earlier runs wrote.
    rows_before: u64,
    lessons_dropped: AtomicU64,
}

impl Controller {
    pub(super) fn new(config: Arc<Config>, outputs: Outputs, now: DateTime<Utc>) -> Self {
        let settings = WriterSettings {
            queue_rows: config.telemetry.queue_rows,
            samples_days: config.database.retention.days().samples_days,
            spool: config
                .spool_dir()
                .map(|dir| SpoolSettings { dir, max_bytes: config.telemetry.spool.bytes.0 }),
            ..WriterSettings::default()
        };
        Self {
            core: Core::new(config, now),
            recorder: Recorder::new(now),
            decisions: Recent::default(),
            events: Events::default(),
            counts: Counts::default(),
            writer: TelemetryWriter::start(settings),
            published_once: false,
            sent: Vec::new(),
            deliveries: Deliveries::default(),
            zones: Vec::new(),
            stood_by: BTreeSet::new(),
            without_layer: BTreeSet::new(),
            is_leaving: false,
            report_seconds: 0,
            outputs,
        }
    }

    /// Runs until `stop`; returns after the last telemetry is written.
    pub(super) async fn run(mut self, mut inputs: Inputs, leave: Leave, stop: CancellationToken) {
        // However it ends, nobody waits for it.
        let _left = leave.left.clone().drop_guard();
        self.note("info", STARTED.to_owned(), clock());
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
                () = leave.leave.cancelled(), if !self.is_leaving => {
                    self.step_down(&mut inputs.clients).await;
                    leave.left.cancel();
                }
                Some(command) = inputs.commands.recv() => self.obey(command, clock()),
                Some(looked) = inputs.looked.recv() => self.looked(looked, clock()),
                Some(reloaded) = inputs.reloads.recv() => self.reload(reloaded, clock()),
                _ = ticks.tick() => self.tick(clock()),
                _ = pictures.tick() => self.show(clock()),
                Ok(()) = inputs.store.changed() => {
                    let store = inputs.store.borrow_and_update().clone();
                    self.database_opened(store.as_ref(), clock());
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
                Some(news) = inputs.envoys.recv() => self.told(news, clock()),
            }
        }
        let rows = self.deliveries.close();
        self.acknowledged(rows);
        if let Some(page) = self.recorder.finish(clock()) {
            self.outputs.journal.write(Entry::Page(Box::new(page)));
        }
        if stop.is_cancelled() {
            self.keep_the_last(&mut inputs.outcomes).await;
        }
        self.writer.shutdown(LAST_WRITING).await;
    }

    /// Writes down what comes until the scraper and the assembly of pushed telemetry have ended: it was acknowledged.
    /// Nothing is decided by it any more.
    async fn keep_the_last(&self, outcomes: &mut mpsc::Receiver<ScrapeOutcome>) {
        let end = tokio::time::Instant::now() + LAST_OUTCOMES;
        while let Ok(Some(outcome)) = tokio::time::timeout_at(end, outcomes.recv()).await {
            self.writer.record(outcome.result.ok().map(|sample| sample.as_kept()));
        }
        outcomes.close();
        while let Ok(outcome) = outcomes.try_recv() {
            self.writer.record(outcome.result.ok().map(|sample| sample.as_kept()));
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
