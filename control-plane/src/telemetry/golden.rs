//! Pages of one and the same load in the names of each engine, with the sample that each must give.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::DateTime;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::delta::difference;
use super::limits::{ConfiguredLimits, LearnedLimits, Limits};
use super::lookup::Packs;
use super::page::{PageForm, PageReading, read};
use super::sample::Sample;

/// What a page must give.
#[derive(Deserialize)]
struct Expected {
    engine: String,
    /// The sample of an engine that started a second before; what is left out is unknown or zero.
    sample: BTreeMap<String, f64>,
    limits: BTreeMap<String, f64>,
}

fn pages() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/scrapes");
    let is_page = |path: &PathBuf| !path.to_string_lossy().ends_with(".expected.json");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut pages: Vec<_> = files.filter(is_page).collect();
    pages.sort();
    pages
}

fn read_file(path: &Path) -> PageReading {
    let form = if path.extension().unwrap() == "json" { PageForm::Json } else { PageForm::Text };
    read(&std::fs::read(path).unwrap(), form, &Packs::all(), None)
}

fn sample(page: &PageReading) -> Sample {
    let start = page.reading.at_start();
    let before = Some((&start, Duration::from_secs(1)));
    difference("backend".into(), DateTime::UNIX_EPOCH, before, &page.reading).sample
}

/// The numbers of a sample, unknown ones as null.
fn numbers(sample: &Sample) -> Map<String, Value> {
    let Value::Object(mut fields) = serde_json::to_value(sample).unwrap() else { panic!("no object") };
    for other in ["at", "backend", "interval_seconds", "simulated"] {
        fields.remove(other).unwrap();
    }
    fields
}

fn alike(one: f64, other: f64) -> bool {
    (one - other).abs() <= 1e-9 * one.abs().max(1.0)
}

#[test]
fn every_page_gives_its_sample_and_limits() {
    let pages = pages();
    assert!(pages.len() >= 12, "{} pages", pages.len());
    for path in pages {
        let name = path.display();
        let expected = std::fs::read(path.with_extension("expected.json")).unwrap();
        let expected: Expected = serde_json::from_slice(&expected).unwrap();
        let page = read_file(&path);
        assert_eq!(page.engine, Some(expected.engine.as_str()), "{name}");
        assert_eq!(page.tally.bad_lines, 0, "{name}");
        let numbers = numbers(&sample(&page));
        for (field, value) in &numbers {
            let value = value.as_f64();
            let right = match expected.sample.get(field) {
                Some(expected) => value.is_some_and(|value| alike(value, *expected)),
                None => value.unwrap_or(0.0) == 0.0,
            };
            assert!(right, "{name}: {field} is {value:?}, not {:?}", expected.sample.get(field));
        }
        let unknown = expected.sample.keys().find(|field| !numbers.contains_key(*field));
        assert_eq!(unknown, None, "{name}: no such field");
        let limits = Limits::of(&ConfiguredLimits::default(), &page.reading, &LearnedLimits::default());
        let limits = serde_json::to_value(limits).unwrap();
        for (limit, told) in limits.as_object().unwrap() {
            let told = told.get("value").and_then(Value::as_f64);
            assert_eq!(told, expected.limits.get(limit).copied(), "{name}: {limit}");
        }
    }
}

#[test]
fn the_same_load_is_the_same_in_all_engines_that_tell() {
    // What is counted otherwise: gaps by request or by token, steps of a page with two, GPUs of some pages only.
    let differing = ["inter_token_p95_seconds", "iterations", "kv_used_max", "gpu_utilisation", "arrived"];
    let mut told: BTreeMap<String, (f64, PathBuf)> = BTreeMap::new();
    let mut compared = 0;
    for path in pages() {
        for (field, value) in numbers(&sample(&read_file(&path))) {
            let Some(value) = value.as_f64().filter(|value| *value != 0.0) else { continue };
            if differing.contains(&field.as_str()) {
                continue;
            }
            let (first, whose) = told.entry(field.clone()).or_insert((value, path.clone()));
            assert!(alike(*first, value), "{field}: {first} in {whose:?}, {value} in {path:?}");
            compared += 1;
        }
    }
    assert!(compared > 100, "{compared} values compared");
}

#[test]
fn pages_say_that_they_were_written() {
    for path in pages() {
        let text = std::fs::read_to_string(&path).unwrap();
        let head: String = text.lines().take(40).collect();
        assert!(head.contains("not recorded from a running server"), "{}", path.display());
    }
}
