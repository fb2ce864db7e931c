use std::sync::OnceLock;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use reqwest::header::{ACCEPT, ACCEPT_ENCODING};
use reqwest::{Client, StatusCode, Url};

use super::body::BodyKind;
use super::failure::ScrapeFailure;
use super::http::{client_builder, root_cause};

const ACCEPTED: &str = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
    application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.5,\
    text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,application/json;q=0.2,\
    */*;q=0.1";

/// Packed pages are taken but not asked for: in a data centre, to pack and to unpack a page costs more than to send it.
const ENCODING: &str = "identity";

/// Idle connections outlive any sensible interval; a server may close them earlier.
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);

/// Reads metrics pages over kept connections, none longer than the limit.
pub(super) struct Fetcher {
    plain: Client,
    tls: OnceLock<Result<Client, String>>,
    connect_timeout: Duration,
    limit_bytes: usize,
    bytes: Counter,
}

impl Fetcher {
    pub(super) fn new(
        connect_timeout: Duration,
        limit_bytes: usize,
        bytes: Counter,
    ) -> Result<Self, reqwest::Error> {
        let plain = build(false, connect_timeout)?;
        Ok(Self { plain, tls: OnceLock::new(), connect_timeout, limit_bytes, bytes })
    }

    /// Returns the whole body, as it came, and what it is. Has no deadline of its own: dropping the future closes the connection.
    pub(super) async fn page(&self, url: Url) -> Result<(Vec<u8>, BodyKind), ScrapeFailure> {
        let client = self.client(&url)?;
        let request = client.get(url).header(ACCEPT, ACCEPTED).header(ACCEPT_ENCODING, ENCODING);
        let mut answer = request.send().await.map_err(failure)?;
        if answer.status() != StatusCode::OK {
            return Err(ScrapeFailure::Status(answer.status().as_u16()));
        }
        let kind = BodyKind::of(answer.headers())?;
        let told = answer.content_length().and_then(|length| usize::try_from(length).ok()).unwrap_or(0);
        let mut page = Vec::with_capacity(told.min(self.limit_bytes));
        while let Some(chunk) = answer.chunk().await.map_err(failure)? {
            self.bytes.inc_by(chunk.len() as u64);
            if page.len() + chunk.len() > self.limit_bytes {
                return Err(ScrapeFailure::TooLarge { limit_bytes: self.limit_bytes });
            }
            page.extend_from_slice(&chunk);
        }
        Ok((page, kind))
    }

    fn client(&self, url: &Url) -> Result<&Client, ScrapeFailure> {
        if url.scheme() == "http" {
            return Ok(&self.plain);
        }
        let build = || build(true, self.connect_timeout).map_err(|error| root_cause(&error));
        self.tls.get_or_init(build).as_ref().map_err(|cause| ScrapeFailure::Connect(cause.clone()))
    }
}

fn build(tls: bool, connect_timeout: Duration) -> Result<Client, reqwest::Error> {
    // A target has one outstanding scrape, and a second connection at most for a GPU page on the same host.
    client_builder(tls, connect_timeout).pool_max_idle_per_host(2).pool_idle_timeout(IDLE_TIMEOUT).build()
}

/// Parses a URL that can be scraped.
pub(super) fn scrape_url(text: &str) -> Result<Url, ScrapeFailure> {
    let url = Url::parse(text).map_err(|error| ScrapeFailure::BadUrl(format!("{text}: {error}")))?;
    match url.scheme() {
        "http" | "https" => Ok(url),
        other => Err(ScrapeFailure::BadUrl(format!("{text}: scheme {other} is neither http nor https"))),
    }
}

fn failure(error: reqwest::Error) -> ScrapeFailure {
    let cause = root_cause(&error);
    if error.is_connect() { ScrapeFailure::Connect(cause) } else { ScrapeFailure::Broken(cause) }
}
