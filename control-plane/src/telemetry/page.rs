use super::drops::Drops;
use super::field::{Field, FieldSet, Kind};
use super::gpu::GpuSelector;
use super::labels::Labels;
use super::lookup::{Packs, Source, Spelling};
use super::parts::Parts;
use super::prometheus::{self, PageTally};
use super::protobuf;
use super::reading::EngineReading;
use super::steps::Steps;

/// The form of a metrics page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PageForm {
    /// Prometheus' text format or OpenMetrics text.
    #[default]
    Text,
    /// Delimited protobuf messages, `io.prometheus.client.MetricFamily`.
    Protobuf,
    /// JSON: the array of iterations of `trtllm-serve`.
    Json,
}

/// A page as read: the values, and what was wrong with it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PageReading {
    /// The canonical values.
    pub reading: EngineReading,
    /// The engine whose names were read; none when the page has no engine's.
    pub engine: Option<&'static str>,
    /// Fields with a series on the page, believed or not.
    pub present: FieldSet,
    /// Values that were not believed.
    pub drops: Drops,
    /// Lines read and lines skipped.
    pub tally: PageTally,
    /// Series on the page that one of the packs knows, believed or not.
    pub known_series: usize,
    /// True for a page that is rightly empty: the engine made no step since.
    pub is_idle: bool,
    /// True when the counters tell only what came since the page was read before.
    pub increments: bool,
}

/// Reads a page in one of Prometheus' text formats with the spellings of `packs`.
///
/// Series of one spelling are joined: over tensor-, pipeline- and expert-parallel ranks by the maximum, as these repeat
/// the same work; over everything else by the sum, fractions by the mean.
pub fn read_page(page: &[u8], packs: &Packs) -> PageReading {
    read(page, PageForm::Text, packs, None)
}

/// Reads a page of any form; of GPUs those that `gpus` selects.
pub(super) fn read(page: &[u8], form: PageForm, packs: &Packs, gpus: Option<&GpuSelector>) -> PageReading {
    let mut reader = Reader::new(packs, gpus);
    let visit = |reader: &mut Reader<'_>, found: Found, labels: Labels<'_>, value| match found {
        Found::Known(range) => reader.take(range, labels, value),
        Found::Simulator => reader.result.reading.simulated = true,
    };
    let find = |name: &str| match packs.range(name) {
        Some(range) => Some(Found::Known(range)),
        None => name.starts_with("simulator_").then_some(Found::Simulator),
    };
    let tally = match form {
        PageForm::Text => prometheus::for_each_known(page, find, |found, labels, value| {
            visit(&mut reader, found, labels, value)
        }),
        PageForm::Protobuf => protobuf::for_each_known(page, find, |found, labels, value| {
            visit(&mut reader, found, labels, value)
        }),
        PageForm::Json => return super::iterations::read(page, packs),
    };
    reader.finish(tally)
}

enum Found {
    Known(std::ops::Range<usize>),
    Simulator,
}

struct Reader<'a> {
    packs: &'a Packs,
    gpus: Option<&'a GpuSelector>,
    /// One for each spelling.
    parts: Vec<Parts>,
    /// Of those of which one model counts for all.
    steps: Steps,
    /// Fields with a series on the page, for each pack.
    present: Vec<FieldSet>,
    result: PageReading,
}

impl<'a> Reader<'a> {
    fn new(packs: &'a Packs, gpus: Option<&'a GpuSelector>) -> Self {
        let parts = packs.spellings().iter().map(|_| Parts::default()).collect();
        let present = vec![FieldSet::default(); packs.packs.len()];
        Self { packs, gpus, parts, steps: Steps::default(), present, result: PageReading::default() }
    }

    fn take(&mut self, range: std::ops::Range<usize>, labels: Labels<'_>, value: f64) {
        let mut known = false;
        for at in range {
            let spelling = &self.packs.spellings()[at];
            if !self.concerns(spelling, labels) {
                continue;
            }
            known = true;
            if let Some(present) = self.present.get_mut(usize::from(spelling.pack)) {
                present.insert(spelling.field);
            }
            self.take_as(at, spelling, labels, value);
        }
        self.result.known_series += usize::from(known);
    }

    fn concerns(&self, spelling: &Spelling, labels: Labels<'_>) -> bool {
        let has =
            |(label, value): &(Box<str>, Box<str>)| labels.get(label).is_some_and(|held| *held == **value);
        spelling.only.iter().all(has)
            && (spelling.field != Field::GpuUtilisation || self.gpus.is_none_or(|gpus| gpus.selects(labels)))
    }

    fn take_as(&mut self, at: usize, spelling: &Spelling, labels: Labels<'_>, value: f64) {
        let Spelling { field, scale, .. } = *spelling;
        let parts = match &spelling.steps {
            None => &mut self.parts[at],
            Some(label) => self.steps.of(at, labels.get(label).as_deref(), self.packs.model.as_deref()),
        };
        if field.kind() == Kind::Bucket {
            match (labels.edge(), field.believe(value)) {
                (Some(edge), Ok(count)) if !edge.is_nan() => parts.add_edge(labels, edge * scale, count),
                (_, Err(reason)) => self.result.drops.add(field, reason),
                _ => self.result.drops.add(field, super::drops::DropReason::NotANumber),
            }
            return;
        }
        let value = match &spelling.source {
            Source::Value => value,
            // Engines write `None` there before they know.
            Source::Label(label) => match labels.get(label).and_then(|text| text.parse().ok()) {
                Some(value) => value,
                None => return,
            },
        };
        // Before scaling, which would hide what exporters write for "not supported".
        match field.believe_scaled(value, scale) {
            Ok(value) => parts.add(labels, value),
            Err(reason) => {
                parts.spoil();
                self.result.drops.add(field, reason);
            }
        }
    }

    /// The engine's pack with the most fields on the page; the first of equals.
    fn chosen(&self) -> Option<usize> {
        let fits = |pack: &usize| !self.packs.packs[*pack].always && !self.present[*pack].is_empty();
        (0..self.present.len()).filter(fits).rev().max_by_key(|pack| self.present[*pack].len())
    }

    fn finish(mut self, tally: PageTally) -> PageReading {
        self.result.tally = tally;
        let chosen = self.chosen();
        self.result.engine = chosen.map(|pack| self.packs.packs[pack].name);
        let is_read = |pack: usize| chosen == Some(pack) || self.packs.packs[pack].always;
        let mut best: [Option<u16>; Field::COUNT] = [None; Field::COUNT];
        self.steps.choose(|at| {
            let spelling = &self.packs.spellings()[at];
            is_read(usize::from(spelling.pack)) && spelling.field == Field::Completed
        });
        for (at, (spelling, parts)) in self.packs.spellings().iter().zip(&mut self.parts).enumerate() {
            let field = spelling.field;
            let is_better = best[field as usize].is_none_or(|held| spelling.preference < held);
            if !is_read(usize::from(spelling.pack)) || !is_better {
                continue;
            }
            let parts = self.steps.chosen(at).unwrap_or(parts);
            if field.kind() == Kind::Bucket {
                let Some(buckets) = parts.join_edges(field, &mut self.result.drops) else { continue };
                self.result.reading.set_buckets(field, buckets);
            } else {
                let Some(joined) = parts.join(field, &mut self.result.drops) else { continue };
                self.result.reading.set(field, joined.value);
                if field == Field::KvUsed {
                    self.result.reading.kv_used_max = Some(joined.max);
                }
            }
            best[field as usize] = Some(spelling.preference);
        }
        let read = (0..self.present.len()).filter(|pack| is_read(*pack));
        self.result.present =
            read.fold(FieldSet::default(), |present, pack| present.union(self.present[pack]));
        self.result.reading.complete();
        self.result
    }
}

#[cfg(test)]
mod tests;
