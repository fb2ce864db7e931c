use std::collections::{HashMap, HashSet};

use foldhash::fast::FixedState;

use crate::telemetry::{AliasPack, Field, Kind, Meaning};

/// Series under this prefix say that a server is simulated.
const SIMULATED: &str = "simulator_";
/// What such a series is held as: its own name would be of the sender's choice.
const SIMULATED_SERIES: &str = "simulator_pushed";
/// Names that are longer than this are none that an engine has.
const LONGEST: usize = 200;

/// A name that some engine has, and the factor that brings its values to the unit of that name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Known {
    /// The name of the family, as the engine has it.
    pub(super) family: &'static str,
    /// `_sum`, `_count` or `_bucket` behind it, of a histogram that comes series by series.
    pub(super) suffix: &'static str,
    /// Whether it runs since its server started: while nothing happens, some senders say nothing.
    pub(super) counts: bool,
    pub(super) factor: f64,
}

type Table<T> = HashMap<String, T, FixedState>;

/// All names that engines have, by hash.
///
/// Senders spell them in several ways: with dots for OpenTelemetry, with or without `_total`, with the unit beside the
/// name or at its end. So the names are kept in the form in which Prometheus stores metrics of OTLP, and looked up in it.
#[derive(Clone, Debug)]
pub(super) struct Names {
    exact: Table<Known>,
    numbers: Table<Known>,
    histograms: Table<Known>,
    /// Families whose buckets are read.
    with_buckets: HashSet<&'static str>,
}

impl Names {
    pub(super) fn new(packs: &[&'static AliasPack]) -> Self {
        let mut names = Self {
            exact: Table::default(),
            numbers: Table::default(),
            histograms: Table::default(),
            with_buckets: HashSet::new(),
        };
        for alias in packs.iter().flat_map(|pack| pack.aliases) {
            let family = alias.family;
            match alias.meaning {
                Meaning::Value(field) | Meaning::Label(field, _) => names.add(family, family, "", field),
                Meaning::Counter(field) => {
                    names.add(family, family, "", field);
                    // The page's reader understands both.
                    names.add(&format!("{family}_total"), family, "", field);
                }
                Meaning::Histogram(timing) => {
                    for (suffix, field, _) in timing.series(alias.scale) {
                        names.add(&format!("{family}{suffix}"), family, suffix, field);
                        if suffix == "_bucket" {
                            names.with_buckets.insert(family);
                        }
                    }
                    let known = Known { family, suffix: "", counts: true, factor: 1.0 };
                    names.histograms.insert(normalised(family), known);
                }
            }
        }
        names
    }

    fn add(&mut self, name: &str, family: &'static str, suffix: &'static str, field: Field) {
        let known = Known { family, suffix, counts: field.kind() != Kind::Gauge, factor: 1.0 };
        // Engines have histograms of which only sum or count is read; by OTLP they come whole.
        if let Some(base) = ["_sum", "_count"].iter().find_map(|end| family.strip_suffix(end)) {
            let whole = Known { family: base, suffix: "", counts: true, factor: 1.0 };
            self.histograms.entry(normalised(base)).or_insert(whole);
        }
        self.exact.insert(name.to_owned(), known);
        self.numbers.insert(normalised(name), known);
    }

    /// Looks up a series of one number, by its name and its unit (empty where the protocol has none).
    pub(super) fn number(&self, name: &str, unit: &str) -> Option<Known> {
        if let Some(known) = self.exact.get(name) {
            return Some(*known);
        }
        if name.len() > LONGEST {
            return None;
        }
        if name.starts_with(SIMULATED) {
            return Some(Known { family: SIMULATED_SERIES, suffix: "", counts: false, factor: 1.0 });
        }
        find(&self.numbers, name, unit, &["", "_total"])
    }

    /// Looks up a histogram or summary by its name without `_sum`, `_count` and `_bucket`, and its unit.
    pub(super) fn histogram(&self, name: &str, unit: &str) -> Option<Known> {
        if name.len() > LONGEST { None } else { find(&self.histograms, name, unit, &[""]) }
    }

    /// Whether the page's reader has a use for the buckets of a histogram.
    pub(super) fn has_buckets(&self, family: &str) -> bool {
        self.with_buckets.contains(family)
    }
}

/// Tries a name with what senders leave out or add: `_total`, and the unit at its end.
fn find(held: &Table<Known>, name: &str, unit: &str, ends: &[&str]) -> Option<Known> {
    let name = normalised(name);
    let scaled = |known: &Known, factor| Known { factor, ..*known };
    for end in ends {
        if let Some(known) = held.get(&format!("{name}{end}")) {
            return Some(scaled(known, factor_of(unit, known.family)));
        }
    }
    let (word, factor) = unit_word(unit);
    let bare = [word, "ratio"].into_iter().filter(|word| !word.is_empty());
    for stem in bare.filter_map(|word| name.strip_suffix(word)?.strip_suffix('_')) {
        if let Some(known) = held.get(stem) {
            return Some(scaled(known, factor));
        }
    }
    if word.is_empty() {
        return None;
    }
    for end in ends {
        if let Some(known) = held.get(&format!("{name}_{word}{end}")) {
            return Some(scaled(known, factor));
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
fn factor_of(unit: &str, family: &str) -> f64 {
    match unit_word(unit) {
        ("seconds", factor) if family.contains("seconds") => factor,
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
    use crate::telemetry::{DCGM, VLLM};

    use super::*;

    #[test]
    fn the_spellings_of_senders_lead_to_the_engines_names() {
        let names = Names::new(&[&VLLM, &DCGM]);
        let number = |name, unit| names.number(name, unit).map(|known| (known.family, known.factor));
        let waiting = Some(("vllm:num_requests_waiting", 1.0));
        assert_eq!(number("vllm:num_requests_waiting", ""), waiting);
        assert_eq!(number("vllm.num_requests.waiting", "1"), waiting);
        assert_eq!(number("vllm_num_requests_waiting", "{request}"), waiting);
        assert_eq!(number("vllm.kv_cache_usage_perc_ratio", "1"), Some(("vllm:kv_cache_usage_perc", 1.0)));
        assert_eq!(number("vllm.request_success", ""), Some(("vllm:request_success", 1.0)));
        assert_eq!(number("vllm.generation", "{token}").map(|found| found.0), Some("vllm:generation_tokens"));
        assert_eq!(number("simulator_info", ""), Some(("simulator_pushed", 1.0)));
        assert_eq!(number("vllm:prompt_tokens_total", ""), Some(("vllm:prompt_tokens", 1.0)));
        assert_eq!(number("go_goroutines", ""), None);
        assert_eq!(number(&"vllm".repeat(1000), ""), None);

        let histogram = |name, unit| names.histogram(name, unit).map(|known| (known.family, known.factor));
        let ttft = "vllm:time_to_first_token_seconds";
        assert_eq!(histogram("vllm:time_to_first_token_seconds", "s"), Some((ttft, 1.0)));
        assert_eq!(histogram("vllm.time_to_first_token", "s"), Some((ttft, 1.0)));
        assert_eq!(histogram("vllm.time_to_first_token", "ms"), Some((ttft, 1e-3)));
        let steps = "vllm:iteration_tokens_total";
        assert_eq!(histogram(steps, ""), Some((steps, 1.0)), "a histogram in spite of its name");
        assert_eq!(histogram("vllm.time_to_first_token", ""), None, "a unit is not guessed");
    }
}
