use std::collections::HashMap;

use foldhash::fast::FixedState;

use crate::telemetry::{Kind, Packs};

/// Series under this prefix say that a server is simulated.
const SIMULATED: &str = "simulator_";
/// What such a series is held as: its own name would be of the sender's choice.
const SIMULATED_SERIES: &str = "simulator_pushed";
/// Names that are longer than this are none that an engine has.
const LONGEST: usize = 200;

/// A name that is read, and the factor that brings its values to the unit of that name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Known<'n> {
    /// The name as a page has it; of a histogram that comes whole, without `_sum`, `_count` and `_bucket`.
    pub(super) series: &'n str,
    /// Whether it runs since its server started: while nothing happens, some senders say nothing.
    pub(super) counts: bool,
    pub(super) factor: f64,
}

/// All names that are read for some pool, by hash.
///
/// Senders spell them in several ways: with dots for OpenTelemetry, with or without `_total`, with the unit beside the
/// name or at its end. So the names are kept in the form in which Prometheus stores metrics of OTLP, too.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    exact: Table<bool>,
    numbers: Table<Entry>,
    histograms: Table<Entry>,
}

type Table<T> = HashMap<Box<str>, T, FixedState>;

#[derive(Clone, Debug)]
struct Entry {
    series: Box<str>,
    counts: bool,
    /// Of a histogram: whether its buckets are read.
    has_buckets: bool,
}

impl Entry {
    fn known(&self, factor: f64) -> Known<'_> {
        Known { series: &self.series, counts: self.counts, factor }
    }
}

impl Names {
    /// Adds the names of a pool.
    pub(super) fn add(&mut self, packs: &Packs) {
        // Names that a page has in quotes only cannot be written on the page of an assembled reading.
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b':';
        for (name, range) in packs.names.iter().filter(|(name, _)| name.bytes().all(plain)) {
            let counts = packs.spellings[range.clone()].iter().all(|known| known.field.kind() != Kind::Gauge);
            self.exact.insert(name.clone(), counts);
            let entry = Entry { series: name.clone(), counts, has_buckets: false };
            self.numbers.insert(normalised(name).into(), entry);
            let part = |end: &'static str| Some((end, name.strip_suffix(end)?));
            if let Some((end, base)) = ["_sum", "_count", "_bucket"].into_iter().find_map(part) {
                let entry = Entry { series: base.into(), counts: true, has_buckets: false };
                let entry = self.histograms.entry(normalised(base).into()).or_insert(entry);
                entry.has_buckets |= end == "_bucket";
            }
        }
    }

    /// Looks up a series of one number, by its name and its unit (empty where the protocol has none).
    pub(super) fn number(&self, name: &str, unit: &str) -> Option<Known<'_>> {
        if let Some((series, counts)) = self.exact.get_key_value(name) {
            return Some(Known { series, counts: *counts, factor: 1.0 });
        }
        if name.len() > LONGEST {
            return None;
        }
        if name.starts_with(SIMULATED) {
            return Some(Known { series: SIMULATED_SERIES, counts: false, factor: 1.0 });
        }
        find(&self.numbers, name, unit, &["", "_total"]).map(|(entry, factor)| entry.known(factor))
    }

    /// Looks up a histogram or summary by its name without `_sum`, `_count` and `_bucket`, and its unit; and tells
    /// whether its buckets are read.
    pub(super) fn histogram(&self, name: &str, unit: &str) -> Option<(Known<'_>, bool)> {
        if name.len() > LONGEST {
            return None;
        }
        let (entry, factor) = find(&self.histograms, name, unit, &[""])?;
        Some((entry.known(factor), entry.has_buckets))
    }
}

/// Tries a name with what senders leave out or add: `_total`, and the unit at its end.
fn find<'n>(held: &'n Table<Entry>, name: &str, unit: &str, ends: &[&str]) -> Option<(&'n Entry, f64)> {
    let name = normalised(name);
    for end in ends {
        if let Some(entry) = held.get(format!("{name}{end}").as_str()) {
            return Some((entry, factor_of(unit, &entry.series)));
        }
    }
    let (word, factor) = unit_word(unit);
    let bare = [word, "ratio"].into_iter().filter(|word| !word.is_empty());
    for stem in bare.filter_map(|word| name.strip_suffix(word)?.strip_suffix('_')) {
        if let Some(entry) = held.get(stem) {
            return Some((entry, factor));
        }
    }
    if word.is_empty() {
        return None;
    }
    for end in ends {
        if let Some(entry) = held.get(format!("{name}_{word}{end}").as_str()) {
            return Some((entry, factor));
        }
    }
    None
}

/// The word that ends a name of that unit, in base units, and the factor to these.
fn unit_word(unit: &str) -> (&'static str, f64) {
    match unit {
        "s" | "seconds" => ("seconds", 1.0),
        "ms" | "milliseconds" => ("seconds", 1e-3),
        "us" | "microseconds" => ("seconds", 1e-6),
        "ns" | "nanoseconds" => ("seconds", 1e-9),
        "min" => ("seconds", 60.0),
        "By" | "bytes" => ("bytes", 1.0),
        "%" => ("percent", 1.0),
        "{token}" | "tokens" => ("tokens", 1.0),
        _ => ("", 1.0),
    }
}

/// A name that says seconds while the unit says milliseconds is believed in its unit.
fn factor_of(unit: &str, series: &str) -> f64 {
    match unit_word(unit) {
        ("seconds", factor) if series.contains("seconds") => factor,
        _ => 1.0,
    }
}

/// Puts an underscore for every run of what is neither letter nor digit.
pub(super) fn normalised(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for character in name.chars() {
        if character.is_ascii_alphanumeric() {
            text.push(character);
        } else if !text.ends_with('_') {
            text.push('_');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use crate::telemetry::VLLM;

    use super::*;

    #[test]
    fn the_spellings_of_senders_lead_to_the_engines_names() {
        let mut names = Names::default();
        names.add(&Packs::of(&[&VLLM]));
        let number = |name, unit| names.number(name, unit).map(|known| (known.series, known.factor));
        let waiting = Some(("vllm:num_requests_waiting", 1.0));
        assert_eq!(number("vllm:num_requests_waiting", ""), waiting);
        assert_eq!(number("vllm.num_requests.waiting", "1"), waiting);
        assert_eq!(number("vllm_num_requests_waiting", "{request}"), waiting);
        assert_eq!(number("vllm.kv_cache_usage_perc_ratio", "1"), Some(("vllm:kv_cache_usage_perc", 1.0)));
        assert_eq!(number("vllm.request_success", ""), Some(("vllm:request_success", 1.0)));
        assert_eq!(number("vllm.generation", "{token}").map(|found| found.0), Some("vllm:generation_tokens"));
        assert_eq!(number("simulator_info", ""), Some(("simulator_pushed", 1.0)));
        assert_eq!(number("vllm:prompt_tokens_total", ""), Some(("vllm:prompt_tokens_total", 1.0)));
        assert_eq!(number("go_goroutines", ""), None);
        assert_eq!(number(&"vllm".repeat(1000), ""), None);

        let histogram =
            |name, unit| names.histogram(name, unit).map(|(known, _)| (known.series, known.factor));
        let ttft = "vllm:time_to_first_token_seconds";
        assert_eq!(histogram("vllm:time_to_first_token_seconds", "s"), Some((ttft, 1.0)));
        assert_eq!(histogram("vllm.time_to_first_token", "s"), Some((ttft, 1.0)));
        assert_eq!(histogram("vllm.time_to_first_token", "ms"), Some((ttft, 1e-3)));
        let steps = "vllm:iteration_tokens_total";
        assert_eq!(histogram(steps, ""), Some((steps, 1.0)), "a histogram in spite of its name");
        assert_eq!(histogram("vllm.time_to_first_token", ""), None, "a unit is not guessed");
    }
}
