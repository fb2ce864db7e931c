//! What a backend's pushed telemetry means, watched as that of a scraped one.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

use crate::telemetry::{
    DriftEvent, DriftWatch, Field, FieldSet, Findings, Inquiry, Limits, Observation, Packs, PageForm,
    PageReading, TelemetryFault, inquire,
};

use super::super::batch::Unknown;
use super::SetBack;

/// Names without a meaning that are kept of a backend; engines have about a hundred.
const MOST_NAMES: usize = 500;
/// Such names are forgotten after this time.
const NAME_LASTS_MS: i64 = 10_000;
/// After so long without telemetry, an engine may have begun anew.
pub(super) const SILENCE_MS: i64 = 5_000;
/// Names are asked for before a gauge that nobody sends any more is missing.
pub(super) const SILENT_GAUGE_MS: i64 = 2_000;

#[derive(Debug, Default)]
pub(super) struct Watched {
    watch: DriftWatch,
    unknown: HashMap<Box<str>, Name>,
    /// Whether senders' unknown names were taken while this reading came in.
    was_asked: bool,
    /// A gauge was not sent for a while.
    pub(super) has_silent_gauge: bool,
    /// When the newest reading without any known name was looked at.
    blank_ms: i64,
}

/// What was sent under a name without a meaning.
#[derive(Clone, Copy, Debug)]
struct Name {
    seen_ms: i64,
    kind: &'static str,
    least: f64,
    greatest: f64,
}

/// A reading as it was understood.
pub(super) struct Read<'a> {
    pub(super) page: &'a PageReading,
    pub(super) packs: &'a Packs,
    pub(super) limits: &'a Limits,
    pub(super) restarted: bool,
    pub(super) reads_gpu: bool,
}

impl Watched {
    pub(super) fn asked(&mut self, was_asked: bool) {
        self.was_asked |= was_asked;
    }

    /// Keeps a name that no engine has.
    pub(super) fn note(&mut self, unknown: &Unknown, now_ms: i64) {
        let fresh =
            Name { seen_ms: now_ms, kind: unknown.kind, least: f64::INFINITY, greatest: f64::NEG_INFINITY };
        if !self.unknown.contains_key(&unknown.name) && self.unknown.len() >= MOST_NAMES {
            return;
        }
        let name = self.unknown.entry(unknown.name.clone()).or_insert(fresh);
        name.seen_ms = now_ms;
        (name.least, name.greatest) = (name.least.min(unknown.value), name.greatest.max(unknown.value));
    }

    /// Follows the own clock.
    pub(super) fn set_back(&mut self, by: SetBack) {
        by.apply(&mut self.blank_ms);
        self.unknown.values_mut().for_each(|name| by.apply(&mut name.seen_ms));
    }

    /// Whether senders' unknown names are wanted.
    pub(super) fn wants_names(&self) -> bool {
        let Inquiry { candidates_for, names, .. } = self.watch.inquiry();
        names || self.has_silent_gauge || !candidates_for.is_empty()
    }

    pub(super) fn interrupted(&mut self) {
        self.watch.interrupted();
    }

    pub(super) fn faults(&self) -> Arc<[TelemetryFault]> {
        self.watch.faults()
    }

    /// Takes in a reading; `text` is a buffer.
    pub(super) fn observe(&mut self, read: &Read<'_>, now_ms: i64, text: &mut String) -> Vec<DriftEvent> {
        self.unknown.retain(|_, name| now_ms - name.seen_ms <= NAME_LASTS_MS);
        let mut inquiry = self.watch.inquiry();
        inquiry.names &= self.was_asked;
        self.was_asked = false;
        let findings = self.look_for(read, &inquiry, text);
        let mut unasked = FieldSet::default();
        if !read.reads_gpu {
            unasked.insert(Field::GpuUtilisation);
        }
        let Read { page, packs, limits, restarted, .. } = *read;
        let seen = Observation { page, promises: packs.promises(page.engine), limits, restarted, unasked };
        self.watch.observe(&seen, findings)
    }

    fn look_for(&self, read: &Read<'_>, inquiry: &Inquiry, text: &mut String) -> Findings {
        if inquiry.candidates_for.is_empty() && !inquiry.names {
            return Findings::default();
        }
        text.clear();
        for (name, Name { kind, least, greatest, .. }) in &self.unknown {
            let end = if *kind == "histogram" { "_count" } else { "" };
            // Writing to a string does not fail.
            let _ = writeln!(text, "# TYPE {name} {kind}\n{name}{end} {least}\n{name}{end} {greatest}");
        }
        inquire(text.as_bytes(), PageForm::Text, read.packs, read.page, inquiry)
    }

    /// Looks at what is sent by a backend of which nothing known came since `closed_ms`, at most once in a while; tells how
    /// many names there are.
    pub(super) fn observe_blank(
        &mut self,
        packs: &Packs,
        limits: &Limits,
        (closed_ms, now_ms, flush_ms): (i64, i64, i64),
        text: &mut String,
    ) -> Option<(usize, Vec<DriftEvent>)> {
        let since_ms = self.blank_ms.max(closed_ms + SILENCE_MS);
        let is_new = self.unknown.values().any(|name| name.seen_ms > since_ms);
        if !is_new || now_ms - self.blank_ms < flush_ms {
            return None;
        }
        self.blank_ms = now_ms;
        let page = PageReading::default();
        let read = Read { page: &page, packs, limits, restarted: false, reads_gpu: true };
        let events = self.observe(&read, now_ms, text);
        Some((self.unknown.len(), events))
    }
}
