use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use chrono::{DateTime, Utc};

use clairvoy_xds::{ClientEvent, ClientEventKind};

use crate::config::{Config, ConfigError};
use crate::discovery::Looked;
use crate::fleet::Registration;
use crate::learn::{Insight, Lesson};
use crate::store::{EventLevel, EventRow, Store};
use crate::telemetry::{DriftEvent, FailureKind, ScrapeOutcome};

use super::super::commands::{Command, LeaseRequest};
use super::super::control::{Input, Order};
use super::super::database::Memory;
use super::super::journal::Entry;
use super::super::reload::needs_restart;
use super::Controller;

impl Controller {
    pub(super) fn take_memory(&mut self, memory: Memory, now: DateTime<Utc>) {
        self.counts.rows_before = memory.telemetry_rows;
        self.core.remember(memory, now);
        self.carry_out(now);
        self.recorder.broken();
    }

    pub(super) fn database_opened(&mut self, store: Option<&Store>, now: DateTime<Utc>) {
        let Some(store) = store else { return };
        self.writer.attach(store);
        self.note("info", "the database is open".to_owned(), now);
    }

    pub(super) fn scraped(&mut self, outcome: ScrapeOutcome, now: DateTime<Utc>) {
        let Ok(backend) = outcome.backend.parse::<SocketAddr>() else { return };
        self.describe(backend, &outcome, now);
        let input = match outcome.result {
            Ok(sample) => {
                // What is decided on is what is kept, to the last digit.
                let sample = sample.as_kept();
                self.writer.record([sample.clone()]);
                Input::Sample { at: now, sample: Box::new(sample) }
            }
            Err(failure) => {
                let refused = match failure.kind() {
                    FailureKind::Connect => Some(true),
                    FailureKind::Timeout | FailureKind::NoSlot | FailureKind::NoDescriptor => None,
                    _ => Some(false),
                };
                Input::Failure { backend, refused, message: failure.to_string() }
            }
        };
        // It is refused by nobody.
        let _ = self.feed(input, now);
    }

    /// Takes what an outcome tells beside its sample: limits, as an input when they are other ones, and faults, which are
    /// only shown.
    fn describe(&mut self, address: SocketAddr, outcome: &ScrapeOutcome, now: DateTime<Utc>) {
        let limits = outcome.limits;
        if let Some(backend) = self.core.fleet.backend_mut(address) {
            backend.telemetry_faults = Arc::clone(&outcome.faults);
            if backend.limits != limits {
                let _ = self.feed(Input::Limits { backend: address, limits }, now);
            }
        }
        for event in &outcome.drift {
            let level = match event {
                DriftEvent::Began(_) => "warning",
                DriftEvent::Ended(_) => "info",
            };
            self.note(level, format!("telemetry of {address}: {event}"), outcome.at);
        }
    }

    /// Takes what DNS said of a pool.
    pub(super) fn looked(&mut self, looked: Looked, now: DateTime<Utc>) {
        let _ = self.feed(Input::Looked { at: now, looked }, now);
    }

    /// Takes what the learner found.
    pub(super) fn learned(&mut self, insight: Insight, now: DateTime<Utc>) {
        match insight {
            Insight::Checkpoint(state) => {
                let Some(row) = self.recorder.complete(state) else { return };
                let bytes = row.core.len() + row.pending.len() + row.learner.len();
                let is_kept = self.outputs.journal.write(Entry::Checkpoint(Box::new(row)));
                if self.recorder.checkpoint_written(is_kept) {
                    let message = format!(
                        "a checkpoint of {} MiB finds no room in the journal: what is decided from here on cannot be replayed \
                         until one does; trying again",
                        bytes.div_ceil(1024 * 1024)
                    );
                    self.note("warning", message, now);
                }
            }
            insight => {
                self.counts.forecasts += u64::from(matches!(insight, Insight::Forecast(..)));
                self.recorder.insight(&insight);
                self.core.learned(insight, now);
                self.carry_out(now);
            }
        }
    }

    /// Notes what happens to the Envoys, as far as their operators should know.
    pub(super) fn heard(&mut self, event: &ClientEvent, now: DateTime<Utc>) {
        let node = &event.node_id;
        match &event.kind {
            ClientEventKind::Connected => self.note("info", format!("Envoy {node} connected"), now),
            ClientEventKind::Disconnected => self.note("warning", format!("Envoy {node} disconnected"), now),
            ClientEventKind::Nacked(nack) => {
                let (kind, names) = (nack.resource_type, nack.resources.join(", "));
                let message =
                    format!("Envoy {node} refused {kind} {names}, and keeps what it had: {}", nack.message);
                self.note("error", message, now);
            }
            _ => {}
        }
    }

    pub(super) fn obey(&mut self, command: Command, now: DateTime<Utc>) {
        let (order, reply) = match command {
            Command::Register(target) => {
                (Order::Register { pool: target.pool, address: target.address }, Some(target.reply))
            }
            Command::Lease(request) => {
                let LeaseRequest { pool, address, length, reply } = request;
                let order = Order::Lease { pool, address, length };
                let done = self.feed(Input::Order { at: now, order }, now);
                let _ = reply.send(done.map(|done| done.unwrap_or(Registration::Renewed)));
                return;
            }
            Command::Drain(target) => {
                (Order::Drain { pool: target.pool, address: target.address }, Some(target.reply))
            }
            Command::Remove(target) => {
                (Order::Remove { pool: target.pool, address: target.address }, Some(target.reply))
            }
            Command::ResumeCanary(resumption) => {
                (Order::ResumeCanary { model: resumption.model }, Some(resumption.reply))
            }
            Command::Learn(histories) => (Order::Learn { histories }, None),
        };
        let done = self.feed(Input::Order { at: now, order }, now);
        if let Some(reply) = reply {
            let _ = reply.send(done.map(drop));
        }
    }

    pub(super) fn reload(&mut self, reloaded: Result<Arc<Config>, ConfigError>, now: DateTime<Utc>) {
        let config = match reloaded {
            Ok(config) => config,
            Err(error) => return self.refuse_reload(&error.to_string(), now),
        };
        let fixed = needs_restart(&self.core.config, &config);
        if !fixed.is_empty() {
            return self.refuse_reload(&format!("{} needs a restart", fixed.join(", ")), now);
        }
        if config.models.is_empty() && !self.core.config.models.is_empty() {
            return self.refuse_reload("it has no models, and would take all of them from every Envoy", now);
        }
        if let Some(model) = self.core.emptied_by(&config) {
            return self.refuse_reload(&format!("it leaves model {model} without any backend"), now);
        }
        let gateways = config.gateways();
        for gone in self.outputs.config.load().gateways() {
            if !gateways.iter().any(|gateway| gateway.name == gone.name) {
                self.outputs.xds.withdraw(&gone.name);
            }
        }
        self.outputs.config.store(Arc::clone(&config));
        self.outputs.xds.regroup();
        let _ = self.feed(Input::Config { at: now, config }, now);
    }

    fn refuse_reload(&mut self, why: &str, now: DateTime<Utc>) {
        let message = format!("the changed configuration is refused, the old one stays: {why}");
        self.note("error", message, now);
    }

    /// Tells the learner; what it cannot take is counted.
    pub(super) fn teach(&mut self, lesson: Lesson) -> bool {
        let taken = self.outputs.learner.send(lesson);
        if !taken {
            self.counts.lessons_dropped.fetch_add(1, Ordering::Relaxed);
            self.recorder.broken();
        }
        taken
    }

    pub(super) fn note(&mut self, level: &'static str, message: String, now: DateTime<Utc>) {
        if self.events.note(now, level, message.clone()) {
            let level = match level {
                "error" => EventLevel::Error,
                "warning" => EventLevel::Warning,
                _ => EventLevel::Info,
            };
            self.outputs.journal.write(Entry::Event(EventRow { at: now, level, message }));
        }
    }

    /// The configuration in force.
    pub(super) fn config(&self) -> Arc<Config> {
        Arc::clone(&self.core.config)
    }
}
