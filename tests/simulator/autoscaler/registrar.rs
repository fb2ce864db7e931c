//! Clairvoy's API, as far as backends that come and go need it.

use std::net::SocketAddr;

use anyhow::Context as _;
use reqwest::StatusCode;
use serde::Deserialize;

/// Registers, drains and removes backends.
#[derive(Debug, Clone)]
pub struct Registrar {
    client: reqwest::Client,
    base: String,
}

impl Registrar {
    /// Speaks to the API at `api` with `client`.
    pub fn new(client: reqwest::Client, api: SocketAddr) -> Self {
        Self { client, base: format!("http://{api}/api/v1") }
    }

    pub(super) async fn register(&self, pool: &str, backend: SocketAddr) -> anyhow::Result<()> {
        let body = serde_json::json!({ "address": backend.to_string() });
        let request = self.client.post(format!("{}/pools/{pool}/backends", self.base)).json(&body);
        done(request).await.with_context(|| format!("cannot register {backend} in {pool}"))
    }

    /// Succeeds too when the API does not know the backend, as after a restart that lost it.
    pub(super) async fn drain(&self, pool: &str, backend: SocketAddr) -> anyhow::Result<()> {
        let request = self.client.post(format!("{}/pools/{pool}/backends/{backend}/drain", self.base));
        gone_or_done(request).await.with_context(|| format!("cannot drain {backend} of {pool}"))
    }

    /// Succeeds too when the API does not know the backend.
    pub(super) async fn remove(&self, pool: &str, backend: SocketAddr) -> anyhow::Result<()> {
        let request = self.client.delete(format!("{}/pools/{pool}/backends/{backend}", self.base));
        gone_or_done(request).await.with_context(|| format!("cannot remove {backend} from {pool}"))
    }

    /// True while the backend is part of the fleet, drained or not.
    pub(super) async fn knows(&self, backend: SocketAddr) -> anyhow::Result<bool> {
        #[derive(Deserialize)]
        struct State {
            backends: Vec<Backend>,
        }
        #[derive(Deserialize)]
        struct Backend {
            address: SocketAddr,
        }
        let response = self.client.get(format!("{}/state", self.base)).send().await?.error_for_status()?;
        let state: State = serde_json::from_slice(&response.bytes().await?)?;
        Ok(state.backends.iter().any(|one| one.address == backend))
    }
}

async fn done(request: reqwest::RequestBuilder) -> anyhow::Result<()> {
    check(request.send().await?).await
}

async fn gone_or_done(request: reqwest::RequestBuilder) -> anyhow::Result<()> {
    let response = request.send().await?;
    if response.status() == StatusCode::NOT_FOUND { Ok(()) } else { check(response).await }
}

async fn check(response: reqwest::Response) -> anyhow::Result<()> {
    let status = response.status();
    if status.is_success() {
        return Ok(());
    }
    anyhow::bail!("status {status}: {}", response.text().await.unwrap_or_default().trim());
}
