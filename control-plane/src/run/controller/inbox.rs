use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use chrono::{DateTime, Utc};

use clairvoy_xds::{ClientEvent, ClientEventKind};

use crate::config::{Config, ConfigError, Model, Pool, PoolTelemetry};
use crate::fleet::{Backend, Membership, Origin};
use crate::learn::Lesson;
use crate::push::Directory;
use crate::store::{BackendRow, DemandRow, EventLevel, EventRow, RegisteredState, Store};
use crate::telemetry::{DriftEvent, FailureKind, PoolTargets, ScrapeOutcome, ScrapeTarget};

use super::super::commands::{Command, Target};
use super::super::database::Memory;
use super::super::journal::Entry;
use super::super::reload::needs_restart;
use super::super::steer::Steering;
use super::Controller;
use super::learned::classes;

/// Saved weights older than this are not taken up: a frozen weight is the worst failure there is.
const WEIGHTS_LAST_SECONDS: f64 = 300.0;

impl Controller {
    pub(super) fn take_memory(&mut self, memory: Memory, now: DateTime<Utc>) {
        let config = Arc::clone(&self.config);
        self.counts.rows_before = memory.telemetry_rows;
        self.remember_found(&memory.membership);
        self.fleet.reconcile(&config, now);
        for backend in memory.registered {
            let Ok(address) = backend.address.parse() else { continue };
            if self.fleet.register(&config, &backend.pool, address, now).is_ok()
                && backend.state == RegisteredState::Draining
            {
                let _ = self.fleet.drain(&backend.pool, address, now);
            }
        }
        self.remember_leases(&memory.membership, now);
        for (model, saved_at, state) in memory.weights {
            let age = (now - saved_at).as_seconds_f64();
            if age <= WEIGHTS_LAST_SECONDS
                && let Ok(steering) = serde_json::from_value::<Steering>(state)
            {
                // What was decided meanwhile, without the database, is newer.
                self.steering.entry(model).or_insert(steering);
            }
        }
        for (kind, key, state) in memory.models {
            self.teach(Lesson::Restore(kind, key, state));
        }
        for (model, first_step, values) in memory.demand {
            self.teach(Lesson::CatchUp(model, first_step, values));
        }
        self.reconcile(now);
    }

    pub(super) fn database_opened(&mut self, store: Option<&Store>, now: DateTime<Utc>) {
        let Some(store) = store else { return };
        self.writer.attach(store);
        self.note("info", "the database is open".to_owned(), now);
    }

    pub(super) fn scraped(&mut self, outcome: ScrapeOutcome, now: DateTime<Utc>) {
        let Ok(address) = outcome.backend.parse::<SocketAddr>() else { return };
        if let Some(backend) = self.fleet.backend_mut(address) {
            backend.limits = outcome.limits;
            backend.telemetry_faults = outcome.faults;
        }
        for event in &outcome.drift {
            let level = match event {
                DriftEvent::Began(_) => "warning",
                DriftEvent::Ended(_) => "info",
            };
            self.note(level, format!("telemetry of {address}: {event}"), outcome.at);
        }
        match outcome.result {
            Ok(sample) => {
                self.writer.record([sample.clone()]);
                if self.fleet.observe(address, sample.clone(), now)
                    && let Some(class) = self.class(address)
                {
                    self.teach(Lesson::Sample(address, class, Box::new(sample)));
                }
            }
            Err(failure) => {
                let refused = match failure.kind() {
                    FailureKind::Connect => Some(true),
                    FailureKind::Timeout | FailureKind::NoSlot => None,
                    _ => Some(false),
                };
                self.fleet.observe_failure(address, refused, failure.to_string());
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
        let config = Arc::clone(&self.config);
        match command {
            Command::Register(Target { pool, address, reply }) => {
                let done = self
                    .check_allowed(&pool, address, now)
                    .and_then(|()| self.fleet.register(&config, &pool, address, now));
                if done.is_ok() {
                    self.registered(&pool, address, RegisteredState::Ready, now);
                    self.note("info", format!("{address} was registered in pool {pool}"), now);
                    self.save_membership(&pool, now);
                    self.reconcile(now);
                }
                let _ = reply.send(done);
            }
            Command::Lease(request) => self.lease(request, now),
            Command::Drain(Target { pool, address, reply }) => {
                let done = self.fleet.drain(&pool, address, now);
                if done.is_ok() {
                    self.registered(&pool, address, RegisteredState::Draining, now);
                    self.note("info", format!("{address} in pool {pool} is draining"), now);
                    self.decide(now);
                }
                let _ = reply.send(done);
            }
            Command::Remove(Target { pool, address, reply }) => {
                let done = self.fleet.remove(&pool, address, now);
                if done.is_ok() {
                    let gone = Entry::Unregistered { pool: pool.clone(), address: address.to_string() };
                    self.outputs.journal.write(gone);
                    self.note("info", format!("{address} leaves pool {pool} after it has drained"), now);
                    self.save_membership(&pool, now);
                    self.decide(now);
                }
                let _ = reply.send(done);
            }
            Command::Learn(histories) => {
                for (model, first_step, values) in histories {
                    self.teach(Lesson::History(model, first_step, values));
                }
            }
        }
    }

    pub(super) fn registered(
        &self,
        pool: &str,
        address: SocketAddr,
        state: RegisteredState,
        at: DateTime<Utc>,
    ) {
        let is_registered =
            self.fleet.backend(address).is_some_and(|backend| backend.origin == Origin::Registered);
        if is_registered {
            let entry = Entry::Registered { pool: pool.to_owned(), address: address.to_string(), state, at };
            self.outputs.journal.write(entry);
        }
    }

    pub(super) fn reload(&mut self, reloaded: Result<Arc<Config>, ConfigError>, now: DateTime<Utc>) {
        let config = match reloaded {
            Ok(config) => config,
            Err(error) => {
                return self.note(
                    "error",
                    format!("the changed configuration is refused, the old one stays: {error}"),
                    now,
                );
            }
        };
        let fixed = needs_restart(&self.config, &config);
        if !fixed.is_empty() {
            let message = format!(
                "the changed configuration is refused, the old one stays: {} needs a restart",
                fixed.join(", ")
            );
            return self.note("error", message, now);
        }
        if config.models.is_empty() && !self.config.models.is_empty() {
            let message = "the changed configuration is refused, the old one stays: it has no models, and would take all \
                           of them from every Envoy";
            return self.note("error", message.to_owned(), now);
        }
        if let Some(model) = self.emptied_by(&config) {
            let message = format!(
                "the changed configuration is refused, the old one stays: it leaves model {model} without any backend"
            );
            return self.note("error", message, now);
        }
        self.config = Arc::clone(&config);
        self.discovered.retain(&config);
        let gateways = config.gateways();
        for gone in self.outputs.config.load().gateways() {
            if !gateways.iter().any(|gateway| gateway.name == gone.name) {
                self.outputs.xds.withdraw(&gone.name);
            }
        }
        self.outputs.config.store(config);
        self.outputs.xds.regroup();
        self.note("info", "the configuration was reloaded".to_owned(), now);
        self.reconcile(now);
        self.decide(now);
        // Gateways, timeouts and names change without any decision about backends.
        self.publish(now);
    }

    /// A model that has backends now and would have none: more likely a mistake than a wish.
    fn emptied_by(&self, config: &Config) -> Option<String> {
        let takes = |backend: &&Backend| backend.membership == Membership::Active;
        let keeps = |model: &Model| {
            let mut pools = model.pools.iter().filter_map(|name| config.pool(name));
            pools.any(|pool| {
                let registered = self
                    .fleet
                    .backends()
                    .filter(takes)
                    .any(|backend| backend.origin == Origin::Registered && backend.pool == pool.name);
                let found = pool.dns().is_some() && self.discovered.has_backends(&pool.name);
                registered || found || !pool.backends.is_empty()
            })
        };
        let serves = |model: &&Model| self.fleet.of_model(&model.name).any(|backend| takes(&backend));
        config.models.iter().filter(serves).find(|model| !keeps(model)).map(|model| model.name.clone())
    }

    /// Brings the fleet, the scrape targets and the database's list of backends in line with the configuration.
    pub(super) fn reconcile(&mut self, now: DateTime<Utc>) {
        let config = Arc::clone(&self.config);
        self.fleet.reconcile(&config, now);
        self.steering.retain(|model, _| config.models.iter().any(|known| known.name == *model));
        self.forecasts.retain(|model, _| config.models.iter().any(|known| known.name == *model));
        self.plans.retain(|pool, _| config.pool(pool).is_some());
        self.classes = classes(&config);
        let of_pool = |backend: &Backend| config.pool(&backend.pool).map(|pool| (backend.address, pool));
        let (pushing, scraped): (Vec<_>, Vec<_>) = self
            .fleet
            .backends()
            .filter_map(of_pool)
            .partition(|(_, pool)| pool.telemetry == PoolTelemetry::Push);
        self.outputs
            .push
            .store(Arc::new(Directory::new(pushing, scraped.iter().map(|(address, _)| address.ip()))));
        let pools: HashMap<&str, PoolTargets<'_>> =
            config.pools.iter().map(|pool| (pool.name.as_str(), PoolTargets::of(&config, pool))).collect();
        let target =
            |(address, pool): &(SocketAddr, &Pool)| Some(pools.get(pool.name.as_str())?.target(*address));
        let targets: Vec<ScrapeTarget> = scraped.iter().filter_map(target).collect();
        self.outputs.targets.send_replace(Arc::new(targets));
        let rows = self.fleet.backends().map(|backend| BackendRow {
            address: backend.address.to_string(),
            pool: backend.pool.clone(),
            model: backend.model.clone(),
        });
        self.outputs.journal.write(Entry::Backends(rows.collect()));
    }

    pub(super) fn sweep(&mut self, now: DateTime<Utc>) {
        let gone = self.fleet.sweep(self.config.balance.drain_time.as_seconds(), now);
        for backend in &gone {
            self.teach(Lesson::Forget(backend.address));
        }
        if !gone.is_empty() {
            self.reconcile(now);
        }
    }

    /// Hands the demand of the steps that are over to the learner and to the database.
    pub(super) fn close_steps(&mut self, now: DateTime<Utc>) {
        let step_seconds = self.step_seconds();
        for (model, step) in self.fleet.close_steps(now) {
            let at = DateTime::<Utc>::from_timestamp(step.index * step_seconds, 0);
            if let (Some(rate), Some(at)) = (step.requests_per_second, at) {
                let row = DemandRow { model: model.clone(), at, requests_per_second: rate };
                let step_seconds = u32::try_from(step_seconds).unwrap_or(u32::MAX);
                self.outputs.journal.write(Entry::Demand { step_seconds, rows: vec![row] });
            }
            self.teach(Lesson::Step(model, step));
        }
    }

    pub(super) fn step_seconds(&self) -> i64 {
        i64::try_from(self.config.forecast.step.0.as_secs().max(1)).unwrap_or(i64::MAX)
    }

    pub(super) fn teach(&self, lesson: Lesson) {
        if !self.outputs.learner.send(lesson) {
            self.counts.lessons_dropped.fetch_add(1, Ordering::Relaxed);
        }
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
}
