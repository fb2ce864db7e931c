use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::FixedState;

use super::candidate::best_candidate;
use crate::telemetry::field::{Field, FieldSet};
use crate::telemetry::lookup::Packs;
use crate::telemetry::page::{PageForm, PageReading};
use crate::telemetry::{prometheus, protobuf};

/// Names of a page that are looked at; engines have about a hundred.
const MOST_FAMILIES: usize = 1000;

/// What is to be looked for on a page beside its values. Costs a second reading, so it is seldom more than nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Inquiry {
    /// Fields for which, when they are missing, a likely new name is wanted.
    pub(crate) candidates_for: FieldSet,
    /// Fields that were there once: what took them over is likely new, too.
    pub(crate) seen: FieldSet,
    /// Whether the names of the page are to be remembered.
    pub(crate) names: bool,
    /// The names of an earlier page that had all fields.
    pub(crate) before: Arc<[u32]>,
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Findings {
    /// Likely new names.
    pub(crate) candidates: Vec<(Field, String)>,
    /// The names of the page, hashed and sorted.
    pub(crate) names: Option<Arc<[u32]>>,
}

impl Inquiry {
    /// The part of it that is for the engine's page, where GPUs have one of their own.
    pub(crate) fn of_engine(&self) -> Self {
        let mut engine = self.clone();
        engine.candidates_for.remove(Field::GpuUtilisation);
        engine
    }

    /// The part of it that is for the page of a GPU exporter.
    pub(crate) fn of_gpu(&self) -> Self {
        let mut candidates_for = FieldSet::default();
        if self.candidates_for.contains(Field::GpuUtilisation) {
            candidates_for.insert(Field::GpuUtilisation);
        }
        Self { candidates_for, ..self.clone() }
    }
}

impl Findings {
    /// Adds what was found on another page of the same backend.
    pub(crate) fn join(&mut self, other: Self) {
        for found in other.candidates {
            self.candidates.retain(|(field, _)| *field != found.0);
            self.candidates.push(found);
        }
        self.names = match (self.names.take(), other.names) {
            (Some(own), Some(others)) => {
                let mut names: Vec<u32> = own.iter().chain(others.iter()).copied().collect();
                names.sort_unstable();
                Some(names.into())
            }
            (own, others) => own.or(others),
        };
    }
}

/// A family whose name is not known.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Family {
    pub(super) name: String,
    pub(super) kind: FamilyKind,
    /// Least and greatest of its values.
    pub(super) range: (f64, f64),
    /// True when an earlier page did not have it; always, when there was none.
    pub(super) is_new: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FamilyKind {
    Gauge,
    Counter,
    Histogram,
    Unknown,
}

/// Looks for what is wanted on a page that was read.
pub(crate) fn inquire(
    page: &[u8],
    form: PageForm,
    packs: &Packs,
    read: &PageReading,
    inquiry: &Inquiry,
) -> Findings {
    let missing: Vec<Field> =
        inquiry.candidates_for.iter().filter(|field| !read.present.contains(*field)).collect();
    let mut findings = Findings::default();
    if missing.is_empty() && !inquiry.names {
        return findings;
    }
    let unknown = unknown_families(page, form, packs, &inquiry.before);
    for field in missing {
        let only_new_is_likely = inquiry.seen.contains(field);
        if let Some(name) = best_candidate(field, packs, &unknown, only_new_is_likely) {
            findings.candidates.push((field, name.to_owned()));
        }
    }
    if inquiry.names {
        let mut names: Vec<u32> = unknown.iter().map(|family| hashed(&family.name)).collect();
        names.sort_unstable();
        findings.names = Some(names.into());
    }
    findings
}

fn hashed(name: &str) -> u32 {
    // Half of it does: this only tells old names from new ones.
    FixedState::default().hash_one(name) as u32
}

const SUFFIXES: [&str; 4] = ["_bucket", "_sum", "_count", "_total"];

pub(super) fn unknown_families(page: &[u8], form: PageForm, packs: &Packs, before: &[u32]) -> Vec<Family> {
    let kinds = match form {
        PageForm::Text => declared(page),
        PageForm::Protobuf | PageForm::Json => HashMap::new(),
    };
    let mut families: Vec<Family> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    let find = |name: &str| packs.range(name).is_none().then(|| name.to_owned());
    let mut visit = |name: String, value: f64| {
        let suffix = SUFFIXES.into_iter().find(|suffix| name.ends_with(suffix));
        let bare = suffix.and_then(|suffix| name.strip_suffix(suffix)).unwrap_or(&name);
        let (base, kind) = match (kinds.get(name.as_str()), kinds.get(bare)) {
            (Some(kind), _) => (name.as_str(), *kind),
            (None, Some(kind)) => (bare, *kind),
            (None, None) if suffix == Some("_bucket") => (bare, FamilyKind::Histogram),
            (None, None) if suffix == Some("_total") => (bare, FamilyKind::Counter),
            (None, None) => (name.as_str(), FamilyKind::Unknown),
        };
        let is_known = SUFFIXES.iter().any(|suffix| packs.range(&format!("{base}{suffix}")).is_some());
        // Times at which series were made, which some client libraries add.
        if is_known || packs.range(base).is_some() || base.ends_with("_created") {
            return;
        }
        let at = match places.get(base) {
            Some(at) => *at,
            None if families.len() >= MOST_FAMILIES => return,
            None => {
                let is_new = before.binary_search(&hashed(base)).is_err();
                let range = (f64::INFINITY, f64::NEG_INFINITY);
                families.push(Family { name: base.to_owned(), kind, range, is_new });
                places.insert(base.to_owned(), families.len() - 1);
                families.len() - 1
            }
        };
        // What stands for "not supported" says nothing of the others.
        if value.is_finite() && value < Field::SENTINEL {
            let (least, greatest) = &mut families[at].range;
            (*least, *greatest) = (least.min(value), greatest.max(value));
        }
    };
    match form {
        PageForm::Text => {
            prometheus::for_each_known(page, find, |name, _, value| visit(name, value));
        }
        PageForm::Protobuf => {
            protobuf::for_each_known(page, find, |name, _, value| visit(name, value));
        }
        PageForm::Json => {}
    }
    families
}

/// The types that a page declares.
fn declared(page: &[u8]) -> HashMap<&str, FamilyKind> {
    let mut kinds = HashMap::new();
    for line in page.split(|byte| *byte == b'\n') {
        let Some(text) = line.strip_prefix(b"# TYPE ").and_then(|rest| std::str::from_utf8(rest).ok()) else {
            continue;
        };
        let Some((name, kind)) = text.trim().rsplit_once(' ') else { continue };
        let kind = match kind {
            "gauge" => FamilyKind::Gauge,
            "counter" => FamilyKind::Counter,
            "histogram" => FamilyKind::Histogram,
            _ => FamilyKind::Unknown,
        };
        if kinds.len() < MOST_FAMILIES {
            kinds.insert(name.trim().trim_matches('"'), kind);
        }
    }
    kinds
}
