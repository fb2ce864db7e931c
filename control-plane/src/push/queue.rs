use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use chrono::{DateTime, Utc};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::config::Push;
use crate::telemetry::{DriftEvent, Sample, ScrapeFailure, ScrapeOutcome, TelemetryMetrics};

use super::assemble::{Assembler, Drifted};
use super::directory::Directory;
use super::intake::Queued;
use super::metrics::PushMetrics;

/// How often readings that wait for their flush are looked for.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The task that puts points together, and sends samples to where those of scrapes go.
#[derive(Debug)]
pub struct Assembly {
    assembler: Assembler,
    queued: mpsc::Receiver<Queued>,
    directory: Arc<ArcSwap<Directory>>,
    outcomes: mpsc::Sender<ScrapeOutcome>,
    metrics: PushMetrics,
    telemetry: TelemetryMetrics,
    names_wanted: Arc<AtomicBool>,
}

impl Assembly {
    pub(super) fn new(
        options: &Push,
        queued: mpsc::Receiver<Queued>,
        directory: Arc<ArcSwap<Directory>>,
        outcomes: mpsc::Sender<ScrapeOutcome>,
        metrics: PushMetrics,
        telemetry: TelemetryMetrics,
        names_wanted: Arc<AtomicBool>,
    ) -> Self {
        let assembler = Assembler::new(options.flush.0, options.max_series);
        Self { assembler, queued, directory, outcomes, metrics, telemetry, names_wanted }
    }

    /// Works until `stop`, or until the intake is gone.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut seen = self.directory.load_full();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                queued = self.queued.recv() => {
                    let Some(queued) = queued else { return };
                    self.take(queued);
                }
                _ = ticks.tick() => {
                    let directory = self.directory.load_full();
                    if !Arc::ptr_eq(&directory, &seen) {
                        self.assembler.retain(&directory);
                        seen = directory;
                    }
                    let samples = self.assembler.flush(Utc::now().timestamp_millis());
                    self.send(samples);
                }
            }
        }
    }

    fn take(&mut self, queued: Queued) {
        let Queued { batch, places, bytes, memory, share } = queued;
        self.metrics.queued_points.dec_by(i64::try_from(places.num_permits()).unwrap_or(i64::MAX));
        let samples = self.assembler.take(batch, Utc::now().timestamp_millis());
        drop((places, bytes, memory, share));
        self.send(samples);
    }

    fn send(&mut self, samples: Vec<Sample>) {
        let mut noticed = std::mem::take(&mut self.assembler.noticed);
        for sample in samples {
            self.metrics.samples.inc();
            let of_sample = |drifted: &mut Drifted| {
                drifted.failure.is_none() && drifted.backend == sample.backend && drifted.at == sample.at
            };
            let drift: Vec<Drifted> = noticed.drift.extract_if(.., of_sample).collect();
            let drift = drift.into_iter().flat_map(|drifted| drifted.events).collect();
            self.tell(Arc::clone(&sample.backend), sample.at, Ok(sample), drift);
        }
        for Drifted { backend, at, events, failure } in noticed.drift {
            if let Some(failure) = failure {
                self.tell(backend, at, Err(failure), events);
            }
        }
        self.metrics.late.inc_by(noticed.late);
        self.metrics.evicted.inc_by(noticed.evicted);
        self.metrics.backends.set(i64::try_from(self.assembler.backends()).unwrap_or(i64::MAX));
        self.telemetry.restarts.inc_by(noticed.restarts);
        self.telemetry.dropped(&noticed.drops);
        self.names_wanted.store(self.assembler.wants_names, Ordering::Relaxed);
    }

    fn tell(
        &self,
        backend: Arc<str>,
        at: DateTime<Utc>,
        result: Result<Sample, ScrapeFailure>,
        drift: Vec<DriftEvent>,
    ) {
        for event in &drift {
            self.telemetry.drifted(event);
            tracing::debug!(backend = %backend, "telemetry: {event}");
        }
        let (limits, faults) = (self.assembler.limits(&backend), self.assembler.faults(&backend));
        let outcome = ScrapeOutcome { backend, at, result, limits, drift, faults };
        if let Err(TrySendError::Full(_)) = self.outcomes.try_send(outcome) {
            self.metrics.outcomes_dropped.inc();
        }
    }
}
