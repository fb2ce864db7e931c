use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::body::Body;
use axum::http::{Request, Response, StatusCode};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http_body_util::{BodyExt as _, Full};
use prometheus_client::registry::Registry;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::api::Token;
use crate::config::{Config, Push, Span, parse};
use crate::push::{Assembly, Directory, Intake, PushMetrics, PushSenders, Surface};
use crate::telemetry::{Sample, ScrapeOutcome, TelemetryMetrics};

pub(super) const A: &str = "10.0.0.1:8000";
pub(super) const B: &str = "10.0.0.2:8000";
pub(super) const C: &str = "10.0.0.3:8000";

pub(super) fn config() -> Config {
    parse(&format!(
        "telemetry: {{ push: {{ http: 127.0.0.1:4318 }} }}\n\
         models: [{{ name: m, pools: [a, b] }}]\n\
         pools:\n\
         - {{ name: a, telemetry: push, backends: [\"{A}\"], metrics: {{ queue_depth: my_queue }}, instances: {{ vllm-0: \"{A}\" }} }}\n\
         - {{ name: b, telemetry: push, backends: [\"{B}\", \"{C}\"] }}\n"
    ))
    .unwrap()
}

pub(super) fn directory() -> Directory {
    let config = config();
    Directory::new(
        config.pools.iter().flat_map(|pool| pool.backends.iter().map(move |address| (*address, pool))),
        [],
    )
}

/// An intake without a socket.
pub(super) struct Site {
    pub(super) intake: Intake,
    pub(super) metrics: PushMetrics,
    registry: Registry,
    outcomes: mpsc::Receiver<ScrapeOutcome>,
    stop: CancellationToken,
    /// Kept until it is wanted: without it nothing leaves the queue.
    assembly: Option<Assembly>,
}

impl Site {
    pub(super) fn new(change: impl FnOnce(&mut Push)) -> Self {
        let mut options = Push { flush: Span(Duration::from_millis(100)), ..Push::default() };
        change(&mut options);
        let mut senders = PushSenders::default();
        for token in &options.tokens {
            senders.add_token(Token::new(&token.token_env), token.pools.iter().cloned());
        }
        let directory = Arc::new(ArcSwap::from_pointee(directory()));
        let (outcomes_in, outcomes) = mpsc::channel(1000);
        let mut registry = Registry::default();
        let metrics = PushMetrics::register(&mut registry);
        let telemetry = TelemetryMetrics::register(&mut registry);
        let (intake, assembly) =
            Intake::new(&options, senders, directory, outcomes_in, metrics.clone(), telemetry);
        let assembly = Some(assembly);
        Self { intake, metrics, registry, outcomes, stop: CancellationToken::new(), assembly }
    }

    /// Lets the queue run.
    pub(super) fn assemble(mut self) -> Self {
        if let Some(assembly) = self.assembly.take() {
            tokio::spawn(assembly.run(self.stop.clone()));
        }
        self
    }

    pub(super) async fn post(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Response<Body> {
        let mut request = Request::post(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let surface = if path.starts_with("/opentelemetry.") { Surface::Grpc } else { Surface::Http };
        self.intake.answer(surface, request.body(Full::new(body.into())).unwrap()).await
    }

    pub(super) async fn json(&self, body: &str) -> (StatusCode, String) {
        let answer =
            self.post("/api/v1/telemetry", &[("content-type", "application/json")], body.to_owned()).await;
        (answer.status(), text(answer).await)
    }

    /// The value of a series on Clairvoy's own page; 0 before it is there.
    pub(super) fn count(&self, series: &str) -> u64 {
        let mut page = String::new();
        prometheus_client::encoding::text::encode(&mut page, &self.registry).unwrap();
        let value = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.map_or(0, |value| value.parse().unwrap())
    }

    /// The next sample.
    pub(super) async fn sample(&mut self) -> Sample {
        let next = tokio::time::timeout(Duration::from_secs(10), self.outcomes.recv());
        next.await.unwrap().unwrap().result.unwrap()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

pub(super) async fn bytes(answer: Response<Body>) -> Bytes {
    answer.into_body().collect().await.unwrap().to_bytes()
}

pub(super) async fn text(answer: Response<Body>) -> String {
    String::from_utf8_lossy(&bytes(answer).await).into_owned()
}

pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(super) fn snappy(bytes: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(bytes).unwrap()
}
