//! Requests for types that are not served.

use std::collections::{BTreeMap, BTreeSet};

/// Type URLs remembered on one stream. A proxy asks for about ten; more are not answered.
const MAX_TYPES: usize = 64;

/// Bytes of a type URL; a longer one is no type.
const MAX_TYPE_URL: usize = 256;

/// Answers names of unknown types as removed, and a first request without names with an empty response, so
/// that no client waits for what never comes.
#[derive(Debug, Default)]
pub(super) struct UnknownTypes {
    seen: BTreeSet<String>,
    due: BTreeMap<String, BTreeSet<String>>,
}

impl UnknownTypes {
    pub(super) fn request(&mut self, type_url: &str, names: &[String]) {
        let first = !self.seen.contains(type_url);
        if first {
            if self.seen.len() == MAX_TYPES || type_url.len() > MAX_TYPE_URL {
                return;
            }
            self.seen.insert(type_url.to_owned());
        }
        let names: BTreeSet<_> = names.iter().filter(|name| *name != "*").cloned().collect();
        if first || !names.is_empty() {
            self.due.entry(type_url.to_owned()).or_default().extend(names);
        }
    }

    /// The next type to answer, with the names that are not there.
    pub(super) fn next_answer(&mut self) -> Option<(String, Vec<String>)> {
        let (type_url, names) = self.due.pop_first()?;
        Some((type_url, names.into_iter().collect()))
    }
}
