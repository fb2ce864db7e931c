use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use reqwest::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, HeaderValue};
use reqwest::{Certificate, Client, ClientBuilder, StatusCode, Url};
use rustix::io::Errno;

use crate::config::MetricsAccess;

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

/// How a page is asked for, beside its URL.
#[derive(Clone, Debug, Default)]
pub(super) struct Access {
    token: Option<HeaderValue>,
    /// Trusts more than the system's certificates.
    client: Option<Client>,
}

/// Reads the token of [`MetricsAccess`], if there is one.
///
/// # Errors
/// Says what is missing or wrong.
pub(crate) fn page_token(access: &MetricsAccess) -> Result<Option<HeaderValue>, String> {
    let Some(name) = &access.token_env else { return Ok(None) };
    let token = std::env::var(name).map_err(|_| format!("environment variable {name} is not set"))?;
    let value = HeaderValue::from_str(&format!("Bearer {token}"));
    let mut value = value.map_err(|_| format!("the token in {name} cannot be part of a header"))?;
    value.set_sensitive(true);
    Ok(Some(value))
}

/// Reads the certificates of [`MetricsAccess`], if there are some.
///
/// # Errors
/// Says what is missing or wrong.
pub(crate) fn page_certificates(access: &MetricsAccess) -> Result<Option<Vec<Certificate>>, String> {
    let Some(path) = &access.ca else { return Ok(None) };
    let wrong = |error: &dyn std::error::Error| format!("{}: {}", path.display(), root_cause(error));
    let pem = std::fs::read(path).map_err(|error| wrong(&error))?;
    let certificates = Certificate::from_pem_bundle(&pem).map_err(|error| wrong(&error))?;
    match certificates.is_empty() {
        true => Err(format!("{} has no certificate", path.display())),
        false => Ok(Some(certificates)),
    }
}

/// Reads metrics pages over kept connections, none longer than the limit.
pub(super) struct Fetcher {
    plain: Client,
    tls: OnceLock<Result<Client, String>>,
    /// One for each file of certificates, read when it is first needed.
    own: Mutex<HashMap<PathBuf, Client>>,
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
        Ok(Self { plain, tls: OnceLock::new(), own: Mutex::default(), connect_timeout, limit_bytes, bytes })
    }

    /// Prepares what a page asks for.
    pub(super) fn access(&self, settings: &MetricsAccess) -> Result<Access, ScrapeFailure> {
        let token = page_token(settings).map_err(ScrapeFailure::BadUrl)?;
        let client = settings.ca.as_ref().map(|path| self.own(path, settings)).transpose();
        Ok(Access { token, client: client.map_err(ScrapeFailure::BadUrl)? })
    }

    fn own(&self, path: &Path, settings: &MetricsAccess) -> Result<Client, String> {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = own.get(path) {
            return Ok(client.clone());
        }
        let certificates = page_certificates(settings)?.unwrap_or_default();
        let builder = kept(client_builder(true, self.connect_timeout)).tls_certs_merge(certificates);
        let client = builder.build().map_err(|error| root_cause(&error))?;
        own.insert(path.to_owned(), client.clone());
        Ok(client)
    }

    /// Returns the whole body, as it came, and what it is. Has no deadline of its own: dropping the future closes the connection.
    pub(super) async fn page(&self, url: Url, access: &Access) -> Result<(Vec<u8>, BodyKind), ScrapeFailure> {
        let client = match &access.client {
            Some(client) => client,
            None => self.client(&url)?,
        };
        let mut request = client.get(url).header(ACCEPT, ACCEPTED).header(ACCEPT_ENCODING, ENCODING);
        if let Some(token) = &access.token {
            request = request.header(AUTHORIZATION, token);
        }
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
    kept(client_builder(tls, connect_timeout)).build()
}

fn kept(builder: ClientBuilder) -> ClientBuilder {
    // A target has one outstanding scrape, and a second connection at most for a GPU page on the same host.
    builder.pool_max_idle_per_host(2).pool_idle_timeout(IDLE_TIMEOUT)
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
    match (is_out_of_descriptors(&error), error.is_connect()) {
        (true, _) => ScrapeFailure::NoDescriptor(cause),
        (false, true) => ScrapeFailure::Connect(cause),
        (false, false) => ScrapeFailure::Broken(cause),
    }
}

/// Whether the process or the machine has no file descriptor left.
fn is_out_of_descriptors(error: &(dyn std::error::Error + 'static)) -> bool {
    let own = std::iter::successors(Some(error), |error| error.source());
    let mut codes = own.filter_map(|error| error.downcast_ref::<io::Error>()?.raw_os_error());
    codes.any(|code| [Errno::MFILE, Errno::NFILE].map(Errno::raw_os_error).contains(&code))
}

#[cfg(test)]
mod tests {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    use super::*;

    /// The limit belongs to the whole process, with all tests that run in it.
    #[test]
    fn a_want_of_descriptors_is_not_taken_for_a_refused_connection() {
        let name = "telemetry::fetch::tests::a_want_of_descriptors_in_a_process_of_its_own";
        let mut alone = std::process::Command::new(std::env::current_exe().unwrap());
        let answer = alone.args(["--exact", name, "--ignored"]).output().unwrap();
        let told = String::from_utf8_lossy(&answer.stdout);
        assert!(answer.status.success() && told.contains("1 passed"), "{told}");
    }

    #[tokio::test]
    #[ignore = "run by another test, in a process of its own"]
    async fn a_want_of_descriptors_in_a_process_of_its_own() {
        let fetcher = Fetcher::new(Duration::from_secs(5), 1000, Counter::default()).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = scrape_url(&format!("http://{}/metrics", listener.local_addr().unwrap())).unwrap();
        let before = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: Some(3), ..before }).unwrap();
        let page = fetcher.page(url.clone(), &Access::default()).await;
        setrlimit(Resource::Nofile, before).unwrap();
        assert!(matches!(page, Err(ScrapeFailure::NoDescriptor(_))), "{page:?}");
        drop(listener);
        let page = fetcher.page(url, &Access::default()).await;
        assert!(matches!(page, Err(ScrapeFailure::Connect(_))), "{page:?}");
    }
}
