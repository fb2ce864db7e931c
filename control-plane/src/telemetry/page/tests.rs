use proptest::prelude::*;

use super::*;
use crate::telemetry::alias::{DCGM, VLLM};

const CURRENT: &[u8] = include_bytes!("../fixtures/vllm.txt");
const OLD: &[u8] = include_bytes!("../fixtures/vllm_old.txt");
const GPUS: &[u8] = include_bytes!("../fixtures/dcgm.txt");

fn vllm(page: &str) -> PageReading {
    read_page(page.as_bytes(), &[&VLLM])
}

#[test]
fn reads_a_current_page_of_two_engines() {
    let page = read_page(CURRENT, &[&VLLM, &DCGM]);
    assert_eq!(page.tally.bad_lines, 0);
    assert!(page.drops.is_empty());
    let expected = EngineReading {
        queue_depth: Some(4.0),
        running: Some(20.0),
        kv_used: Some(0.5),
        kv_used_max: Some(0.75),
        gpu_utilisation: None,
        ttft_sum_seconds: Some(90.5),
        ttft_count: Some(360.0),
        inter_token_sum_seconds: Some(1900.0),
        inter_token_count: Some(95_000.0),
        completed: Some(350.0),
        prompt_tokens: Some(182_234.0),
        output_tokens: Some(97_000.0),
        simulated: false,
    };
    assert_eq!(page.reading, expected);
}

#[test]
fn reads_the_names_of_older_releases() {
    let reading = read_page(OLD, &[&VLLM]).reading;
    assert_eq!(reading.kv_used, Some(0.5));
    assert_eq!(reading.inter_token_sum_seconds, Some(20.0));
    assert_eq!(reading.inter_token_count, Some(1000.0));
    assert_eq!(reading.output_tokens, Some(1004.0));
    assert_eq!(reading.completed, None);
}

#[test]
fn the_newer_name_wins_where_both_are_shown() {
    let page = vllm("vllm:gpu_cache_usage_perc 0.1\nvllm:kv_cache_usage_perc 0.2\n");
    assert_eq!(page.reading.kv_used, Some(0.2));
    let page = vllm("vllm:num_requests_waiting_by_reason{reason=\"capacity\"} 2\n");
    assert_eq!(page.reading.queue_depth, Some(2.0));
}

#[test]
fn gpu_utilisation_is_the_mean_of_the_gpus_that_report_it() {
    let page = read_page(GPUS, &[&DCGM]);
    assert!((page.reading.gpu_utilisation.unwrap() - 0.8).abs() < 1e-9);
    let dropped: Vec<_> = page.drops.iter().collect();
    assert_eq!(dropped, [(Field::GpuUtilisation, DropReason::Sentinel, 1)]);
}

#[test]
fn implausible_values_are_dropped_one_by_one() {
    let page = vllm(
        "vllm:num_requests_running NaN\nvllm:num_requests_waiting -1\nvllm:kv_cache_usage_perc 1.5\n\
         vllm:prompt_tokens_total +Inf\nvllm:generation_tokens_total 9223372036854775794\n\
         vllm:request_success_total 7\n",
    );
    assert_eq!(page.reading, EngineReading { completed: Some(7.0), ..EngineReading::default() });
    let dropped: Vec<_> = page.drops.iter().map(|(field, reason, _)| (field, reason)).collect();
    let expected = [
        (Field::QueueDepth, DropReason::Negative),
        (Field::Running, DropReason::NotANumber),
        (Field::KvUsed, DropReason::TooLarge),
        (Field::PromptTokens, DropReason::Infinite),
        (Field::OutputTokens, DropReason::Sentinel),
    ];
    assert_eq!(dropped, expected);
    assert_eq!(page.known_series, 6);
    assert_eq!(vllm("vllm:num_requests_waiting 1e7\n").reading.queue_depth, None);
    assert_eq!(vllm("vllm:kv_cache_usage_perc 1.02\n").reading.kv_used, Some(1.0));
}

#[test]
fn a_sum_with_a_bad_part_is_not_believed() {
    let page =
        vllm("vllm:num_requests_running{engine=\"0\"} 3\nvllm:num_requests_running{engine=\"1\"} NaN\n");
    assert_eq!(page.reading.running, None);
}

#[test]
fn ranks_that_repeat_the_same_work_are_not_added() {
    let page = vllm(
        "vllm:num_requests_running{engine=\"0\",tp_rank=\"0\"} 3\nvllm:num_requests_running{engine=\"0\",tp_rank=\"1\"} 4\n\
         vllm:num_requests_running{engine=\"1\",tp_rank=\"0\"} 5\n",
    );
    assert_eq!(page.reading.running, Some(9.0));
}

#[test]
fn a_simulated_server_says_so() {
    assert!(vllm("simulator_info{version=\"1\"} 1\n").reading.simulated);
    assert!(!vllm("vllm:num_requests_running 1\n").reading.simulated);
}

proptest! {
    #[test]
    fn whatever_is_read_is_plausible(
        name in prop::sample::select(VLLM.aliases.iter().map(|alias| alias.series).collect::<Vec<_>>()),
        values in proptest::collection::vec(any::<f64>(), 1..6),
    ) {
        let page: String =
            values.iter().enumerate().map(|(rank, value)| format!("{name}{{engine=\"{rank}\"}} {value}\n")).collect();
        let reading = vllm(&page).reading;
        for value in [reading.queue_depth, reading.running].into_iter().flatten() {
            prop_assert!((0.0..=1e6).contains(&value));
        }
        for value in [reading.kv_used, reading.kv_used_max, reading.gpu_utilisation].into_iter().flatten() {
            prop_assert!((0.0..=1.0).contains(&value));
        }
        for value in [reading.completed, reading.ttft_sum_seconds, reading.output_tokens].into_iter().flatten() {
            prop_assert!(value.is_finite() && value >= 0.0);
        }
    }
}
