//! Clairvoy's API, as far as the demo reads it.

use std::net::SocketAddr;

use anyhow::Context as _;
use serde::{Deserialize, de::DeserializeOwned};

/// `GET /api/v1/state`, without what the demo does not show.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct State {
    pub(super) models: Vec<Model>,
    pub(super) pools: Vec<Pool>,
    pub(super) backends: Vec<Backend>,
    pub(super) proxies: Vec<Proxy>,
    /// Newest first, not all of them.
    pub(super) decisions: Vec<Decision>,
    pub(super) totals: Totals,
    pub(super) events: Vec<Event>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Model {
    pub(super) name: String,
    pub(super) demand_rps: Option<f64>,
    pub(super) forecast: Option<Forecast>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Forecast {
    pub(super) expert: String,
    pub(super) error_ratio: Option<f64>,
    pub(super) cold_start: Option<Ahead>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Ahead {
    pub(super) horizon_seconds: f64,
    pub(super) q50: f64,
    pub(super) q90: f64,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Pool {
    pub(super) name: String,
    pub(super) replicas: Replicas,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Replicas {
    pub(super) ready: u32,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Backend {
    pub(super) address: SocketAddr,
    /// `ready` when its telemetry is fresh and it may get requests.
    pub(super) state: String,
    /// Part of its model's requests that it is to get.
    pub(super) share: Option<f64>,
    /// The same by capacity alone.
    pub(super) capacity_share: Option<f64>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Proxy {
    pub(super) node_id: String,
    pub(super) state: String,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Decision {
    pub(super) id: String,
    pub(super) kind: String,
    pub(super) model: Option<String>,
    pub(super) summary: String,
    #[serde(default)]
    pub(super) changes: Vec<Change>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Change {
    pub(super) from: Option<f64>,
    pub(super) to: Option<f64>,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Totals {
    pub(super) telemetry_rows: u64,
    pub(super) telemetry_dropped: u64,
    pub(super) scrapes_failed: u64,
    pub(super) forecasts: u64,
    pub(super) decisions: u64,
    pub(super) weight_changes: u64,
    pub(super) webhooks_delivered: u64,
    pub(super) webhooks_failed: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Event {
    pub(super) at: String,
    pub(super) level: String,
    pub(super) message: String,
}

/// `GET /api/v1/demand`: what was forecast for each step, and what came.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Demand {
    pub(super) model: String,
    pub(super) step_seconds: f64,
    pub(super) lead_seconds: f64,
    pub(super) actual: Vec<Actual>,
    pub(super) issued: Vec<Issued>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Actual {
    /// Start of the step, Unix seconds.
    pub(super) t: f64,
    pub(super) rps: f64,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Issued {
    /// Start of the step that was forecast, Unix seconds.
    pub(super) t: f64,
    pub(super) issued_at: f64,
    pub(super) q50: f64,
    pub(super) q90: f64,
}

/// A client of the API.
#[derive(Debug, Clone)]
pub(super) struct Api {
    client: reqwest::Client,
    base: String,
}

impl Api {
    pub(super) fn new(client: reqwest::Client, address: SocketAddr) -> Self {
        Self { client, base: format!("http://{address}") }
    }

    /// True when the process answers.
    pub(super) async fn is_alive(&self) -> bool {
        let answer = self.client.get(format!("{}/readyz", self.base)).send().await;
        answer.is_ok_and(|response| response.status().is_success())
    }

    /// Sends demand to learn from: rows `timestamp_s,model,rps`, without a header.
    pub(super) async fn post_history(&self, rows: &str) -> anyhow::Result<u64> {
        #[derive(Deserialize)]
        struct Answer {
            rows: u64,
        }
        let request = self
            .client
            .post(format!("{}/api/v1/demand", self.base))
            .header("content-type", "text/csv")
            .body(format!("timestamp_s,model,rps\n{rows}"));
        let answer: Answer = read(request).await.context("clairvoy does not take the history")?;
        Ok(answer.rows)
    }

    pub(super) async fn state(&self) -> anyhow::Result<State> {
        let request = self.client.get(format!("{}/api/v1/state", self.base));
        read(request).await.context("cannot read the state of clairvoy")
    }

    pub(super) async fn demand(&self, model: &str, window_seconds: u64) -> anyhow::Result<Demand> {
        let url = format!("{}/api/v1/demand?model={model}&window_seconds={window_seconds}", self.base);
        read(self.client.get(url)).await.with_context(|| format!("cannot read the demand of {model}"))
    }
}

async fn read<T: DeserializeOwned>(request: reqwest::RequestBuilder) -> anyhow::Result<T> {
    let response = request.send().await?;
    let status = response.status();
    let body = response.text().await?;
    anyhow::ensure!(status.is_success(), "status {status}: {}", body.trim());
    serde_json::from_str(&body).context("the answer is not as agreed")
}
