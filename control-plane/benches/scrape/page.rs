//! The pages: one of vLLM with all that it exports, and a small one.

use std::fmt::Write;

/// Which page the backends show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// All that vLLM exports, about 60 kB.
    Full,
    /// Forty series.
    Small,
}

const SHORT: [f64; 22] = [
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0,
    80.0, 160.0, 640.0, 2560.0,
];
const LONG: [f64; 21] = [
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0,
    960.0, 1920.0, 7680.0,
];
const GAPS: [f64; 19] = [
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
];
const TOKENS: [f64; 16] =
    [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5];

const LABELS: &str = "engine=\"0\",model_name=\"meta-llama/Llama-3.3-70B-Instruct\"";

/// Writes the page that a backend shows after so many seconds of steady load.
pub(crate) fn page(kind: Kind, seconds: u64) -> String {
    let mut page = String::with_capacity(64 * 1024);
    let steps = 50 * seconds;
    for (name, value) in [
        ("num_requests_running", 24 + seconds % 7),
        ("num_requests_waiting", seconds % 5),
        ("num_requests_swapped", 0),
    ] {
        single(&mut page, name, "gauge", value as f64);
    }
    single(&mut page, "kv_cache_usage_perc", "gauge", 0.4 + (seconds % 10) as f64 / 50.0);
    for (name, per_second) in [
        ("prompt_tokens_total", 4000),
        ("generation_tokens_total", 1200),
        ("request_success_total", 4),
        ("num_preemptions_total", 0),
    ] {
        single(&mut page, name, "counter", (per_second * seconds) as f64);
    }
    histogram(
        &mut page,
        "time_to_first_token_seconds",
        &SHORT[..if kind == Kind::Full { 22 } else { 12 }],
        4 * seconds,
    );
    histogram(
        &mut page,
        "inter_token_latency_seconds",
        &GAPS[..if kind == Kind::Full { 19 } else { 12 }],
        1200 * seconds,
    );
    if kind == Kind::Small {
        return page;
    }
    for name in ["queue", "prefill", "decode", "inference"] {
        histogram(&mut page, &format!("request_{name}_time_seconds"), &LONG, 4 * seconds);
    }
    histogram(&mut page, "e2e_request_latency_seconds", &LONG, 4 * seconds);
    histogram(&mut page, "request_time_per_output_token_seconds", &GAPS, 4 * seconds);
    histogram(&mut page, "iteration_tokens_total", &TOKENS, steps);
    for name in
        ["prompt_tokens", "generation_tokens", "params_max_tokens", "params_n", "max_num_generation_tokens"]
    {
        histogram(&mut page, &format!("request_{name}"), &TOKENS, 4 * seconds);
    }
    for name in ["prefix_cache", "external_prefix_cache", "mm_cache"] {
        single(&mut page, &format!("{name}_queries_total"), "counter", (4000 * seconds) as f64);
        single(&mut page, &format!("{name}_hits_total"), "counter", (900 * seconds) as f64);
    }
    let _ = writeln!(
        page,
        "# HELP vllm:cache_config_info Information of the LLMEngine CacheConfig\n# TYPE vllm:cache_config_info gauge\n\
         vllm:cache_config_info{{block_size=\"16\",cache_dtype=\"auto\",{LABELS},num_gpu_blocks=\"27321\"}} 1.0"
    );
    // The HTTP server's own, by route and status.
    for route in ["/v1/chat/completions", "/v1/completions", "/v1/models", "/health", "/metrics"] {
        for status in ["2xx", "4xx", "5xx"] {
            let labels = format!("handler=\"{route}\",method=\"POST\",status=\"{status}\"");
            let _ = writeln!(page, "http_requests_total{{{labels}}} {seconds}.0");
            for edge in SHORT.iter().skip(7).take(8) {
                let name = "http_request_duration_seconds_bucket";
                let _ = writeln!(page, "{name}{{{labels},le=\"{edge:?}\"}} {seconds}.0");
            }
        }
    }
    page
}

fn single(page: &mut String, name: &str, kind: &str, value: f64) {
    let _ = writeln!(
        page,
        "# HELP vllm:{name} Explains it.\n# TYPE vllm:{name} {kind}\nvllm:{name}{{{LABELS}}} {value:?}"
    );
}

fn histogram(page: &mut String, name: &str, edges: &[f64], count: u64) {
    let _ = writeln!(page, "# HELP vllm:{name} Histogram of it.\n# TYPE vllm:{name} histogram");
    for (at, edge) in edges.iter().enumerate() {
        let part = (at + 1) as f64 / edges.len() as f64;
        let below = (count as f64 * part).floor();
        let _ = writeln!(page, "vllm:{name}_bucket{{{LABELS},le=\"{edge:?}\"}} {below:?}");
    }
    let count = count as f64;
    let _ = writeln!(page, "vllm:{name}_bucket{{{LABELS},le=\"+Inf\"}} {count:?}");
    let _ = writeln!(
        page,
        "vllm:{name}_count{{{LABELS}}} {count:?}\nvllm:{name}_sum{{{LABELS}}} {:?}",
        count * 0.2
    );
}
