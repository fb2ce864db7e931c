//! The metrics page, in the Prometheus text format as vLLM's Python client writes it.

use std::fmt::{Display, Write as _};

use crate::engine::{EngineState, Profile};

use super::ServerState;
use super::histogram::Histogram;
use super::metrics::{FinishReason, Metrics};

/// Everything that the page shows.
pub(super) struct PageInput<'a> {
    pub(super) state: &'a ServerState,
    pub(super) profile: &'a Profile,
    pub(super) metrics: &'a Metrics,
    pub(super) started_at_unix_seconds: f64,
}

/// The true page.
pub(super) fn render(input: &PageInput<'_>) -> String {
    let PageInput { state, profile, metrics, started_at_unix_seconds: started } = *input;
    let engine = &state.engine;
    let mut page = Page::new(&state.model, started);
    page.engine_gauges(engine.running as f64, engine.waiting as f64, engine.kv_used);
    let cache = format!(
        r#"block_size="{}",cache_dtype="auto",enable_prefix_caching="{}",engine="0",num_gpu_blocks="{}""#,
        profile.block_tokens,
        if state.effects.prefix_cache { "True" } else { "False" },
        profile.num_blocks,
    );
    page.family("vllm:cache_config_info", "gauge", "Information of the LLMEngine CacheConfig");
    page.sample("vllm:cache_config_info", &cache, 1.0);
    page.counters(engine, metrics);
    page.histogram("vllm:time_to_first_token_seconds", "Time to first token.", &metrics.ttft);
    page.histogram("vllm:inter_token_latency_seconds", "Time between tokens.", &metrics.inter_token);
    page.histogram("vllm:e2e_request_latency_seconds", "Whole time of a request.", &metrics.e2e);
    page.histogram("vllm:request_queue_time_seconds", "Time in the queue.", &metrics.queue);
    page.histogram("vllm:iteration_tokens_total", "Tokens of an engine step.", &metrics.iteration_tokens);
    page.histogram(
        "vllm:request_prompt_tokens",
        "Prompt tokens of a request.",
        &metrics.request_prompt_tokens,
    );
    page.histogram(
        "vllm:request_generation_tokens",
        "Output tokens of a request.",
        &metrics.request_generation_tokens,
    );
    page.gpu(&state.address, state.gpu_utilisation_percent);
    page.simulator(state, metrics);
    page.text
}

/// A page whose values no reader should believe.
pub(super) fn render_garbage(state: &ServerState, started_at_unix_seconds: f64) -> String {
    let mut page = Page::new(&state.model, started_at_unix_seconds);
    page.engine_gauges(f64::NAN, -3.0, 57.3);
    page.counter("vllm:prompt_tokens_total", "Prefill tokens processed.", &[("", -1.0e18)]);
    page.counter("vllm:generation_tokens_total", "Tokens generated.", &[("", f64::INFINITY)]);
    // What DCGM writes for a field that the GPU does not have.
    page.gpu(&state.address, 9_223_372_036_854_775_794.0);
    page.simulator(state, &Metrics::new());
    page.text
}

struct Page {
    text: String,
    labels: String,
    created: f64,
}

impl Page {
    fn new(model: &str, created: f64) -> Self {
        let labels = format!(r#"engine="0",model_name="{}""#, escape(model));
        Self { text: String::with_capacity(16 * 1024), labels, created }
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let _ = self.text.write_fmt(line);
        self.text.push('\n');
    }

    fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}"));
    }

    fn sample(&mut self, name: &str, labels: &str, value: f64) {
        self.line(format_args!("{name}{{{labels}}} {}", number(value)));
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.family(name, "gauge", help);
        let labels = self.labels.clone();
        self.sample(name, &labels, value);
    }

    /// `samples` are further labels (with a leading comma) and values.
    fn counter(&mut self, name: &str, help: &str, samples: &[(&str, f64)]) {
        self.family(name, "counter", help);
        for (labels, value) in samples {
            let labels = format!("{}{labels}", self.labels);
            self.sample(name, &labels, *value);
        }
        let created = format!("{}_created", name.trim_end_matches("_total"));
        self.family(&created, "gauge", help);
        for (labels, _) in samples {
            let labels = format!("{}{labels}", self.labels);
            self.sample(&created, &labels, self.created);
        }
    }

    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.family(name, "histogram", help);
        let labels = self.labels.clone();
        let count = histogram.count();
        for (edge, below) in histogram.cumulative() {
            self.line(format_args!("{name}_bucket{{{labels},le=\"{edge:?}\"}} {below}.0"));
        }
        self.line(format_args!("{name}_bucket{{{labels},le=\"+Inf\"}} {count}.0"));
        self.line(format_args!("{name}_count{{{labels}}} {count}.0"));
        self.sample(&format!("{name}_sum"), &labels, histogram.sum);
        let created = format!("{name}_created");
        self.family(&created, "gauge", help);
        self.sample(&created, &labels, self.created);
    }

    fn engine_gauges(&mut self, running: f64, waiting: f64, kv_used: f64) {
        self.gauge("vllm:num_requests_running", "Requests in the batch.", running);
        self.gauge("vllm:num_requests_waiting", "Requests waiting to be processed.", waiting);
        self.gauge("vllm:kv_cache_usage_perc", "KV-cache usage. 1 means 100 percent usage.", kv_used);
    }

    fn counters(&mut self, engine: &EngineState, metrics: &Metrics) {
        let totals = &engine.totals;
        for (name, help, value) in [
            ("vllm:num_preemptions_total", "Preemptions by the engine.", totals.preemptions),
            ("vllm:prompt_tokens_total", "Prefill tokens processed.", metrics.prompt_tokens),
            ("vllm:generation_tokens_total", "Tokens generated.", metrics.generation_tokens),
            ("vllm:prefix_cache_queries_total", "Prefix cache queries, in tokens.", totals.prefix_queries),
            ("vllm:prefix_cache_hits_total", "Prefix cache hits, in tokens.", totals.prefix_hits),
        ] {
            self.counter(name, help, &[("", value as f64)]);
        }
        let finished = FinishReason::ALL.map(|reason| {
            let labels = format!(r#",finished_reason="{}""#, reason.name());
            (labels, metrics.finished_total(reason) as f64)
        });
        let finished: Vec<(&str, f64)> =
            finished.iter().map(|(labels, value)| (labels.as_str(), *value)).collect();
        self.counter("vllm:request_success_total", "Requests finished.", &finished);
    }

    fn gpu(&mut self, host: &dyn Display, percent: f64) {
        self.family("DCGM_FI_DEV_GPU_UTIL", "gauge", "GPU utilization (in %).");
        let labels = format!(r#"gpu="0",modelName="simulated",Hostname="{host}""#);
        // DCGM writes whole numbers.
        self.line(format_args!("DCGM_FI_DEV_GPU_UTIL{{{labels}}} {percent:.0}"));
    }

    fn simulator(&mut self, state: &ServerState, metrics: &Metrics) {
        self.family("simulator_info", "gauge", "This server is simulated: no model, no GPU.");
        let labels = format!(
            r#"model_name="{}",class="{}",seed="{}",version="{}""#,
            escape(&state.model),
            state.class,
            state.seed,
            env!("CARGO_PKG_VERSION"),
        );
        self.sample("simulator_info", &labels, 1.0);
        for (name, help, value) in [
            ("simulator_errors_injected_total", "Requests failed on purpose.", metrics.injected_errors),
            (
                "simulator_requests_refused_total",
                "Requests refused: queue full.",
                state.engine.totals.refused,
            ),
        ] {
            self.family(name, "counter", help);
            self.line(format_args!("{name} {value}"));
        }
        self.family("process_start_time_seconds", "gauge", "Start of the server since the Unix epoch.");
        let created = self.created;
        self.line(format_args!("process_start_time_seconds {created}"));
    }
}

fn escape(value: &str) -> String {
    value.replace('\\', r"\\").replace('"', r#"\""#).replace('\n', r"\n")
}

/// Python's way of writing a float.
fn number(value: f64) -> String {
    match value {
        f64::INFINITY => "+Inf".to_owned(),
        f64::NEG_INFINITY => "-Inf".to_owned(),
        value => format!("{value:?}"),
    }
}
