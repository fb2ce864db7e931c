use super::*;
use crate::telemetry::field::Timing;
use crate::telemetry::packs::VLLM;

#[test]
fn names_resolve_to_fields_with_scale_and_preference() {
    let packs = Packs::all();
    let only = |name: &str| match packs.resolve(name) {
        [spelling] => spelling.clone(),
        other => panic!("{name}: {other:?}"),
    };
    assert_eq!(only("vllm:num_requests_running").field, Field::Running);
    assert!(only("vllm:kv_cache_usage_perc").preference < only("vllm:gpu_cache_usage_perc").preference);
    assert!(only("vllm:prompt_tokens_total").preference < only("vllm:prompt_tokens").preference);
    assert_eq!(only("nv_inference_first_response_histogram_ms_sum").scale, 1e-3);
    assert_eq!(only("nv_inference_first_response_histogram_ms_count").scale, 1.0);
    assert_eq!(only("nv_inference_queue_duration_us").field, Field::QueueWaitSum);
    assert_eq!(only("vllm:iteration_tokens_total_count").field, Field::Iterations);
    assert_eq!(packs.resolve("vllm:cache_config_info").len(), 2);
    assert_eq!(packs.resolve("nv_inference_exec_count"), []);
    assert_eq!(packs.resolve("nv_trt_llm_request_metrics").len(), 3);
}

#[test]
fn names_of_the_user_go_before_those_of_the_engine() {
    let mut custom = CustomMetrics::default();
    custom.value("my_queue", Field::QueueDepth, 1.0, &[]);
    custom.value("my_done", Field::Completed, 1.0, &[("pool".into(), "a".into())]);
    custom.histogram("my_first_token_ms", Timing::Ttft, 0.001, &[]);
    let packs =
        Packs::new(&PackChoice { engines: Some(vec![&VLLM]), gpu: false, custom: Some(custom), model: None });
    let (own, engines) = (packs.resolve("my_queue"), packs.resolve("vllm:num_requests_waiting"));
    assert!(own[0].preference < engines[0].preference);
    assert_eq!(packs.resolve("my_done_total")[0].only, [("pool".into(), "a".into())]);
    assert_eq!(packs.resolve("my_first_token_ms_bucket")[0].scale, 0.001);
    assert_eq!(packs.resolve("DCGM_FI_DEV_GPU_UTIL"), []);
}

#[test]
fn no_pack_says_one_thing_twice() {
    for pack in ENGINES.into_iter().chain([&DCGM]) {
        let packs = Packs::of(&[pack]);
        for field in Field::ALL {
            let mut seen = std::collections::HashSet::new();
            for spelling in packs.spellings().iter().filter(|known| known.field == field) {
                assert!(seen.insert((spelling.preference, spelling.pack)), "{} {field}", pack.name);
            }
        }
    }
}
