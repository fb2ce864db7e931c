use proptest::prelude::*;

use super::*;
use crate::telemetry::drops::DropReason;
use crate::telemetry::histogram::Buckets;
use crate::telemetry::lookup::PackChoice;
use crate::telemetry::packs::{TRITON, VLLM};

const CURRENT: &[u8] = include_bytes!("../fixtures/vllm.txt");
const OLD: &[u8] = include_bytes!("../fixtures/vllm_old.txt");
const GPUS: &[u8] = include_bytes!("../fixtures/dcgm.txt");

fn vllm(page: &str) -> PageReading {
    read_page(page.as_bytes(), &Packs::of(&[&VLLM]))
}

fn reading(values: &[(Field, f64)]) -> EngineReading {
    let mut reading = EngineReading::default();
    values.iter().for_each(|(field, value)| reading.set(*field, *value));
    reading
}

#[test]
fn reads_a_current_page_of_two_engines() {
    let page = read_page(CURRENT, &Packs::all());
    assert_eq!((page.engine, page.tally.bad_lines), (Some("vllm"), 0));
    assert!(page.drops.is_empty());
    let mut expected = reading(&[
        (Field::QueueDepth, 4.0),
        (Field::Running, 20.0),
        (Field::KvUsed, 0.5),
        (Field::TtftSum, 90.5),
        (Field::TtftCount, 360.0),
        (Field::InterTokenSum, 1900.0),
        (Field::InterTokenCount, 95_000.0),
        (Field::Completed, 350.0),
        (Field::PromptTokens, 182_234.0),
        (Field::OutputTokens, 97_000.0),
        (Field::BlockSize, 16.0),
        (Field::Blocks, 27_321.0),
    ]);
    expected.kv_used_max = Some(0.75);
    expected.ttft_buckets = Some(Buckets::new([(0.001, 0.0), (0.25, 290.0), (f64::INFINITY, 360.0)]));
    expected.inter_token_buckets = Some(Buckets::new([(0.01, 100.0), (f64::INFINITY, 95_000.0)]));
    assert_eq!(page.reading, expected);
}

#[test]
fn reads_the_names_of_older_releases() {
    let reading = read_page(OLD, &Packs::all()).reading;
    assert_eq!(reading.get(Field::KvUsed), Some(0.5));
    assert_eq!(reading.get(Field::InterTokenSum), Some(20.0));
    assert_eq!(reading.get(Field::InterTokenCount), Some(1000.0));
    assert_eq!(reading.get(Field::OutputTokens), Some(1004.0));
    assert_eq!(reading.get(Field::Completed), None);
}

#[test]
fn the_newer_name_wins_where_both_are_shown() {
    let page = vllm("vllm:gpu_cache_usage_perc 0.1\nvllm:kv_cache_usage_perc 0.2\n");
    assert_eq!(page.reading.get(Field::KvUsed), Some(0.2));
    let page = vllm("vllm:num_requests_waiting_by_reason{reason=\"capacity\"} 2\n");
    assert_eq!(page.reading.get(Field::QueueDepth), Some(2.0));
}

#[test]
fn gpu_utilisation_is_the_mean_of_the_gpus_that_report_it() {
    let page = read_page(GPUS, &Packs::of(&[]));
    assert!((page.reading.get(Field::GpuUtilisation).unwrap() - 0.8).abs() < 1e-9);
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
    assert_eq!(page.reading, reading(&[(Field::Completed, 7.0)]));
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
    assert_eq!(vllm("vllm:num_requests_waiting 1e7\n").reading.get(Field::QueueDepth), None);
    assert_eq!(vllm("vllm:kv_cache_usage_perc 1.02\n").reading.get(Field::KvUsed), Some(1.0));
}

#[test]
fn a_sum_with_a_bad_part_is_not_believed() {
    let page =
        vllm("vllm:num_requests_running{engine=\"0\"} 3\nvllm:num_requests_running{engine=\"1\"} NaN\n");
    assert_eq!(page.reading.get(Field::Running), None);
}

#[test]
fn ranks_that_repeat_the_same_work_are_not_added() {
    let page = vllm(
        "vllm:num_requests_running{engine=\"0\",tp_rank=\"0\"} 3\nvllm:num_requests_running{engine=\"0\",tp_rank=\"1\"} 4\n\
         vllm:num_requests_running{engine=\"1\",tp_rank=\"0\"} 5\n",
    );
    assert_eq!(page.reading.get(Field::Running), Some(9.0));
}

#[test]
fn a_simulated_server_says_so() {
    assert!(vllm("simulator_info{version=\"1\"} 1\n").reading.simulated);
    assert!(!vllm("vllm:num_requests_running 1\n").reading.simulated);
}

#[test]
fn the_engine_with_the_most_fields_is_read() {
    // Triton with vLLM inside shows the names of both.
    let page = "nv_inference_pending_request_count 9\nnv_gpu_utilization 0.5\nvllm:num_requests_running 2\n\
                vllm:num_requests_waiting 1\nvllm:kv_cache_usage_perc 0.5\nDCGM_FI_DEV_GPU_UTIL 70\n";
    let page = read_page(page.as_bytes(), &Packs::all());
    assert_eq!(page.engine, Some("vllm"));
    assert_eq!(page.reading.get(Field::QueueDepth), Some(1.0));
    assert!((page.reading.get(Field::GpuUtilisation).unwrap() - 0.7).abs() < 1e-9);
}

#[test]
fn triton_names_are_told_apart_by_their_labels() {
    let page = "nv_trt_llm_request_metrics{model=\"m\",request_type=\"waiting\"} 3\n\
                nv_trt_llm_request_metrics{model=\"m\",request_type=\"scheduled\"} 12\n\
                nv_trt_llm_request_metrics{model=\"m\",request_type=\"context\"} 2\n\
                nv_inference_exec_count{model=\"m\"} 5000\nnv_inference_queue_duration_us{model=\"m\"} 2500000\n";
    let reading = read_page(page.as_bytes(), &Packs::all()).reading;
    assert_eq!(
        reading,
        self::reading(&[(Field::QueueDepth, 3.0), (Field::Running, 12.0), (Field::QueueWaitSum, 2.5),])
    );
}

#[test]
fn a_request_through_an_ensemble_counts_once() {
    let page = |models: &[(&str, u32)]| -> String {
        let lines = models.iter().map(|(model, count)| {
            let labels = format!("{{model=\"{model}\",version=\"1\"}}");
            format!(
                "nv_inference_request_success{labels} {count}\nnv_inference_queue_duration_us{labels} {}\n",
                count * 1000
            )
        });
        lines.collect()
    };
    let counted = |page: &str, model: Option<&str>| {
        let choice = PackChoice {
            engines: Some(vec![&TRITON]),
            model: model.map(str::to_owned),
            ..PackChoice::default()
        };
        let reading = read_page(page.as_bytes(), &Packs::new(&choice)).reading;
        (reading.get(Field::Completed), reading.get(Field::QueueWaitCount))
    };
    let all = |count: f64| (Some(count), Some(count));
    let steps = [("preprocessing", 90), ("tensorrt_llm", 93), ("postprocessing", 90), ("ensemble", 90)];
    let pipeline = page(&steps);
    assert_eq!(counted(&pipeline, None), all(90.0));
    assert_eq!(counted(&pipeline, Some("org/tensorrt_llm")), all(93.0), "what the backend is said to serve");
    assert_eq!(counted(&pipeline, Some("elsewhere")), all(90.0));
    let both = page(&[("tensorrt_llm", 100), ("tensorrt_llm_bls", 30), ("ensemble", 70)]);
    assert_eq!(counted(&both, None), all(100.0), "two ways in");
    let unnamed = page(&[("tokenize", 40), ("generate", 41), ("chat", 40)]);
    assert_eq!(counted(&unnamed, None), all(41.0));
    let reading = read_page(pipeline.as_bytes(), &Packs::of(&[&TRITON])).reading;
    let waited = reading.get(Field::QueueWaitSum).unwrap();
    assert!((waited - 0.363).abs() < 1e-9, "the waits of a request's steps add up: {waited}");
}

#[test]
fn gpus_are_chosen_by_their_labels() {
    let read_gpus = |label: &str, values: &[&str]| {
        let values = values.iter().map(|value| (*value).to_owned()).collect();
        let gpus = GpuSelector::new([(label.to_owned(), values)]);
        let read = read(GPUS, PageForm::Text, &Packs::of(&[]), Some(&gpus)).reading;
        read.get(Field::GpuUtilisation).map(|part| (part * 1e6).round() / 1e6)
    };
    assert_eq!(read_gpus("gpu", &["0"]), Some(0.9));
    assert_eq!(read_gpus("uuid", &["GPU-77c0"]), Some(0.7));
    assert!((read_gpus("hostname", &["node-1"]).unwrap() - 0.8).abs() < 1e-9);
    assert_eq!(read_gpus("hostname", &["node-2"]), None);
    assert_eq!(read_gpus("pod", &["x"]), None);
}

#[test]
fn expert_ranks_repeat_and_edges_that_one_engine_lacks_are_left_out() {
    let page = "sglang:num_running_reqs{dp_rank=\"0\",moe_ep_rank=\"0\",tp_rank=\"0\"} 4\n\
                sglang:num_running_reqs{dp_rank=\"1\",moe_ep_rank=\"1\",tp_rank=\"1\"} 5\n\
                sglang:token_usage{dp_rank=\"0\",tp_rank=\"0\"} 0.2\n\
                sglang:token_usage{dp_rank=\"1\",tp_rank=\"1\"} 0.6\n\
                sglang:time_to_first_token_seconds_bucket{dp_rank=\"0\",le=\"0.1\"} 1\n\
                sglang:time_to_first_token_seconds_bucket{dp_rank=\"0\",le=\"1.0\"} 2\n\
                sglang:time_to_first_token_seconds_bucket{dp_rank=\"1\",le=\"1.0\"} 3\n\
                sglang:time_to_first_token_seconds_bucket{dp_rank=\"1\",le=\"+Inf\"} NaN\n";
    let page = read_page(page.as_bytes(), &Packs::all());
    assert_eq!(page.reading.get(Field::Running), Some(9.0));
    assert!((page.reading.get(Field::KvUsed).unwrap() - 0.4).abs() < 1e-12);
    assert_eq!(page.reading.kv_used_max, Some(0.6));
    assert_eq!(page.reading.ttft_buckets, Some(Buckets::new([(1.0, 5.0)])));
    assert_eq!(page.drops.iter().next(), Some((Field::TtftBucket, DropReason::NotANumber, 1)));
}

#[test]
fn a_million_series_are_read_in_bounds() {
    let mut page = "other{a=\"b\"} 1\n".repeat(900_000);
    for rank in 0..100_000 {
        page += &format!("vllm:num_requests_running{{tp_rank=\"0\",x=\"{rank}\"}} 1\n");
    }
    page += &format!("vllm:kv_cache_usage_perc{{model_name=\"{}\"}} 0.5\n", "x".repeat(1_000_000));
    let page = vllm(&page);
    assert_eq!(page.tally.samples, 1_000_001);
    assert_eq!(
        (page.reading.get(Field::Running), page.reading.get(Field::KvUsed)),
        (Some(100_000.0), Some(0.5))
    );
    let edges: String = (0..10_000)
        .map(|edge| format!("vllm:time_to_first_token_seconds_bucket{{le=\"{edge}\"}} {edge}\n"))
        .collect();
    let page = vllm(&edges);
    assert_eq!(page.reading.ttft_buckets.map(|buckets| buckets.edges().len()), Some(256));
    assert_eq!(page.drops.iter().next(), Some((Field::TtftBucket, DropReason::TooLarge, 1)));
}

proptest! {
    #[test]
    fn any_page_of_known_names_is_read_without_a_panic(
        lines in proptest::collection::vec(
            (prop::sample::select(Packs::all().names().map(str::to_owned).collect::<Vec<_>>()), ".{0,60}", any::<f64>()),
            0..30,
        ),
        form in prop::sample::select(vec![PageForm::Text, PageForm::Protobuf, PageForm::Json]),
    ) {
        let page: String = lines
            .iter()
            .map(|(name, labels, value)| format!("{name}{{le=\"{value}\",tp_rank=\"{value}\",{labels}}} {value}\n"))
            .collect();
        let read = read(page.as_bytes(), form, &Packs::all(), None);
        for (field, value) in read.reading.iter() {
            prop_assert_eq!(field.believe(value), Ok(value));
        }
    }

    #[test]
    fn whatever_is_read_is_plausible(
        name in prop::sample::select(VLLM.aliases.iter().map(|alias| alias.family).collect::<Vec<_>>()),
        values in proptest::collection::vec(any::<f64>(), 1..6),
    ) {
        let page: String =
            values.iter().enumerate().map(|(rank, value)| format!("{name}{{engine=\"{rank}\"}} {value}\n")).collect();
        let reading = vllm(&page).reading;
        for value in [reading.get(Field::QueueDepth), reading.get(Field::Running)].into_iter().flatten() {
            prop_assert!((0.0..=1e6).contains(&value));
        }
        for value in [reading.get(Field::KvUsed), reading.kv_used_max, reading.get(Field::GpuUtilisation)].into_iter().flatten() {
            prop_assert!((0.0..=1.0).contains(&value));
        }
        for value in [reading.get(Field::Completed), reading.get(Field::TtftSum), reading.get(Field::OutputTokens)].into_iter().flatten() {
            prop_assert!(value.is_finite() && value >= 0.0);
        }
    }
}
