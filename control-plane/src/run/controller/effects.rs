use std::net::SocketAddr;
use std::sync::Arc;

use chrono::{DateTime, Utc};

use crate::config::{GpuMetrics, Pool};
use crate::fleet::Backend;
use crate::learn::Lesson;
use crate::store::DecisionRow;
use crate::telemetry::{GpuPage, ScrapeTarget};
use crate::view::DecisionView;

use super::super::commands::Refusal;
use super::super::control::{Effect, Input};
use super::super::journal::Entry;
use super::Controller;

impl Controller {
    /// Hands an input to the core and carries out what follows.
    pub(super) fn feed(&mut self, input: Input, now: DateTime<Utc>) -> Result<(), Refusal> {
        self.recorder.input(&input);
        let done = self.core.take(input);
        self.carry_out(now);
        done
    }

    pub(super) fn carry_out(&mut self, now: DateTime<Utc>) {
        let mut publish = false;
        for effect in self.core.effects() {
            match effect {
                Effect::Teach(lesson) => {
                    self.teach(lesson);
                }
                Effect::Decided(row) => self.decided(row),
                Effect::Journal(entry) => self.outputs.journal.write(entry),
                Effect::Signal(event) => self.outputs.deliverer.enqueue(event),
                Effect::Members => self.retarget(),
                Effect::Publish => publish = true,
                Effect::Note(level, message) => self.note(level, message, now),
            }
        }
        if publish {
            self.publish(now);
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
        });
        self.outputs.journal.write(Entry::Decision(row));
    }

    /// Has the backends of the fleet scraped.
    fn retarget(&self) {
        let target = |backend: &Backend| {
            self.core.config.pool(&backend.pool).map(|pool| scrape_target(backend.address, pool))
        };
        let targets: Vec<ScrapeTarget> = self.core.fleet.backends().filter_map(target).collect();
        self.outputs.targets.send_replace(Arc::new(targets));
    }

    pub(super) fn tick(&mut self, now: DateTime<Utc>) {
        // It is refused by nobody.
        let _ = self.feed(Input::Tick { at: now }, now);
        if !self.published_once {
            self.publish(now);
        }
        self.record(now);
    }

    /// Writes down what led here, and now and then what is remembered.
    pub(super) fn record(&mut self, now: DateTime<Utc>) {
        if let Some(page) = self.recorder.cut(now) {
            self.outputs.journal.write(Entry::Page(Box::new(page)));
        }
        if self.recorder.is_due(now)
            && self.recorder.begin(&self.core, now)
            && !self.teach(Lesson::Checkpoint)
        {
            self.recorder.abandon();
        }
    }
}

fn scrape_target(address: SocketAddr, pool: &Pool) -> ScrapeTarget {
    let target = ScrapeTarget::new(address.to_string().into());
    match &pool.gpu_metrics {
        GpuMetrics::None => ScrapeTarget { gpu: GpuPage::None, ..target },
        GpuMetrics::Same => target,
        GpuMetrics::Url(template) => target.with_gpu_template(template),
    }
}
