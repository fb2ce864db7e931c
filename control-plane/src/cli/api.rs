//! How commands ask the API of a `clairvoy serve` that runs.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use reqwest::{Certificate, Client, RequestBuilder, StatusCode};

use crate::config::Config;
use crate::telemetry::client_builder;
use crate::view::State;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_WITHIN: Duration = Duration::from_secs(15);

/// Where the API is.
#[derive(Debug, clap::Args)]
pub(super) struct ApiArguments {
    /// URL of Clairvoy's API [default: `listen.api` of the configuration].
    #[arg(long, value_name = "URL")]
    pub(super) api: Option<String>,
    /// Address of the API, instead of `listen.api`.
    #[arg(long, env = "CLAIRVOY_LISTEN_API", value_name = "IP:PORT")]
    pub(super) listen_api: Option<SocketAddr>,
    /// PEM file with the certificates that sign the API's, besides the system's.
    #[arg(long, value_name = "FILE")]
    pub(super) ca: Option<PathBuf>,
}

/// The API of a `clairvoy serve` that runs.
pub(super) struct Api {
    client: Client,
    url: String,
    token: Option<String>,
}

impl Api {
    /// Where arguments say it is, else where the configuration does.
    pub(super) fn new(arguments: &ApiArguments, config: &Config) -> anyhow::Result<Self> {
        let url = match &arguments.api {
            Some(url) => url.trim_end_matches('/').to_owned(),
            None => url(config),
        };
        let parsed = reqwest::Url::parse(&url).with_context(|| format!("--api {url} is no URL"))?;
        let mut certificates = Vec::new();
        if let Some(path) = &arguments.ca {
            let pem = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
            certificates = Certificate::from_pem_bundle(&pem)
                .with_context(|| format!("{} has no certificates", path.display()))?;
        }
        let client = client_builder(parsed.scheme() == "https", CONNECT_TIMEOUT)
            .tls_certs_merge(certificates)
            .timeout(ANSWER_WITHIN)
            .build()?;
        let token = config.listen.token_env.as_ref().map(|name| {
            std::env::var(name)
                .with_context(|| format!("environment variable {name} of listen.token_env is not set"))
        });
        Ok(Self { client, url, token: token.transpose()? })
    }

    pub(super) async fn state(&self) -> anyhow::Result<State> {
        let answer = self.ask(self.client.get(format!("{}/api/v1/state", self.url))).await?;
        answer.json().await.with_context(|| format!("{} is no API of Clairvoy", self.url))
    }

    pub(super) async fn drain(&self, pool: &str, address: &str) -> anyhow::Result<()> {
        let url = format!("{}/api/v1/pools/{pool}/backends/{address}/drain", self.url);
        self.ask(self.client.post(url)).await.map(drop)
    }

    /// Has predictions steer the canary of a model again.
    pub(super) async fn resume_canary(&self, model: &str) -> anyhow::Result<()> {
        let mut url =
            reqwest::Url::parse(&self.url).with_context(|| format!("--api {} is no URL", self.url))?;
        // A `/` in the name of a model is not one of the path.
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(["api", "v1", "models", model, "canary", "resume"]);
        }
        self.ask(self.client.post(url)).await.map(drop)
    }

    async fn ask(&self, mut request: RequestBuilder) -> anyhow::Result<reqwest::Response> {
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let answer = request.send().await.with_context(|| {
            format!(
                "the API at {} does not answer: is `clairvoy serve` running, is --api its name, and --ca who signed its certificate?",
                self.url
            )
        })?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let said = answer.text().await.unwrap_or_default();
        if status == StatusCode::UNAUTHORIZED {
            bail!("the API wants a token: set `listen.token_env` in the configuration, and the variable");
        }
        bail!("the API says {status}: {said}")
    }
}

/// Where the API of a configuration is, seen from its own machine.
fn url(config: &Config) -> String {
    let api = config.listen.api;
    let host = match api.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::from([127, 0, 0, 1]),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::from(std::net::Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    let scheme = if config.listen.api_tls.is_some() { "https" } else { "http" };
    format!("{scheme}://{}", SocketAddr::from((host, api.port())))
}

#[cfg(test)]
mod tests {
    use crate::config::parse;

    use super::*;

    #[test]
    fn the_api_is_asked_where_the_configuration_has_it() {
        let of = |listen: &str| url(&parse(&format!("models: []\nlisten: {listen}\n")).unwrap());
        assert_eq!(of("{}"), "http://127.0.0.1:8080");
        assert_eq!(of("{ api: \"0.0.0.0:9000\", token_env: T }"), "http://127.0.0.1:9000");
        assert_eq!(
            of("{ api: \"[::1]:9000\", api_tls: { certificate: a, private_key: b } }"),
            "https://[::1]:9000"
        );
    }
}
