use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt;
use reqwest::{Client, Response, StatusCode, header};
use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::http::keeping_client;

/// By what a request says that it can wait.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Sign {
    None,
    Header,
    Tier(&'static str),
}

/// What became of a request.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    /// When the head of the answer came.
    pub(crate) at: Instant,
    pub(crate) status: StatusCode,
    pub(crate) retry_after: Option<String>,
    /// Time to the first piece of an answer.
    pub(crate) first: Option<Duration>,
}

/// A request for a streamed answer, of 2,000 tokens of prompt.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    client: Client,
    gateway: SocketAddr,
    sign: Sign,
    tokens: u32,
    path: &'static str,
}

impl Ask {
    pub(crate) fn new(gateway: SocketAddr, sign: Sign, tokens: u32) -> Self {
        Self { client: keeping_client(), gateway, sign, tokens, path: "/v1/chat/completions" }
    }

    /// The same on another path.
    pub(crate) fn at(self, path: &'static str) -> Self {
        Self { path, ..self }
    }

    /// Sends it, with one more header.
    pub(crate) async fn send(&self, more: Option<(&str, &str)>) -> Response {
        self.try_send(more).await.unwrap()
    }

    async fn try_send(&self, more: Option<(&str, &str)>) -> reqwest::Result<Response> {
        let mut body = json!({
            "model": "chat",
            "messages": [{ "role": "user", "content": "Hello" }],
            "max_tokens": self.tokens,
            "stream": true,
        });
        if let Sign::Tier(tier) = self.sign {
            body["service_tier"] = tier.into();
        }
        let url = format!("http://{}{}", self.gateway, self.path);
        let mut request = self.client.post(url).header("x-simulator-prompt-tokens", 2000).json(&body);
        if self.sign == Sign::Header {
            request = request.header("x-request-class", "batch");
        }
        if let Some((name, value)) = more {
            request = request.header(name, value);
        }
        request.send().await
    }

    async fn outcome(&self, outcomes: &Mutex<Vec<Outcome>>) {
        let sent = Instant::now();
        // Only when the test has ended is there nobody to answer.
        let Ok(response) = self.try_send(None).await else { return };
        let (at, status) = (Instant::now(), response.status());
        let retry_after = response.headers().get(header::RETRY_AFTER);
        let retry_after = retry_after.map(|value| value.to_str().unwrap().to_owned());
        let mut pieces = response.bytes_stream();
        let first = pieces.next().await.map(|_| sent.elapsed()).filter(|_| status.is_success());
        outcomes.lock().unwrap().push(Outcome { at, status, retry_after, first });
        while pieces.next().await.is_some() {}
    }
}

/// Clients that ask at a steady rate, whatever becomes of it.
#[derive(Debug)]
pub(crate) struct Class {
    outcomes: Arc<Mutex<Vec<Outcome>>>,
    stop: CancellationToken,
    task: JoinHandle<()>,
    asked: TaskTracker,
}

impl Class {
    pub(crate) fn start(ask: Ask, rps: f64) -> Self {
        let (outcomes, stop, asked) =
            (Arc::<Mutex<Vec<Outcome>>>::default(), CancellationToken::new(), TaskTracker::new());
        let task = tokio::spawn({
            let (outcomes, stop, asked) = (Arc::clone(&outcomes), stop.clone(), asked.clone());
            async move {
                let mut ticks = tokio::time::interval(Duration::from_secs_f64(1.0 / rps));
                loop {
                    tokio::select! {
                        () = stop.cancelled() => return,
                        _ = ticks.tick() => {
                            let (ask, outcomes) = (ask.clone(), Arc::clone(&outcomes));
                            asked.spawn(async move { ask.outcome(&outcomes).await });
                        }
                    };
                }
            }
        });
        Self { outcomes, stop, task, asked }
    }

    /// What became of the requests whose answers began after a time.
    pub(crate) fn since(&self, at: Instant) -> Vec<Outcome> {
        self.outcomes.lock().unwrap().iter().filter(|outcome| outcome.at >= at).cloned().collect()
    }

    /// When a request was last refused.
    pub(crate) fn last_refused(&self) -> Option<Instant> {
        let outcomes = self.outcomes.lock().unwrap();
        outcomes.iter().filter(|outcome| !outcome.status.is_success()).map(|outcome| outcome.at).max()
    }

    /// Asks no more, and waits for what runs.
    pub(crate) async fn end(self) -> Vec<Outcome> {
        self.stop.cancel();
        self.task.await.unwrap();
        self.asked.close();
        self.asked.wait().await;
        std::mem::take(&mut self.outcomes.lock().unwrap())
    }
}
