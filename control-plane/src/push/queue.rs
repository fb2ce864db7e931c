use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use chrono::{DateTime, Utc};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::config::Push;
use crate::telemetry::{DriftEvent, Sample, ScrapeFailure, ScrapeOutcome, TelemetryMetrics};

use super::assemble::{Assembler, Drifted};
use super::directory::Directory;
use super::intake::Queued;
use super::metrics::PushMetrics;

/// How often readings that wait for their flush are looked for.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long after `stop` requests are taken: what the listeners give those under way, and a second.
const LAST_REQUESTS: Duration = Duration::from_secs(3);

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

    /// Works until `stop`, or until the intake is gone. What was acknowledged by then is still put together, and readings
    /// that are open are closed; whoever reads the outcomes has them all when the channel ends.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut seen = self.directory.load_full();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                queued = self.queued.recv() => {
                    let Some(queued) = queued else { break };
                    self.take(queued, false).await;
                }
                _ = ticks.tick() => {
                    let directory = self.directory.load_full();
                    if !Arc::ptr_eq(&directory, &seen) {
                        self.assembler.retain(&directory);
                        seen = directory;
                    }
                    let now_ms = Utc::now().timestamp_millis();
                    let due = self.assembler.due(now_ms);
                    self.close(due, now_ms, false).await;
                    self.assembler.look_around(now_ms);
                    self.send(Vec::new());
                }
            }
        }
        self.finish().await;
    }

    /// Takes what is acknowledged until the intake is gone, and then refuses the rest, which its senders keep.
    async fn finish(&mut self) {
        let dropped = self.metrics.outcomes_dropped.get();
        let last = Instant::now() + LAST_REQUESTS;
        while let Ok(Some(queued)) = timeout_at(last, self.queued.recv()).await {
            self.take(queued, true).await;
        }
        self.queued.close();
        while let Some(queued) = self.queued.recv().await {
            self.take(queued, true).await;
        }
        let open = self.assembler.all_open();
        self.close(open, Utc::now().timestamp_millis(), true).await;
        let dropped = self.metrics.outcomes_dropped.get() - dropped;
        if dropped > 0 {
            tracing::warn!(dropped, "pushed telemetry of the last moment found no reader");
        }
    }

    /// Takes a request, a piece at a time; `last` samples wait for room.
    async fn take(&mut self, queued: Queued, last: bool) {
        let Queued { batch, places, bytes, memory, share } = queued;
        self.metrics.queued_points.dec_by(i64::try_from(places.num_permits()).unwrap_or(i64::MAX));
        let now_ms = Utc::now().timestamp_millis();
        let mut taking = self.assembler.begin(batch, self.directory.load_full(), now_ms);
        loop {
            let samples = self.assembler.go_on(&mut taking, now_ms);
            self.hand_on(samples, last).await;
            if taking.is_done() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop((taking, places, bytes, memory, share));
    }

    /// Closes the readings of backends, a few at a time.
    async fn close(&mut self, mut open: Vec<Arc<str>>, now_ms: i64, last: bool) {
        while !open.is_empty() {
            let samples = self.assembler.close_some(&mut open, now_ms);
            self.hand_on(samples, last).await;
            tokio::task::yield_now().await;
        }
    }

    async fn hand_on(&mut self, samples: Vec<Sample>, last: bool) {
        if last {
            self.send_all(samples).await;
        } else {
            self.send(samples);
        }
    }

    /// Sends what there is room for: whoever reads is too slow for the rest, and newer comes soon.
    fn send(&mut self, samples: Vec<Sample>) {
        for outcome in self.outcomes_of(samples) {
            if self.outcomes.try_send(outcome).is_err() {
                self.metrics.outcomes_dropped.inc();
            }
        }
    }

    /// Sends what will not come again, and waits for room.
    async fn send_all(&mut self, samples: Vec<Sample>) {
        for outcome in self.outcomes_of(samples) {
            if self.outcomes.send(outcome).await.is_err() {
                self.metrics.outcomes_dropped.inc();
            }
        }
    }

    fn outcomes_of(&mut self, samples: Vec<Sample>) -> Vec<ScrapeOutcome> {
        let mut outcomes = Vec::with_capacity(samples.len());
        let mut noticed = std::mem::take(&mut self.assembler.noticed);
        for sample in samples {
            self.metrics.samples.inc();
            let of_sample = |drifted: &mut Drifted| {
                drifted.failure.is_none() && drifted.backend == sample.backend && drifted.at == sample.at
            };
            let drift: Vec<Drifted> = noticed.drift.extract_if(.., of_sample).collect();
            let drift = drift.into_iter().flat_map(|drifted| drifted.events).collect();
            outcomes.push(self.outcome(Arc::clone(&sample.backend), sample.at, Ok(sample), drift));
        }
        for Drifted { backend, at, events, failure } in noticed.drift {
            if let Some(failure) = failure {
                outcomes.push(self.outcome(backend, at, Err(failure), events));
            }
        }
        self.metrics.late.inc_by(noticed.late);
        self.metrics.evicted.inc_by(noticed.evicted);
        self.metrics.backends.set(i64::try_from(self.assembler.backends()).unwrap_or(i64::MAX));
        self.telemetry.restarts.inc_by(noticed.restarts);
        self.telemetry.dropped(&noticed.drops);
        self.names_wanted.store(self.assembler.wants_names, Ordering::Relaxed);
        outcomes
    }

    fn outcome(
        &self,
        backend: Arc<str>,
        at: DateTime<Utc>,
        result: Result<Sample, ScrapeFailure>,
        drift: Vec<DriftEvent>,
    ) -> ScrapeOutcome {
        for event in &drift {
            self.telemetry.drifted(event);
            tracing::debug!(backend = %backend, "telemetry: {event}");
        }
        let (limits, faults) = (self.assembler.limits(&backend), self.assembler.faults(&backend));
        ScrapeOutcome { backend, at, result, limits, drift, faults }
    }
}
