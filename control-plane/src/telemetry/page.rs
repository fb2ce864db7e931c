use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::alias::{Alias, AliasPack};
use super::field::{Combine, DropReason, Drops, Field};
use super::prometheus::{Labels, PageTally, for_each_sample};

/// What one metrics page said, in canonical units. Counters run since the engine started.
///
/// A field is `None` when the page lacks it or when its value was not believed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EngineReading {
    /// Requests that wait, summed over data-parallel engines.
    pub queue_depth: Option<f64>,
    /// Requests in the running batches, summed over data-parallel engines.
    pub running: Option<f64>,
    /// Part of the KV cache in use, 0 to 1: mean over data-parallel engines.
    pub kv_used: Option<f64>,
    /// The same of the fullest data-parallel engine.
    pub kv_used_max: Option<f64>,
    /// GPU utilisation, 0 to 1: mean over the GPUs of the page.
    pub gpu_utilisation: Option<f64>,
    /// Sum of all times to first token, in seconds.
    pub ttft_sum_seconds: Option<f64>,
    /// Number of times to first token.
    pub ttft_count: Option<f64>,
    /// Sum of all times between output tokens, in seconds.
    pub inter_token_sum_seconds: Option<f64>,
    /// Number of times between output tokens.
    pub inter_token_count: Option<f64>,
    /// Requests that ended, whatever the reason.
    pub completed: Option<f64>,
    /// Prompt tokens processed.
    pub prompt_tokens: Option<f64>,
    /// Output tokens produced.
    pub output_tokens: Option<f64>,
    /// True when the page has a series whose name starts with `simulator_`.
    pub simulated: bool,
}

/// A page as read: the values, and what was wrong with it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PageReading {
    /// The canonical values.
    pub reading: EngineReading,
    /// Values that were not believed.
    pub drops: Drops,
    /// Lines read and lines skipped.
    pub tally: PageTally,
    /// Series on the page that one of the packs knows, believed or not.
    pub known_series: usize,
}

/// Exporters write "not supported" as a number near the largest 64-bit integer.
const SENTINEL: f64 = 9.2e18;

/// Reads a metrics page with the spellings of `packs`.
///
/// Series of one spelling are joined: over tensor- and pipeline-parallel ranks by the maximum, as these repeat the
/// same work; over everything else by the sum, fractions by the mean.
pub fn read_page(page: &[u8], packs: &[&AliasPack]) -> PageReading {
    let mut parts: Vec<(&Alias, Parts)> =
        packs.iter().flat_map(|pack| pack.aliases).map(|alias| (alias, Parts::default())).collect();
    let mut result = PageReading::default();
    let PageReading { reading, drops, known_series, .. } = &mut result;
    let tally = for_each_sample(page, |name, labels, value| {
        reading.simulated |= name.starts_with("simulator_");
        let Some((alias, parts)) = parts.iter_mut().find(|(alias, _)| alias.series == name) else { return };
        *known_series += 1;
        let believed = if value.is_finite() && value >= SENTINEL {
            Err(DropReason::Sentinel)
        } else {
            alias.field.believe(value * alias.scale)
        };
        match believed {
            Ok(value) => parts.add(labels, value),
            Err(reason) => {
                parts.spoiled = true;
                drops.add(alias.field, reason);
            }
        }
    });
    result.tally = tally;
    let mut chosen: [Option<(u8, Joined)>; Field::ALL.len()] = [None; Field::ALL.len()];
    for (alias, parts) in &parts {
        let Some(joined) = parts.join(alias.field, &mut result.drops) else { continue };
        let slot = &mut chosen[alias.field as usize];
        if slot.is_none_or(|(preference, _)| alias.preference < preference) {
            *slot = Some((alias.preference, joined));
        }
    }
    for field in Field::ALL {
        if let Some((_, joined)) = chosen[field as usize] {
            result.reading.set(field, joined);
        }
    }
    result
}

#[derive(Clone, Copy)]
struct Joined {
    value: f64,
    max: f64,
}

/// The believed values of one spelling.
#[derive(Default)]
struct Parts {
    sum: f64,
    max: f64,
    count: u32,
    /// Values that repeat each other over ranks: their maximum by the hash of all other labels.
    repeated: BTreeMap<u64, f64>,
    spoiled: bool,
}

impl Parts {
    fn add(&mut self, labels: Labels<'_>, value: f64) {
        match key_without_rank(labels) {
            Some(key) => {
                let held = self.repeated.entry(key).or_insert(value);
                *held = held.max(value);
            }
            None => self.count_in(value),
        }
    }

    fn count_in(&mut self, value: f64) {
        self.sum += value;
        self.max = self.max.max(value);
        self.count += 1;
    }

    fn join(&self, field: Field, drops: &mut Drops) -> Option<Joined> {
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
        };
        match field.believe(value) {
            Ok(value) => Some(Joined { value, max: whole.max }),
            Err(reason) => {
                drops.add(field, reason);
                None
            }
        }
    }
}

/// Returns a key of all labels but the rank, for a series that says its tensor- or pipeline-parallel rank.
fn key_without_rank(labels: Labels<'_>) -> Option<u64> {
    let is_rank = |name: &str| name == "tp_rank" || name == "pp_rank";
    if !labels.iter().any(|(name, _)| is_rank(name)) {
        return None;
    }
    let mut hasher = DefaultHasher::new();
    for label in labels.iter().filter(|(name, _)| !is_rank(name)) {
        label.hash(&mut hasher);
    }
    Some(hasher.finish())
}

impl EngineReading {
    fn set(&mut self, field: Field, joined: Joined) {
        let place = match field {
            Field::QueueDepth => &mut self.queue_depth,
            Field::Running => &mut self.running,
            Field::KvUsed => {
                self.kv_used_max = Some(joined.max);
                &mut self.kv_used
            }
            Field::GpuUtilisation => &mut self.gpu_utilisation,
            Field::TtftSum => &mut self.ttft_sum_seconds,
            Field::TtftCount => &mut self.ttft_count,
            Field::InterTokenSum => &mut self.inter_token_sum_seconds,
            Field::InterTokenCount => &mut self.inter_token_count,
            Field::Completed => &mut self.completed,
            Field::PromptTokens => &mut self.prompt_tokens,
            Field::OutputTokens => &mut self.output_tokens,
        };
        *place = Some(joined.value);
    }
}

#[cfg(test)]
mod tests;
