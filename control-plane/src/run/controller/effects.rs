use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use chrono::{DateTime, Utc};

use crate::config::{Pool, PoolTelemetry};
use crate::fleet::{Backend, Registration};
use crate::learn::Lesson;
use crate::push::Directory;
use crate::store::{AcknowledgementRow, DecisionRow};
use crate::telemetry::{PoolTargets, ScrapeTarget};
use crate::view::DecisionView;

use super::super::commands::Refusal;
use super::super::control::{Counted, Effect, Input};
use super::super::journal::Entry;
use super::Controller;

impl Controller {
    /// Hands an input to the core and carries out what follows.
    pub(super) fn feed(&mut self, input: Input, now: DateTime<Utc>) -> Result<Option<Registration>, Refusal> {
        self.recorder.input(&input);
        let done = self.core.take(input);
        self.carry_out(now);
        done
    }

    pub(super) fn carry_out(&mut self, now: DateTime<Utc>) {
        let mut publish = false;
        let mut shares = Vec::new();
        for effect in self.core.effects() {
            match effect {
                Effect::Teach(lesson) => {
                    self.teach(lesson);
                }
                Effect::Decided(row) => {
                    if self.is_told(&row) {
                        shares.push((row.id, row.model.clone()));
                    }
                    self.decided(row);
                }
                Effect::Journal(entry) => {
                    self.outputs.journal.write(entry);
                }
                Effect::Signal(event) => self.outputs.deliverer.enqueue(event),
                Effect::Members => self.retarget(),
                Effect::Publish => publish = true,
                Effect::Note(level, message) => self.note(level, message, now),
                Effect::Count(counted) => self.count(&counted),
            }
        }
        if publish {
            self.publish(now);
            let sent = std::mem::take(&mut self.sent);
            let rows = self.deliveries.watch(shares, sent, now);
            self.acknowledged(rows);
        }
    }

    /// Whether a decision goes to Envoys: who takes requests on every rung, shares where they are to follow them.
    fn is_told(&self, row: &DecisionRow) -> bool {
        let configured = || self.core.config.models.iter().find(|model| model.name == row.model);
        match &*row.kind {
            "membership" => true,
            "weights" => configured().is_some_and(|model| self.core.in_effect(model).follows_decisions()),
            _ => false,
        }
    }

    /// Writes down what Envoys said to decisions.
    pub(super) fn acknowledged(&self, rows: Vec<AcknowledgementRow>) {
        if !rows.is_empty() {
            self.outputs.journal.write(Entry::Acknowledgements(rows));
        }
    }

    fn decided(&mut self, row: Box<DecisionRow>) {
        self.counts.decisions += 1;
        self.counts.weight_changes += u64::from(row.kind == "weights");
        self.decisions.push(DecisionView {
            id: row.id.to_string(),
            at: row.at,
            kind: row.kind.clone(),
            model: row.model.clone(),
            pool: row.pool.clone(),
            summary: row.summary.clone(),
            changes: serde_json::from_value(row.changes.clone()).unwrap_or_default(),
            rung: row.rung(),
        });
        self.outputs.journal.write(Entry::Decision(row));
    }

    /// Has the backends of the fleet scraped, or their pushed telemetry taken.
    fn retarget(&self) {
        let config = &self.core.config;
        let of_pool = |backend: &Backend| config.pool(&backend.pool).map(|pool| (backend.address, pool));
        let (pushing, scraped): (Vec<_>, Vec<_>) = self
            .core
            .fleet
            .backends()
            .filter_map(of_pool)
            .partition(|(_, pool)| pool.telemetry == PoolTelemetry::Push);
        self.outputs
            .push
            .store(Arc::new(Directory::new(pushing, scraped.iter().map(|(address, _)| address.ip()))));
        let pools: HashMap<&str, PoolTargets<'_>> =
            config.pools.iter().map(|pool| (pool.name.as_str(), PoolTargets::of(config, pool))).collect();
        let target =
            |(address, pool): &(SocketAddr, &Pool)| Some(pools.get(pool.name.as_str())?.target(*address));
        let targets: Vec<ScrapeTarget> = scraped.iter().filter_map(target).collect();
        self.outputs.targets.send_replace(Arc::new(targets));
    }

    fn count(&self, counted: &Counted) {
        match counted {
            Counted::Looked(pool, outcome) => self.outputs.discovery.looked(pool, outcome),
            Counted::Refused(pool, origin) => self.outputs.discovery.refused(pool, origin.name()),
            Counted::Registration(pool, outcome) => self.outputs.discovery.registration(pool, outcome),
            Counted::Expired(pool) => self.outputs.discovery.expired(pool),
        }
    }

    pub(super) fn tick(&mut self, now: DateTime<Utc>) {
        for (level, message) in self.writer.counters().take_news() {
            self.note(level.name(), message, now);
        }
        self.look_who_is_connected(now);
        // It is refused by nobody.
        let _ = self.feed(Input::Tick { at: now }, now);
        self.compare();
        if self.core.has_begun && !self.published_once {
            self.publish(now);
        }
        self.stand_by();
        let rows = self.deliveries.settle(now);
        self.acknowledged(rows);
        self.record(now);
    }

    /// Writes down what led here, and now and then what is remembered.
    pub(super) fn record(&mut self, now: DateTime<Utc>) {
        if let Some(page) = self.recorder.cut(now)
            && !self.outputs.journal.write(Entry::Page(Box::new(page)))
        {
            self.recorder.page_lost();
        }
        if self.recorder.is_due(now)
            && self.recorder.begin(&self.core, now)
            && !self.teach(Lesson::Checkpoint)
        {
            self.recorder.abandon();
        }
    }
}
