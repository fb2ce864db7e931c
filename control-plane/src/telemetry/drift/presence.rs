use std::sync::Arc;

use super::families::{Findings, Inquiry};
use super::fault::{FaultKind, TelemetryFault};
use super::{Observation, WATCHED};
use crate::telemetry::field::{Field, FieldSet, Kind};
use crate::telemetry::page::PageReading;

/// Pages in a row without a metric before it counts as gone: one may be torn.
const MISSING_PAGES: u8 = 2;
/// Pages with traffic, for metrics that come with the first request.
const MISSING_PAGES_WITH_TRAFFIC: u8 = 3;
/// Pages in a row with a gauge that make it as good as promised: it is there whatever the engine does.
const STEADY_PAGES: u8 = 3;

/// Which metrics were there, and which of them are missing.
#[derive(Debug, Default)]
pub(super) struct Presence {
    seen: FieldSet,
    promised: FieldSet,
    /// Gauges and limits that were on page after page.
    steady: FieldSet,
    /// Those that came back without a restart: they come and go.
    fickle: FieldSet,
    /// For each watched field, pages in a row with it.
    there: [u8; WATCHED.len()],
    /// Pages in a row without it.
    missing: [u8; WATCHED.len()],
    /// The same, of pages with traffic.
    missing_with_traffic: [u8; WATCHED.len()],
    /// The fields that are known to be missing, and the likely new name.
    told: Vec<(Field, Option<String>)>,
    names: Option<Arc<[u32]>>,
    engine: Option<&'static str>,
}

impl Presence {
    pub(super) fn inquiry(&self) -> Inquiry {
        let due = |(at, field): &(usize, Field)| {
            (self.missing[*at] + 1 >= MISSING_PAGES
                || self.missing_with_traffic[*at] + 1 >= MISSING_PAGES_WITH_TRAFFIC)
                && self.missing[*at] > 0
                && !self.is_told(*field)
        };
        let due = WATCHED.into_iter().enumerate().filter(due).map(|(_, field)| field).collect();
        Inquiry {
            candidates_for: due,
            seen: self.seen,
            names: self.names.is_none(),
            before: self.names.clone().unwrap_or_default(),
        }
    }

    /// The engine may have ended in between: some gauges come again with its first request only.
    pub(super) fn interrupted(&mut self) {
        self.steady = FieldSet::default();
        self.there = Default::default();
    }

    fn is_told(&self, field: Field) -> bool {
        self.told.iter().any(|(told, _)| *told == field)
    }

    pub(super) fn observe(
        &mut self,
        seen: &Observation<'_>,
        traffic: bool,
        findings: Findings,
        faults: &mut Vec<TelemetryFault>,
    ) {
        let page = seen.page;
        let is_other = page.engine.is_some() && self.engine.is_some() && page.engine != self.engine;
        if seen.restarted || is_other {
            // Another version or engine may have other metrics, and some come with the first request only.
            let (names, engine) = (self.names.take(), self.engine);
            *self = Self { names, engine, ..Self::default() };
        }
        self.engine = page.engine.or(self.engine);
        self.promised = self.promised.union(seen.promises);
        // A page that is rightly empty says nothing of what is gone.
        if !page.is_idle {
            self.look(seen, traffic, findings);
        }
        for (field, candidate) in &self.told {
            let kind = if self.seen.contains(*field) { FaultKind::Vanished } else { FaultKind::NeverSeen };
            let what = match kind {
                FaultKind::Vanished => "is no longer on the metrics page",
                _ => "was never on the metrics page",
            };
            let detail = match candidate {
                Some(name) => format!("{what}; it may now be called {name}: set `metrics` of the pool"),
                None => what.to_owned(),
            };
            faults.push(TelemetryFault { kind, field: Some(*field), detail });
        }
    }

    fn look(&mut self, seen: &Observation<'_>, traffic: bool, findings: Findings) {
        let page = seen.page;
        // An engine that is starting shows such a page, and so does one with all its names changed.
        let is_blank = page.known_series == 0;
        let is_bare = is_blank || self.lost_all_counters(page);
        if is_blank {
            let lasting = self.promised.union(self.steady);
            self.seen = self.seen.iter().filter(|field| lasting.contains(*field)).collect();
        }
        let mut candidates = findings.candidates;
        for (at, field) in WATCHED.into_iter().enumerate() {
            if seen.unasked.contains(field) {
                continue;
            }
            if page.present.contains(field) {
                self.found(at, field);
                continue;
            }
            let promised = self.promised.contains(field);
            if self.is_made_up_for(page, field) || (!promised && !self.seen.contains(field)) {
                (self.missing[at], self.missing_with_traffic[at]) = (0, 0);
                continue;
            }
            self.there[at] = 0;
            self.missing[at] = self.missing[at].saturating_add(1);
            if traffic {
                self.missing_with_traffic[at] = self.missing_with_traffic[at].saturating_add(1);
            }
            let steady = self.steady.contains(field);
            let is_gone = if promised || steady {
                self.missing[at] >= MISSING_PAGES
            } else {
                self.missing_with_traffic[at] >= MISSING_PAGES_WITH_TRAFFIC
            };
            let candidate = candidates.iter().position(|(candidate, _)| *candidate == field);
            let is_clear = candidate.is_some() || !(is_blank || (steady && !promised && is_bare));
            if !is_gone || self.is_told(field) {
            } else if !is_clear {
                self.steady.remove(field);
                if !promised {
                    self.seen.remove(field);
                }
            } else if field != Field::BlockSize || !self.is_told(Field::Blocks) {
                self.told.push((field, candidate.map(|at| candidates.swap_remove(at).1)));
            }
        }
        // The names of a page with nothing missing are what later ones are compared with.
        if let (Some(names), false) = (findings.names, is_blank) {
            self.names = Some(names);
        }
    }

    fn found(&mut self, at: usize, field: Field) {
        (self.missing[at], self.missing_with_traffic[at]) = (0, 0);
        self.seen.insert(field);
        if self.is_told(field) {
            self.told.retain(|(told, _)| *told != field);
            self.fickle.insert(field);
            self.steady.remove(field);
        }
        self.there[at] = self.there[at].saturating_add(1);
        let lasts = matches!(field.kind(), Kind::Gauge | Kind::Limit) && !self.fickle.contains(field);
        if lasts && self.there[at] >= STEADY_PAGES {
            self.steady.insert(field);
        }
    }

    /// True when none of the counters that were there is: the engine may have begun anew, without a request so far.
    fn lost_all_counters(&self, page: &PageReading) -> bool {
        let mut counters = self.seen.iter().filter(|field| field.kind() == Kind::Counter).peekable();
        counters.peek().is_some() && !counters.any(|field| page.present.contains(field))
    }

    /// Whether what a field is for is on the page in another form.
    fn is_made_up_for(&self, page: &PageReading, field: Field) -> bool {
        match field {
            Field::KvUsed => page.reading.get(field).is_some() && !self.seen.contains(field),
            Field::KvTokensUsed | Field::KvTokens => page.present.contains(Field::KvUsed),
            _ => false,
        }
    }
}
