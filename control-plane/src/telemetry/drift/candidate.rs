use super::families::{Family, FamilyKind};
use crate::telemetry::alias::Meaning;
use crate::telemetry::field::{Field, Kind};
use crate::telemetry::lookup::Packs;
use crate::telemetry::packs::ENGINES;

/// Least likeness of a name that came when the old one went, or where there was none.
const LEAST_OF_LIKELY: f64 = 0.25;
/// Least likeness of a name that was there before.
const LEAST_OF_OLD: f64 = 0.6;

/// Returns the name that most likely stands for a field: alike to any known name of it in whatever engine, of a fitting
/// type and range. For a field that was there before, `only_new_is_likely`: a name that came when the old one went.
pub(super) fn best_candidate<'a>(
    field: Field,
    packs: &Packs,
    unknown: &'a [Family],
    only_new_is_likely: bool,
) -> Option<&'a str> {
    let names: Vec<Vec<String>> = known_names(field, packs).map(|name| words(&name)).collect();
    let likeness = |family: &Family| {
        let own = words(&family.name);
        names.iter().map(|name| alike(name, &own)).fold(0.0, f64::max)
    };
    let is_likely = |family: &Family| family.is_new || !only_new_is_likely;
    // Then one family has values of several units, told apart by a label.
    let is_mixed = packs.spellings().iter().any(|known| known.field == field && !known.only.is_empty());
    let least = |family: &Family| if is_likely(family) { LEAST_OF_LIKELY } else { LEAST_OF_OLD };
    unknown
        .iter()
        .filter(|family| fits(field, family, is_mixed))
        .map(|family| (family, likeness(family)))
        .filter(|(family, likeness)| *likeness >= least(family))
        .max_by(|(one, likeness), (other, others)| {
            is_likely(one).cmp(&is_likely(other)).then(likeness.total_cmp(others))
        })
        .map(|(family, _)| family.name.as_str())
}

fn known_names(field: Field, packs: &Packs) -> impl Iterator<Item = String> {
    let own = packs.names_of(field).map(str::to_owned);
    let means = move |meaning: Meaning| match meaning {
        Meaning::Value(known) | Meaning::Counter(known) => known == field,
        Meaning::Histogram(timing) => timing.series(1.0).any(|(_, known, _)| known == field),
        Meaning::Label(..) => false,
    };
    let aliases = ENGINES.into_iter().flat_map(|pack| pack.aliases);
    own.chain(aliases.filter(move |alias| means(alias.meaning)).map(|alias| alias.family.to_owned()))
}

fn fits(field: Field, family: &Family, is_mixed: bool) -> bool {
    let (least, greatest) = family.range;
    let kind_fits = match (field.kind(), family.kind) {
        (_, FamilyKind::Unknown) => true,
        (Kind::Gauge | Kind::Limit, kind) => kind == FamilyKind::Gauge,
        // What is counted with times is a histogram; other counters may become the count of one.
        (Kind::Counter | Kind::Sum | Kind::Bucket, kind) => {
            let timed = matches!(field, Field::TtftCount | Field::InterTokenCount | Field::QueueWaitCount);
            kind == FamilyKind::Histogram || (kind == FamilyKind::Counter && !timed)
        }
    };
    let most = match field {
        // Exporters tell it in percent, too.
        Field::GpuUtilisation => 100.0,
        field if field.is_fraction() && !is_mixed => 1.05,
        _ => f64::INFINITY,
    };
    kind_fits && least >= 0.0 && greatest <= most
}

/// The words of a name, without prefix and plural.
fn words(name: &str) -> Vec<String> {
    let bare = name.rsplit_once(':').map_or(name, |(_, bare)| bare);
    const NO_WORDS: [&str; 13] = [
        "vllm", "sglang", "tgi", "nv", "trtllm", "DCGM", "FI", "DEV", "PROF", "total", "sum", "count",
        "bucket",
    ];
    let is_word = |word: &&str| !word.is_empty() && !NO_WORDS.contains(word);
    bare.split(['_', '.', '-'])
        .filter(is_word)
        .map(|word| match word.strip_suffix('s') {
            Some(singular) if singular.len() > 2 && !singular.ends_with('s') => singular.to_lowercase(),
            _ => word.to_lowercase(),
        })
        .collect()
}

/// Units and fillers say little of what a metric is about.
fn weight(word: &str) -> f64 {
    match word {
        "num" | "number" | "second" | "ms" | "perc" | "percent" | "ratio" | "current" | "duration" => 0.25,
        _ => 1.0,
    }
}

/// Twice what two names share, of what both have: 0 to 1.
fn alike(one: &[String], other: &[String]) -> f64 {
    let sum = |words: &mut dyn Iterator<Item = &String>| words.map(|word| weight(word)).sum::<f64>();
    let shared = sum(&mut one.iter().filter(|word| other.contains(word)));
    let all = sum(&mut one.iter()) + sum(&mut other.iter());
    if all > 0.0 { (2.0 * shared / all).min(1.0) } else { 0.0 }
}
