//! View: what the API and the dashboard show, as plain serialisable data.

mod canary;
mod demand;
mod profile;
mod proxies;
mod zones;

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::Policy;

pub use canary::{CanaryView, SteppedBackView};
pub use demand::{ActualPoint, Demand, ForecastPoint, IssuedPoint, LatestForecast};
pub use profile::ProfileView;
pub use proxies::{NackView, ProxyState, ProxyView, QuarantineView};
pub use zones::{ZoneShareView, ZoneView};

/// Everything that is shown live; one is sent each second.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct State {
    /// When it was taken.
    pub now: DateTime<Utc>,
    /// Version of Clairvoy.
    pub version: String,
    /// True when any backend says that it is simulated.
    pub simulated: bool,
    /// Models, sorted by name.
    pub models: Vec<ModelView>,
    /// Pools, in the order of the configuration.
    pub pools: Vec<PoolView>,
    /// Backends, by model, pool and address.
    pub backends: Vec<BackendView>,
    /// Connected Envoys.
    pub proxies: Vec<ProxyView>,
    /// Resources that are held back because Envoys refused them.
    #[serde(default)]
    pub quarantined: Vec<QuarantineView>,
    /// Newest decisions first.
    pub decisions: Vec<DecisionView>,
    /// Counts since the start of the process, unless said otherwise.
    pub totals: Totals,
    /// Newest events first.
    pub events: Vec<EventView>,
}

/// One model.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ModelView {
    /// Its name.
    pub name: String,
    /// Requests/s over the last ten seconds.
    pub demand_rps: f64,
    /// Who counted it.
    #[serde(default)]
    pub demand_source: DemandSource,
    /// Output tokens/s over the last ten seconds.
    pub tokens_per_second: f64,
    /// Who counted them.
    #[serde(default)]
    pub tokens_source: DemandSource,
    /// Prompt tokens/s over the last ten seconds; none where access logs tell none.
    #[serde(default)]
    pub prompt_tokens_per_second: Option<f64>,
    /// Length of a forecast step, seconds.
    pub step_seconds: u32,
    /// The time to first token that 95 % of requests should stay below, seconds.
    pub slo_ttft_seconds: f64,
    /// The newest forecast.
    pub forecast: Option<ForecastView>,
    /// Shares of its groups, as published.
    pub shares: Vec<ShareView>,
    /// Zones whose Envoys have shares of their own, with a `zone_preference`.
    #[serde(default)]
    pub zones: Vec<ZoneView>,
    /// How its requests are spread over its backends, as configured; only with `predictive` predictions steer anything.
    #[serde(default)]
    pub policy: Policy,
    /// How far predictions may steer its traffic: `shadow`, `advise`, `canary` or `enforce`.
    #[serde(default)]
    pub rung: String,
    /// Part of its requests that Envoys are told to send by predictions, 0 to 1; the others go by capacity.
    #[serde(default)]
    pub predictive_ratio: f64,
    /// Why predictions steer nothing although they are meant to.
    #[serde(default)]
    pub fallback: Option<String>,
    /// Since when.
    #[serde(default)]
    pub fallback_since: Option<DateTime<Utc>>,
    /// How the steered part does beside the rest; none on other rungs than `canary`.
    #[serde(default)]
    pub canary: Option<CanaryView>,
    /// What of its requests is refused.
    #[serde(default)]
    pub shed: ShedView,
}

/// What is refused of a model's requests because more come than it can serve.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ShedView {
    /// Part of the batch requests that Envoys are told to refuse, 0 to 1.
    pub batch_ratio: f64,
    /// Part of the interactive requests, likewise.
    pub interactive_ratio: f64,
    /// Part of the batch requests that was decided to be refused; on the rungs `shadow` and `advise` no Envoy is told.
    pub advised_batch_ratio: f64,
    /// Part of the interactive requests, likewise.
    pub advised_interactive_ratio: f64,
    /// Batch requests that Envoys logged as refused, since the start.
    pub batch_refused: f64,
    /// Interactive requests, likewise.
    pub interactive_refused: f64,
    /// Since when something is to be refused; none while nothing is.
    #[serde(default)]
    pub since: Option<DateTime<Utc>>,
    /// Why; none while nothing is to be refused.
    pub reason: Option<String>,
}

/// Who counts a model's demand, or its tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DemandSource {
    /// The Envoys, in their load reports, and tokens in their access logs.
    Envoys,
    /// The model servers, in their metrics.
    #[default]
    Servers,
}

/// The newest forecast of a model's demand, in short.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ForecastView {
    /// When it was made.
    pub issued_at: DateTime<Utc>,
    /// Who has the most weight in the nearest step, such as `last_value` or `regression`.
    pub expert: String,
    /// Recent error of its median relative to the demand; none while unknown.
    pub error_ratio: Option<f64>,
    /// The forecast at now + cold start.
    pub cold_start: ColdStartView,
    /// How the forecasts of each horizon have done, as they were issued.
    pub record: Vec<RecordView>,
}

/// How the forecasts of one horizon have done over the last days, as they were issued.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct RecordView {
    /// How far ahead, seconds.
    pub horizon_seconds: u32,
    /// Outcomes that came since the model was made.
    pub outcomes: u64,
    /// Absolute error of the median per unit of demand; none while unknown.
    pub error_ratio: Option<f64>,
    /// The same in parts of that of the better baseline (last value, last season): below one is skill.
    pub skill_ratio: Option<f64>,
    /// Share of outcomes at or below the 90 % bound.
    pub coverage_q90: Option<f64>,
    /// Share of outcomes at or below the 95 % bound.
    pub coverage_q95: Option<f64>,
    /// The baseline that carries the forecast because all experts together have lately done worse.
    pub baseline: Option<String>,
    /// Experts by their weight in the median, the heaviest first, a few.
    pub experts: Vec<ExpertView>,
}

/// One expert of a forecast.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ExpertView {
    /// Its name, such as `seasonal_naive`.
    pub name: String,
    /// Its part of the median, 0 to 1.
    pub weight: f64,
}

/// The forecast by which replicas are planned.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ColdStartView {
    /// How far ahead, seconds.
    pub horizon_seconds: u32,
    /// Median, requests/s.
    pub q50: f64,
    /// 90 % quantile, requests/s.
    pub q90: f64,
}

/// The share of one group.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ShareView {
    /// The group.
    pub group: String,
    /// Its locality: zone and group.
    pub locality: String,
    /// Share of the model's traffic, 0 to 1.
    pub share: f64,
    /// Requests/s that Envoys sent there, over ten seconds; none while not every Envoy reports.
    #[serde(default)]
    pub requests_per_second: Option<f64>,
    /// Requests/s that failed there, over ten seconds: 5xx, resets, no connection.
    #[serde(default)]
    pub errors_per_second: Option<f64>,
    /// Requests that Envoys have running there, as last reported.
    #[serde(default)]
    pub requests_in_progress: Option<f64>,
}

/// One pool.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct PoolView {
    /// Its name.
    pub name: String,
    /// The model that it serves.
    pub model: String,
    /// Its zone.
    pub zone: String,
    /// Its region.
    pub region: String,
    /// Its size, present and planned.
    pub replicas: ReplicasView,
    /// How finding its backends does; none where nothing is looked for and no lease is overdue.
    pub discovery: Option<DiscoveryView>,
}

/// How finding the backends of a pool does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DiscoveryView {
    /// True while backends are kept that their source no longer vouches for.
    pub stale: bool,
    /// Since when lookups have failed or been empty.
    pub stale_since: Option<DateTime<Utc>>,
    /// Why it is stale.
    pub reason: Option<String>,
    /// True while backends are kept for a time because more than half of those found were gone at once.
    pub holding: bool,
}

/// Size of a pool.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ReplicasView {
    /// Replicas that serve.
    pub ready: u32,
    /// Replicas that it should have.
    pub planned: u32,
    /// Replicas that the present load needs.
    pub needed_now: u32,
    /// Replicas that the forecast at now + cold start needs.
    pub needed_forecast: Option<u32>,
    /// Lower bound.
    pub min: u32,
    /// Upper bound.
    pub max: u32,
    /// Time from the signal until a new replica serves, seconds.
    pub cold_start_seconds: f64,
    /// Why.
    pub reason: String,
}

/// What a backend is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BackendState {
    /// Serves, with fresh telemetry.
    Ready,
    /// Finishes its streams, takes nothing new.
    Draining,
    /// Has not shown telemetry yet.
    Waiting,
    /// Its telemetry is too old to be trusted.
    Stale,
    /// Refuses connections.
    Down,
}

/// One backend. What is measured is `null` when the engine does not tell.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct BackendView {
    /// `ip:port`.
    pub address: String,
    /// The model that it serves.
    pub model: String,
    /// Its pool.
    pub pool: String,
    /// Its zone.
    pub zone: String,
    /// Its group.
    pub group: String,
    /// Who brought it in: `configured`, `registered` or `dns`.
    pub origin: String,
    /// Length of its lease, seconds; none for one without an end.
    pub lease_seconds: Option<f64>,
    /// What is left of its lease, seconds.
    pub lease_remaining_seconds: Option<f64>,
    /// What it is doing.
    pub state: BackendState,
    /// Requests that wait for a place in the batch.
    pub queue_depth: Option<f64>,
    /// Requests in the batch.
    pub running: Option<f64>,
    /// Part of the KV cache in use, 0 to 1.
    pub kv_used: Option<f64>,
    /// GPU utilisation, 0 to 1.
    pub gpu_utilisation: Option<f64>,
    /// Mean time to first token lately observed, seconds.
    pub ttft_seconds: Option<f64>,
    /// Mean time between output tokens, seconds.
    pub inter_token_seconds: Option<f64>,
    /// Requests that Envoys have running there, as last reported; none while not every Envoy reports.
    #[serde(default)]
    pub requests_in_progress: Option<f64>,
    /// Mean time from the request to the first byte of a streamed answer, as Envoys last logged it, seconds.
    #[serde(default)]
    pub first_byte_seconds: Option<f64>,
    /// Its 95th percentile, seconds.
    #[serde(default)]
    pub first_byte_p95_seconds: Option<f64>,
    /// Mean time from the first byte of a request to the last of its answer, as Envoys logged it of late, seconds.
    #[serde(default)]
    pub response_seconds: Option<f64>,
    /// Requests that Envoys logged the end of since the backend joined.
    #[serde(default)]
    pub gateway_requests: f64,
    /// Requests among them that failed at the backend: 5xx, resets, no connection.
    #[serde(default)]
    pub gateway_errors: f64,
    /// Whole answers among them.
    #[serde(default)]
    pub gateway_responses: f64,
    /// The sum of the times that these took, seconds.
    #[serde(default)]
    pub gateway_responses_seconds: f64,
    /// Tokens of prompts since the backend joined, where access logs tell them.
    #[serde(default)]
    pub gateway_prompt_tokens: f64,
    /// Tokens of answers, likewise.
    #[serde(default)]
    pub gateway_output_tokens: f64,
    /// Predicted time to first token of the next request, seconds.
    pub predicted_wait_seconds: Option<f64>,
    /// Its 90 % bound, seconds.
    pub predicted_wait_upper_seconds: Option<f64>,
    /// Who has the largest say in it: `last_observed`, `recent_service`, `service`, `corrected`, `regression` or `none`.
    pub wait_source: String,
    /// Requests/s that a backend of its pool serves at its usual speed, as shares and plans are made from.
    pub capacity_rps: Option<f64>,
    /// Requests/s at which it keeps `slo_ttft_seconds`, learned; none while nothing is known.
    pub capacity: Option<CapacityView>,
    /// Whether anything is wrong with it; none before it was judged.
    pub anomaly: Option<AnomalyView>,
    /// What its share is bounded by: `usual` by nothing, `warming` while it has just started (by nothing either where only its
    /// cache is cold), `sick`.
    #[serde(default)]
    pub verdict: String,
    /// What its iterations cost and what fits into them, learned; none before that is known.
    #[serde(default)]
    pub profile: Option<ProfileView>,
    /// How many times longer than usual its iterations take.
    pub slowdown: f64,
    /// Its share of the model's traffic, 0 to 1.
    pub share: f64,
    /// Its share if only usual capacity counted.
    pub capacity_share: f64,
    /// The share that it would be given, on the rung `advise`.
    #[serde(default)]
    pub advised_share: Option<f64>,
    /// Age of its telemetry, seconds.
    pub telemetry_age_seconds: Option<f64>,
    /// What is wrong with its telemetry: metrics that vanished, counters that stand still, values that cannot be.
    pub telemetry_faults: Vec<String>,
    /// What moves its share.
    pub reason: String,
}

/// The rate at which one backend keeps its model's objective, as far as was seen; a window is ten scrapes long.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CapacityView {
    /// Requests/s at which half of the windows have a mean TTFT within the objective; none while it was only seen to
    /// keep it, or only to miss it.
    pub rps: Option<f64>,
    /// Requests/s at which nine windows in ten have; the highest rate seen while it always kept it.
    pub lower_rps: Option<f64>,
    /// Requests/s at which one window in ten has; the lowest rate seen while it always missed it.
    pub upper_rps: Option<f64>,
}

/// What is wrong with one backend.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AnomalyView {
    /// The highest score of any detector at this moment, 0 to 10; from 1 on something looks wrong.
    pub score: f64,
    /// What is wrong, once it has lasted: `slower_than_peers`, `getting_slower`, `kv_leak`, `cold_cache` or `silent`; none
    /// while nothing is.
    pub kind: Option<String>,
    /// Why that is said, for a person.
    pub reason: Option<String>,
}

/// One decision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DecisionView {
    /// Its identity on every channel.
    pub id: String,
    /// When it was made.
    pub at: DateTime<Utc>,
    /// `weights`, `membership`, `replicas`, `shed` or `canary`.
    pub kind: String,
    /// The model.
    pub model: String,
    /// The pool, when it is about one.
    pub pool: Option<String>,
    /// One line for people.
    pub summary: String,
    /// What changed.
    pub changes: Vec<Change>,
    /// On which rung it was made when that was not `enforce`: on `shadow` and `advise` no Envoy was told of it.
    #[serde(default)]
    pub rung: Option<String>,
}

/// One change of a decision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Change {
    /// A backend, a pool or a lane.
    pub target: String,
    /// Share, replicas or refused part before; none when it is new.
    pub from: Option<f64>,
    /// Share, replicas or refused part now; none when it is gone.
    pub to: Option<f64>,
    /// Why.
    pub reason: String,
}

/// Counts.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct Totals {
    /// Telemetry rows ever written to the database, by this process and those before it.
    pub telemetry_rows: u64,
    /// Telemetry rows that were lost: no room was left for them, or the database could not take them.
    pub telemetry_dropped: u64,
    /// Telemetry rows that wait on disk for the database.
    #[serde(default)]
    pub telemetry_spooled: u64,
    /// Scrapes that failed.
    pub scrapes_failed: u64,
    /// Forecasts issued.
    pub forecasts: u64,
    /// Decisions made.
    pub decisions: u64,
    /// Decisions that changed weights.
    pub weight_changes: u64,
    /// Webhooks delivered.
    pub webhooks_delivered: u64,
    /// Webhooks given up.
    pub webhooks_failed: u64,
}

/// Something worth knowing.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct EventView {
    /// When.
    pub at: DateTime<Utc>,
    /// `info`, `warning` or `error`.
    pub level: String,
    /// What, in one line.
    pub message: String,
}
