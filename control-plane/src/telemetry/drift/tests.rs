use std::fmt::Write;
use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::telemetry::alias::{Alias, AliasPack};
use crate::telemetry::field::{Kind, Timing};
use crate::telemetry::limits::{Limit, LimitSource};
use crate::telemetry::lookup::Packs;
use crate::telemetry::page::{PageForm, read};

/// vLLM as it was known before names changed.
const OLD: AliasPack = AliasPack {
    name: "old",
    aliases: &[
        Alias::value("vllm:num_requests_waiting", Field::QueueDepth),
        Alias::value("vllm:num_requests_running", Field::Running),
        Alias::value("vllm:gpu_cache_usage_perc", Field::KvUsed),
        Alias::histogram("vllm:time_to_first_token_seconds", Timing::Ttft),
        Alias::histogram("vllm:time_per_output_token_seconds", Timing::InterToken),
        Alias::counter("vllm:request_success", Field::Completed),
        Alias::counter("vllm:generation_tokens", Field::OutputTokens),
    ],
    promises: &[Field::QueueDepth, Field::Running, Field::KvUsed],
};

/// A page of a busy server after `step` scrapes; `renamed` are pairs of old and new names.
fn page(step: u32, renamed: &[(&str, &str)]) -> String {
    let mut page = String::new();
    for (name, kind, value) in [
        ("vllm:num_requests_waiting", "gauge", 1.0),
        ("vllm:num_requests_running", "gauge", 4.0 + f64::from(step % 2)),
        ("vllm:gpu_cache_usage_perc", "gauge", 0.3),
        ("vllm:cpu_cache_usage_perc", "gauge", 0.0),
        ("vllm:gpu_prefix_cache_hit_rate", "gauge", 0.5),
        ("vllm:num_requests_swapped", "gauge", 0.0),
        ("vllm:request_success_total", "counter", 10.0 * f64::from(step)),
        ("vllm:generation_tokens_total", "counter", 3000.0 * f64::from(step)),
        ("vllm:num_preemptions_total", "counter", 0.0),
    ] {
        let shown = renamed.iter().find(|(old, _)| *old == name).map_or(name, |(_, new)| new);
        writeln!(page, "# TYPE {shown} {kind}\n{shown}{{model_name=\"m\"}} {value}").unwrap();
    }
    for name in [
        "vllm:time_to_first_token_seconds",
        "vllm:time_per_output_token_seconds",
        "vllm:request_time_per_output_token_seconds",
        "vllm:request_prefill_time_seconds",
    ] {
        let shown = renamed.iter().find(|(old, _)| *old == name).map_or(name, |(_, new)| new);
        let count = 10 * step;
        writeln!(page, "# TYPE {shown} histogram\n{shown}_bucket{{le=\"+Inf\"}} {count}").unwrap();
        writeln!(page, "{shown}_sum {count}\n{shown}_count {count}").unwrap();
    }
    page
}

/// A watch with the names that it reads by.
struct Bench {
    watch: DriftWatch,
    packs: Packs,
    limits: Limits,
}

impl Bench {
    fn new(pack: &'static AliasPack) -> Self {
        Self { watch: DriftWatch::default(), packs: Packs::of(&[pack]), limits: Limits::default() }
    }

    /// One for the pages of the named engine.
    fn of_engine(name: &str) -> Self {
        let pack = crate::telemetry::ENGINES.into_iter().find(|pack| pack.name == name).unwrap();
        Self::new(pack)
    }

    fn read(&mut self, text: &str) -> Vec<String> {
        self.read_as(text, false)
    }

    fn read_as(&mut self, text: &str, restarted: bool) -> Vec<String> {
        let inquiry = self.watch.inquiry();
        let page = read(text.as_bytes(), PageForm::Text, &self.packs, None);
        let findings = inquire(text.as_bytes(), PageForm::Text, &self.packs, &page, &inquiry);
        let promises = self.packs.promises(page.engine);
        let seen = Observation {
            page: &page,
            promises,
            limits: &self.limits,
            restarted,
            unasked: FieldSet::default(),
        };
        self.watch.observe(&seen, findings).iter().map(ToString::to_string).collect()
    }
}

/// Reads good pages, then pages with other names, and returns what is told within `pages` of them.
fn after_renaming(old: &'static str, new: &'static str, pages: u32) -> Vec<String> {
    let mut bench = Bench::new(&OLD);
    for step in 1..10 {
        assert_eq!(bench.read(&page(step, &[])), [""; 0]);
    }
    (10..10 + pages).flat_map(|step| bench.read(&page(step, &[(old, new)]))).collect()
}

#[test]
fn renamed_metrics_are_told_within_two_scrapes_with_their_new_name() {
    let told = after_renaming("vllm:gpu_cache_usage_perc", "vllm:kv_cache_usage_perc", 2);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(
        told[0].starts_with("kv_used is no longer") && told[0].contains(" vllm:kv_cache_usage_perc:"),
        "{told:?}"
    );
    for (old, new, field) in [
        ("vllm:time_per_output_token_seconds", "vllm:inter_token_latency_seconds", "inter_token_count"),
        ("vllm:request_success_total", "vllm:requests_finished_total", "completed"),
        ("vllm:generation_tokens_total", "vllm:output_tokens_total", "output_tokens"),
        ("vllm:num_requests_running", "vllm:engine_running_requests", "running"),
    ] {
        let told = after_renaming(old, new, 3);
        let new = new.trim_end_matches("_total");
        assert!(told.iter().any(|told| told.starts_with(field) && told.contains(new)), "{new}: {told:?}");
    }
}

#[test]
fn a_metric_that_never_was_there_is_told_and_one_that_comes_back_ends_it() {
    let mut bench = Bench::new(&OLD);
    let renamed = [("vllm:gpu_cache_usage_perc", "vllm:kv_cache_usage_perc")];
    assert_eq!(bench.read(&page(1, &renamed)), [""; 0]);
    let told = bench.read(&page(2, &renamed));
    assert!(told.len() == 1 && told[0].starts_with("kv_used was never"), "{told:?}");
    assert!(told[0].contains("vllm:kv_cache_usage_perc"), "{told:?}");
    assert_eq!(bench.read(&page(3, &renamed)), [""; 0], "told once");
    assert_eq!(bench.watch.faults()[0].kind, FaultKind::NeverSeen);
    let told = bench.read(&page(4, &[]));
    assert!(told.len() == 1 && told[0].starts_with("no longer: kv_used"), "{told:?}");
    assert!(bench.watch.faults().is_empty());
}

#[test]
fn one_torn_page_is_no_event_and_neither_is_an_idle_restart() {
    let mut bench = Bench::new(&OLD);
    bench.read(&page(1, &[]));
    assert_eq!(bench.read("vllm:num_requests_running 4\n"), [""; 0]);
    assert_eq!(bench.read(&page(2, &[])), [""; 0]);
    // Series with labels come with the first request.
    let idle = "vllm:num_requests_running 0\nvllm:num_requests_waiting 0\nvllm:gpu_cache_usage_perc 0\n";
    for _ in 0..10 {
        assert_eq!(bench.read(idle), [""; 0]);
    }
}

#[test]
fn a_page_that_lost_all_its_names_is_explained() {
    let mut bench = Bench::new(&OLD);
    (1..5).for_each(|step| drop(bench.read(&page(step, &[]))));
    let told: Vec<String> =
        (5..7).flat_map(|step| bench.read(&page(step, &[]).replace("vllm:", "vllm_"))).collect();
    for field in ["queue_depth", "running", "kv_used"] {
        let told = told.iter().find(|told| told.starts_with(field)).unwrap();
        assert!(told.contains(" vllm_"), "{told}");
    }
}

#[test]
fn a_restart_makes_no_metric_vanish() {
    let mut bench = Bench::new(&OLD);
    (1..5).for_each(|step| drop(bench.read(&page(step, &[]))));
    // While it starts, an engine shows its process only.
    for _ in 0..5 {
        assert_eq!(bench.read("python_info 1\n"), [""; 0]);
    }
    // With the first requests some histograms are not there yet.
    let young = |step: u32| {
        format!(
            "vllm:num_requests_running 2\nvllm:num_requests_waiting 0\nvllm:gpu_cache_usage_perc 0.1\n\
             vllm:generation_tokens_total {}\n",
            10 * step
        )
    };
    assert_eq!(bench.read_as(&young(1), true), [""; 0]);
    (2..20).for_each(|step| assert_eq!(bench.read(&young(step)), [""; 0]));
}

#[test]
fn a_frozen_engine_beside_a_gpu_that_is_busy_is_told() {
    let mut bench = Bench::new(&OLD);
    let told: Vec<String> = (0..40)
        .flat_map(|step| {
            bench.read(&format!("{}DCGM_FI_DEV_GPU_UTIL{{gpu=\"0\"}} {}\n", page(7, &[]), 50 + step % 3))
        })
        .collect();
    assert_eq!(told, ["all numbers stand still with 5 requests running and 1 waiting"]);
}

#[test]
fn a_counter_that_stands_still_under_traffic_is_told() {
    let mut bench = Bench::new(&OLD);
    let stuck = |step| {
        page(step, &[]).replace(
            &format!("vllm:request_success_total{{model_name=\"m\"}} {}\n", 10 * step),
            "vllm:request_success_total{model_name=\"m\"} 50\n",
        )
    };
    (1..6).for_each(|step| assert_eq!(bench.read(&page(step, &[])), [""; 0]));
    let told: Vec<String> = (6..12).flat_map(|step| bench.read(&stuck(step))).collect();
    assert_eq!(told, ["completed stands still while ttft_count grows"]);
    let told = bench.read(&page(12, &[]));
    assert_eq!(told, ["no longer: completed stands still while ttft_count grows"]);
}

#[test]
fn frozen_numbers_are_told_only_while_requests_are_there() {
    let mut bench = Bench::new(&OLD);
    let told: Vec<String> = (0..40).flat_map(|_| bench.read(&page(7, &[]))).collect();
    assert_eq!(told, ["all numbers stand still with 5 requests running and 1 waiting"]);
    let mut idle = Bench::new(&OLD);
    let quiet =
        page(7, &[]).replace("} 5\n", "} 0\n").replace("waiting{model_name=\"m\"} 1\n", "waiting 0\n");
    assert_eq!((0..40).flat_map(|_| idle.read(&quiet)).collect::<Vec<_>>(), [""; 0]);
}

#[test]
fn implausible_values_are_told_when_they_come_again_and_again() {
    let mut bench = Bench::new(&OLD);
    let wrong = |step, value: &str| {
        page(step, &[]).replace("waiting{model_name=\"m\"} 1\n", &format!("waiting {value}\n"))
    };
    assert_eq!((1..5).flat_map(|step| bench.read(&wrong(step, "-1"))).collect::<Vec<_>>(), [""; 0]);
    assert_eq!(bench.read(&wrong(5, "-1")), ["queue_depth is dropped again and again: negative"]);
    let told: Vec<String> = (6..14).flat_map(|step| bench.read(&page(step, &[]))).collect();
    assert_eq!(told, ["no longer: queue_depth is dropped again and again: negative"]);
}

#[test]
fn more_running_than_the_limit_is_told_unless_it_was_only_learned() {
    for (source, expected) in [(LimitSource::Exported, 1), (LimitSource::Learned, 0)] {
        let mut bench = Bench::new(&OLD);
        bench.limits.max_running = Some(Limit { value: 2.0, source });
        let told: Vec<String> = (1..6).flat_map(|step| bench.read(&page(step, &[]))).collect();
        assert_eq!(told.len(), expected, "{told:?}");
    }
}

/// The text pages of all engines that are known, with the engine's name.
fn golden() -> Vec<(&'static str, String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/scrapes");
    let mut pages = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().unwrap() == "txt" {
            let text = std::fs::read_to_string(&path).unwrap();
            let engine = read(text.as_bytes(), PageForm::Text, &Packs::all(), None).engine.unwrap();
            pages.push((engine, path.file_name().unwrap().to_string_lossy().into_owned(), text));
        }
    }
    assert!(pages.len() > 10);
    pages
}

/// A page with one name in the place of another, as a whole word.
fn renamed(page: &str, old: &str, new: &str) -> String {
    let is_part = |byte: Option<char>| byte.is_some_and(|byte| byte.is_alphanumeric() || "_:".contains(byte));
    let mut text = String::new();
    let mut rest = page;
    while let Some(at) = rest.find(old) {
        let end = at + old.len();
        let whole = !is_part(rest[..at].chars().next_back().or(text.chars().next_back()))
            && !is_part(rest[end..].chars().next());
        text.push_str(&rest[..at]);
        text.push_str(if whole { new } else { old });
        rest = &rest[end..];
    }
    text + rest
}

#[test]
fn any_gauge_of_any_engine_that_is_renamed_or_gone_is_told_within_two_scrapes() {
    let mut tried = FieldSet::default();
    let mut told_of = std::collections::BTreeMap::<&str, usize>::new();
    for (engine, file, text) in golden() {
        let packs = Bench::of_engine(engine).packs;
        for name in packs.names() {
            let fields: Vec<Field> = packs.resolve(name).iter().map(|known| known.field).collect();
            let is_gauge = fields.iter().all(|field| matches!(field.kind(), Kind::Gauge | Kind::Limit));
            if !is_gauge || renamed(&text, name, "other") == text {
                continue;
            }
            for new in [format!("{name}_now"), String::new()] {
                // Without a name, the metric is gone.
                let after = match new.is_empty() {
                    false => renamed(&text, name, &new),
                    true => text
                        .lines()
                        .filter(|line| !line.starts_with(name))
                        .fold(String::new(), |text, line| text + line + "\n"),
                };
                let present = read(after.as_bytes(), PageForm::Text, &packs, None).present;
                let gone: Vec<Field> =
                    fields.iter().copied().filter(|field| !present.contains(*field)).collect();
                let mut bench = Bench::of_engine(engine);
                for _ in 0..5 {
                    let told = bench.read(&text);
                    assert!(!told.iter().any(|told| told.contains("metrics page")), "{file}: {told:?}");
                }
                let told: Vec<String> = (0..2).flat_map(|_| bench.read(&after)).collect();
                for field in gone {
                    // Those that say the same as another one.
                    let silent = matches!(field, Field::KvTokens | Field::KvTokensUsed)
                        && present.contains(Field::KvUsed)
                        || field == Field::BlockSize && !present.contains(Field::Blocks);
                    let event = told.iter().find(|told| told.starts_with(&format!("{field} is no longer")));
                    assert_eq!(event.is_some(), !silent, "{file}: {name} to {new:?}: {field}: {told:?}");
                    if let Some(event) = event {
                        let named = event.contains(&format!("now be called {new}:"));
                        assert!(new.is_empty() || named, "{file}: {name}: {event}");
                        tried.insert(field);
                        *told_of.entry(engine).or_default() += 1;
                    }
                }
            }
        }
    }
    assert!(told_of.len() >= 6 && tried.len() >= 8, "{told_of:?}, {tried:?}");
}

#[test]
fn a_gauge_that_comes_with_the_first_request_is_no_event_after_a_restart() {
    let mut bench = Bench::of_engine("trtllm");
    let (_, _, text) = golden().into_iter().find(|(engine, ..)| *engine == "trtllm").unwrap();
    (0..5).for_each(|_| assert_eq!(bench.read(&text), [""; 0]));
    // It ends and begins anew; until the first iteration it shows one of its names only.
    bench.watch.interrupted();
    for _ in 0..20 {
        assert_eq!(bench.read("trtllm_kv_cache_tokens_per_block 32\n"), [""; 0]);
    }
    // The same where no scrape fell into the gap.
    let mut bench = Bench::of_engine("trtllm");
    (0..5).for_each(|_| assert_eq!(bench.read(&text), [""; 0]));
    for _ in 0..20 {
        assert_eq!(bench.read("trtllm_kv_cache_tokens_per_block 32\n"), [""; 0]);
    }
}

#[test]
fn a_gauge_that_comes_and_goes_is_told_once() {
    let mut bench = Bench::of_engine("llamacpp");
    let idle = "llamacpp:requests_deferred 0\nllamacpp:requests_processing 0\n";
    let busy = format!("{idle}llamacpp:kv_cache_usage_ratio 0.1\n");
    let mut told = Vec::new();
    for _ in 0..10 {
        (0..5).for_each(|_| told.extend(bench.read(&busy)));
        (0..5).for_each(|_| told.extend(bench.read(idle)));
    }
    assert_eq!(told.len(), 2, "{told:?}");
}

proptest! {
    #![proptest_config(crate::fuzz::few_cases())]

    #[test]
    fn a_page_that_keeps_its_names_never_makes_one_vanish(
        at in 0_usize..1000,
        values in proptest::collection::vec(0_u32..3, 1..30),
    ) {
        let pages = golden();
        let (engine, file, text) = &pages[at % pages.len()];
        let mut bench = Bench::of_engine(engine);
        for value in values {
            // Gauges and counters of whatever value: idle, busy, begun anew.
            let page: String = text
                .lines()
                .map(|line| match line.rsplit_once(' ') {
                    Some((series, _)) if !line.starts_with('#') && series.contains(|c: char| c.is_alphabetic()) => {
                        format!("{series} {}\n", f64::from(value) / 2.0)
                    }
                    _ => format!("{line}\n"),
                })
                .collect();
            let told = bench.read(&page);
            let gone = told.iter().find(|told| told.contains("metrics page"));
            prop_assert!(gone.is_none(), "{file}: {gone:?}");
        }
    }

    #[test]
    fn a_page_that_is_torn_now_and_then_is_no_event(at in 0_usize..1000, cuts in proptest::collection::vec(0.0..1.0, 1..8)) {
        let pages = golden();
        let (engine, file, text) = &pages[at % pages.len()];
        let mut bench = Bench::of_engine(engine);
        for cut in cuts {
            let to = (text.len() as f64 * cut) as usize;
            let to = (to..=text.len()).find(|to| text.is_char_boundary(*to)).unwrap();
            for page in [text, text, &text[..to].to_owned()] {
                let told = bench.read(page);
                prop_assert!(!told.iter().any(|told| told.contains("metrics page")), "{file}: {told:?}");
            }
        }
    }
}
