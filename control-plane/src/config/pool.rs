use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use garde::Validate;
use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::gpu::GpuMetrics;
use super::metrics::{EngineLimits, MetricNames};
use super::{Discovery, Orca, Span};

/// Backends of one kind (hardware, engine settings) in one place.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
#[garde(allow_unvalidated)]
pub struct Pool {
    /// Name of the pool.
    #[garde(length(min = 1, max = 100), pattern("^[A-Za-z0-9._-]+$"))]
    pub name: String,
    /// The model server's kind; says which metric names to read (default `auto`).
    #[serde(default)]
    pub engine: Engine,
    /// URL of the metrics page, in which `{host}` and `{port}` are the backend's. Left out: `/metrics` on the backend's
    /// port; for `triton` on port 8002, for `trtllm` `/prometheus/metrics`.
    #[serde(default)]
    pub metrics_url: Option<String>,
    /// What the metrics page asks for, where it is not open to everybody; a GPU page of its own is asked without it.
    #[serde(default)]
    pub metrics_access: MetricsAccess,
    /// Names of metrics of your own; they go before those of the engine.
    #[serde(default)]
    pub metrics: MetricNames,
    /// What the engine's settings allow, where it does not export it. Left out: learned from what is seen.
    #[serde(default)]
    pub limits: EngineLimits,
    /// Where the pool is.
    #[serde(default)]
    #[garde(dive)]
    pub locality: Locality,
    /// Takes requests only while no other backend of the model can (default false). For the policies `predictive` and
    /// `static`.
    #[serde(default)]
    pub spare: bool,
    /// Requests/s that one backend serves within the SLO. Left out: learned from what it served when it was busy.
    #[serde(default)]
    #[garde(inner(range(min = 0.000_001, max = 1_000_000.0)))]
    pub capacity_rps: Option<f64>,
    /// What one backend costs in an hour, in any currency, the same for all pools; for models with a `cost_weight`.
    #[serde(default)]
    #[garde(inner(range(min = 0.0, max = 1_000_000.0)))]
    pub price_per_hour: Option<f64>,
    /// Time within which a backend that has just started rises from a fifth to all of its share (default 30 s).
    #[serde(default = "half_a_minute")]
    pub warm_up: Span,
    /// Whether Envoys check its backends, where its model has checks (default true).
    #[serde(default = "yes")]
    pub health_checks: bool,
    /// Bounds and speed of scaling.
    #[serde(default)]
    #[garde(dive)]
    pub replicas: Replicas,
    /// Where `DCGM_FI_DEV_GPU_UTIL` is read, and which GPUs are whose.
    #[serde(default)]
    pub gpu_metrics: GpuMetrics,
    /// Whether Clairvoy reads the backends' metrics pages, or somebody sends what they say.
    #[serde(default)]
    pub telemetry: PoolTelemetry,
    /// What the backends say of themselves in their answers, which Envoys bring; for pools with `telemetry: push`.
    #[serde(default)]
    pub orca: Option<Orca>,
    /// Names under which backends appear in pushed telemetry, where these are not their addresses.
    #[serde(default)]
    pub instances: BTreeMap<String, SocketAddr>,
    /// Addresses of the serving processes, `ip:port`; more can be registered through the API.
    #[serde(default)]
    pub backends: Vec<SocketAddr>,
    /// Where more backends are found.
    #[serde(default)]
    pub discovery: Discovery,
    /// Networks in which backends may be registered or found, as `10.0.0.0/8`. Left out: loopback, private networks,
    /// and the /24 or /64 of each configured backend.
    #[serde(default)]
    #[schemars(with = "Option<Vec<String>>")]
    pub allowed_networks: Option<Vec<IpNet>>,
    /// Most backends that may be registered through the API at once, those that still drain included (default 1000).
    #[serde(default = "a_thousand")]
    #[garde(range(min = 1, max = 100_000))]
    pub max_registered: usize,
}

/// How a metrics page is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MetricsAccess {
    /// Environment variable with the bearer token that is shown.
    pub token_env: Option<String>,
    /// File with certificates (PEM) that are trusted besides the system's.
    pub ca: Option<PathBuf>,
}

fn half_a_minute() -> Span {
    Span::seconds(30)
}

fn yes() -> bool {
    true
}

fn a_thousand() -> usize {
    1000
}

/// The kinds of model servers whose metrics are understood.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// Whichever of the others has the most of its names on the page.
    #[default]
    Auto,
    /// vLLM, or any server that exports its metric names.
    Vllm,
    /// SGLang.
    Sglang,
    /// Text Generation Inference.
    Tgi,
    /// Triton, with the TensorRT-LLM backend or any other.
    Triton,
    /// TensorRT-LLM's `trtllm-serve`.
    Trtllm,
    /// The server of llama.cpp.
    Llamacpp,
    /// None of these: only the names in `metrics`.
    Custom,
}

/// How a pool's telemetry comes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PoolTelemetry {
    /// Clairvoy reads the metrics pages.
    #[default]
    Scrape,
    /// Senders push it to the addresses of `telemetry.push`; nothing is scraped.
    Push,
}

/// Place of a pool, in Envoy's words.
#[derive(
    Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, JsonSchema, Validate,
)]
#[serde(deny_unknown_fields, default)]
pub struct Locality {
    /// Region, for example `us-east`.
    #[garde(length(max = 100))]
    pub region: String,
    /// Zone within the region.
    #[garde(length(max = 100))]
    pub zone: String,
}

/// Bounds of a pool's size.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields, default)]
#[garde(allow_unvalidated)]
pub struct Replicas {
    /// Fewest replicas that are ever asked for (default 1).
    pub min: u32,
    /// Most replicas that are ever asked for (default 10).
    #[garde(range(min = 1, max = 100_000))]
    pub max: u32,
    /// Time from the signal until a new replica serves (default 5 minutes); the forecast is read that far ahead.
    pub cold_start: Span,
    /// How long a smaller need has to last before fewer replicas are asked for (default 5 minutes).
    pub scale_down_after: Span,
}

impl Default for Replicas {
    fn default() -> Self {
        Self { min: 1, max: 10, cold_start: Span::seconds(300), scale_down_after: Span::seconds(300) }
    }
}
