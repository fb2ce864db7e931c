use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hash, Hasher};

use foldhash::fast::FixedState;

use super::drops::{DropReason, Drops};
use super::field::{Combine, Field};
use super::histogram::{Buckets, MOST_EDGES};
use super::labels::Labels;

/// The believed values of one spelling.
#[derive(Default)]
pub(super) struct Parts {
    sum: f64,
    max: f64,
    count: u32,
    /// Values that repeat each other over ranks: their maximum by the hash of all other labels.
    repeated: BTreeMap<u64, f64>,
    spoiled: bool,
    edges: Edges,
}

/// One field's value, joined.
#[derive(Clone, Copy)]
pub(super) struct Joined {
    pub(super) value: f64,
    pub(super) max: f64,
}

impl Parts {
    pub(super) fn add(&mut self, labels: Labels<'_>, value: f64) {
        match key_without_rank(labels) {
            Some(key) => {
                let held = self.repeated.entry(key).or_insert(value);
                *held = held.max(value);
            }
            None => self.count_in(value),
        }
    }

    /// Adds the count of a bucket.
    pub(super) fn add_edge(&mut self, labels: Labels<'_>, edge: f64, count: f64) {
        self.edges.add(key_without_rank(labels), edge, count);
    }

    pub(super) fn spoil(&mut self) {
        self.spoiled = true;
    }

    fn count_in(&mut self, value: f64) {
        self.sum += value;
        self.max = self.max.max(value);
        self.count += 1;
    }

    pub(super) fn join(&self, field: Field, drops: &mut Drops) -> Option<Joined> {
        let mut whole = Self { sum: self.sum, max: self.max, count: self.count, ..Self::default() };
        for value in self.repeated.values() {
            whole.count_in(*value);
        }
        if whole.count == 0 {
            return None;
        }
        let value = match field.combine() {
            Combine::Sum if self.spoiled => return None,
            Combine::Sum => whole.sum,
            Combine::Mean => whole.sum / f64::from(whole.count),
            Combine::Max => whole.max,
        };
        match field.believe(value) {
            Ok(value) => Some(Joined { value, max: whole.max }),
            Err(reason) => {
                drops.add(field, reason);
                None
            }
        }
    }

    pub(super) fn join_edges(&mut self, field: Field, drops: &mut Drops) -> Option<Buckets> {
        let buckets = self.edges.join();
        if self.edges.too_many {
            drops.add(field, DropReason::TooLarge);
        }
        (!buckets.edges().is_empty()).then_some(buckets)
    }
}

/// Counts by edge, over the series of one histogram.
#[derive(Default)]
struct Edges {
    held: Vec<Edge>,
    /// Where the next edge is looked for first: pages list them in order.
    next: usize,
    repeated: BTreeMap<(u64, u64), (f64, f64)>,
    too_many: bool,
}

struct Edge {
    edge: f64,
    count: f64,
    series: u32,
}

impl Edges {
    fn add(&mut self, key: Option<u64>, edge: f64, count: f64) {
        let Some(key) = key else { return self.count_in(edge, count) };
        if self.repeated.len() >= MOST_EDGES * MOST_EDGES {
            self.too_many = true;
            return;
        }
        let held = self.repeated.entry((key, edge.to_bits())).or_insert((edge, count));
        held.1 = held.1.max(count);
    }

    fn count_in(&mut self, edge: f64, count: f64) {
        let at = match self.held.get(self.next) {
            Some(held) if held.edge == edge => self.next,
            _ => match self.held.binary_search_by(|held| held.edge.total_cmp(&edge)) {
                Ok(at) => at,
                Err(_) if self.held.len() >= MOST_EDGES => {
                    self.too_many = true;
                    return;
                }
                Err(at) => {
                    self.held.insert(at, Edge { edge, count: 0.0, series: 0 });
                    at
                }
            },
        };
        let held = &mut self.held[at];
        held.count += count;
        held.series += 1;
        self.next = at + 1;
    }

    /// Joins the series: an edge that some of them lack would count only a part, and is left out.
    fn join(&mut self) -> Buckets {
        for (edge, count) in std::mem::take(&mut self.repeated).into_values() {
            self.count_in(edge, count);
        }
        let most = self.held.iter().map(|edge| edge.series).max().unwrap_or(0);
        Buckets::new(self.held.iter().filter(|edge| edge.series == most).map(|edge| (edge.edge, edge.count)))
    }
}

/// Labels of ranks that repeat the same work.
const RANKS: [&str; 4] = ["tp_rank", "pp_rank", "moe_ep_rank", "ep_rank"];

/// Returns a key of all labels but the rank (and the edge of a bucket), for a series that says its rank in a group
/// that shares the work.
fn key_without_rank(labels: Labels<'_>) -> Option<u64> {
    let is_rank = |name: &str| RANKS.contains(&name);
    if !labels.mention("_rank") || !labels.iter().any(|(name, _)| is_rank(&name)) {
        return None;
    }
    let mut hasher = FixedState::default().build_hasher();
    for label in labels.iter().filter(|(name, _)| !is_rank(name) && name != "le") {
        label.hash(&mut hasher);
    }
    Some(hasher.finish())
}
