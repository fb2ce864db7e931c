use std::sync::Arc;

use super::families::{Findings, Inquiry};
use super::fault::{FaultKind, TelemetryFault};
use super::{Observation, WATCHED};
use crate::telemetry::field::{Field, FieldSet};

/// Pages in a row without a metric before it counts as gone: one may be torn.
const MISSING_PAGES: u8 = 2;
/// Pages with traffic, for metrics that come with the first request.
const MISSING_PAGES_WITH_TRAFFIC: u8 = 3;

/// Which metrics were there, and which of them are missing.
#[derive(Debug, Default)]
pub(super) struct Presence {
    seen: FieldSet,
    expected: FieldSet,
    /// For each watched field, pages in a row without it.
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
            (self.seen, self.expected) = Default::default();
            (self.missing, self.missing_with_traffic) = Default::default();
            self.told.clear();
        }
        self.engine = page.engine.or(self.engine);
        self.expected = self.expected.union(seen.promises);
        // An engine that is starting shows such a page, and so does one with all its names changed.
        let is_blank = page.known_series == 0 && !page.is_idle;
        if is_blank {
            self.seen = self.seen.iter().filter(|field| self.expected.contains(*field)).collect();
        }
        let mut candidates = findings.candidates;
        for (at, field) in WATCHED.into_iter().enumerate() {
            let estimated = field == Field::KvUsed && seen.page.reading.get(field).is_some();
            if seen.page.present.contains(field) || estimated {
                self.seen.insert(field);
                (self.missing[at], self.missing_with_traffic[at]) = (0, 0);
                self.told.retain(|(told, _)| *told != field);
                continue;
            }
            let promised = self.expected.contains(field);
            if !promised && !self.seen.contains(field) {
                continue;
            }
            self.missing[at] = self.missing[at].saturating_add(1);
            if traffic {
                self.missing_with_traffic[at] = self.missing_with_traffic[at].saturating_add(1);
            }
            let is_gone = if promised {
                self.missing[at] >= MISSING_PAGES
            } else {
                self.missing_with_traffic[at] >= MISSING_PAGES_WITH_TRAFFIC
            };
            let found = candidates.iter().position(|(candidate, _)| *candidate == field);
            if is_gone && !self.is_told(field) && (found.is_some() || !is_blank) {
                self.told.push((field, found.map(|at| candidates.swap_remove(at).1)));
            }
        }
        // The names of a page with nothing missing are what later ones are compared with.
        if let (Some(names), true) = (findings.names, seen.page.known_series > 0) {
            self.names = Some(names);
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
}
