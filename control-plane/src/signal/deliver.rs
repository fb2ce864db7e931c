use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use reqwest::Url;
use serde::Serialize;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::event::ReplicaPlanEvent;
use super::metrics::{Final, SignalMetrics};
use super::post::Poster;
use super::queue::{EndpointQueue, Next, Step, Waiting};
use super::report::{DeliveryLog, DeliveryReport};
use super::retry::{Answer, Schedule, judge};
use super::signature::Secret;
use super::target::{TargetError, check_url};

/// A receiver of webhooks.
#[derive(Clone, Debug)]
pub struct WebhookEndpoint {
    /// `http` or `https` URL.
    pub url: String,
    /// The secret that it shares with us.
    pub secret: Secret,
}

/// How webhooks are delivered.
#[derive(Clone, Debug, PartialEq)]
pub struct DeliveryOptions {
    /// Wait before each attempt, the first included; after the last one the delivery has failed.
    pub delays: Vec<Duration>,
    /// Each wait is shortened or stretched by up to this share.
    pub jitter: f64,
    /// Where the jitter comes from.
    pub seed: u64,
    /// Longest wait for an answer.
    pub timeout: Duration,
    /// Most pools that wait for one endpoint.
    pub max_pending: usize,
}

impl Default for DeliveryOptions {
    fn default() -> Self {
        Self {
            delays: [0, 1, 5, 30, 60, 120, 300, 600, 1200, 1800].map(Duration::from_secs).to_vec(),
            jitter: 0.2,
            seed: 0,
            timeout: Duration::from_secs(15),
            max_pending: 10_000,
        }
    }
}

/// Takes events to all endpoints; clones share the queues.
///
/// Each endpoint has its own queue and gets one event at a time, so that a slow receiver delays only itself.
#[derive(Clone)]
pub struct Deliverer {
    shared: Arc<Shared>,
}

struct Shared {
    endpoints: Vec<Endpoint>,
    schedule: Schedule,
    timeout: Duration,
    metrics: SignalMetrics,
    log: Box<dyn DeliveryLog>,
}

struct Endpoint {
    url: Url,
    /// The URL without path and query, which may hold a token.
    shown: Arc<str>,
    secret: Secret,
    state: Mutex<EndpointState>,
    wake: Notify,
}

struct EndpointState {
    queue: EndpointQueue,
    last_error: Option<String>,
}

/// How deliveries stand, summed over all endpoints since the start of the process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeliveryStatus {
    /// Requests that were sent.
    pub attempts: u64,
    /// Events that a receiver took.
    pub delivered: u64,
    /// Events given up after the last attempt.
    pub failed: u64,
    /// Events whose time passed.
    pub expired: u64,
    /// Events replaced by a newer one of the same pool.
    pub superseded: u64,
    /// Events for endpoints that had asked for no more.
    pub disabled: u64,
    /// Events that found the queue full.
    pub dropped: u64,
    /// One entry per endpoint, in the order of the configuration.
    pub endpoints: Vec<EndpointStatus>,
}

/// How the deliveries to one endpoint stand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EndpointStatus {
    /// Scheme, host and port of its URL.
    pub endpoint: String,
    /// It answered 410 and gets nothing more until the next start.
    pub disabled: bool,
    /// Events that wait or are under way.
    pub pending: usize,
    /// What went wrong at the newest attempt; none after a success.
    pub last_error: Option<String>,
}

impl Deliverer {
    /// Prepares the deliveries. Every step is told to `log`.
    ///
    /// # Errors
    /// When a URL is not usable; a name is looked up, and checked, only when there is something to send.
    pub fn new(
        endpoints: Vec<WebhookEndpoint>,
        options: DeliveryOptions,
        metrics: SignalMetrics,
        log: impl DeliveryLog + 'static,
    ) -> Result<Self, TargetError> {
        let endpoints = endpoints.into_iter().map(|endpoint| Endpoint::new(endpoint, options.max_pending));
        let shared = Shared {
            endpoints: endpoints.collect::<Result<_, _>>()?,
            schedule: Schedule { delays: options.delays, jitter: options.jitter, seed: options.seed },
            timeout: options.timeout,
            metrics,
            log: Box::new(log),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Queues an event for every endpoint; it is sent while [`Self::run`] runs.
    pub fn enqueue(&self, event: ReplicaPlanEvent) {
        let event = Arc::new(event);
        let now = Utc::now();
        for endpoint in &self.shared.endpoints {
            let lost = endpoint.state().queue.push(Arc::clone(&event), &self.shared.schedule, now);
            self.shared.report(endpoint, lost, now, None);
            endpoint.wake.notify_one();
        }
    }

    /// Delivers until `shutdown`. An attempt under way is then given up; what was not delivered stays queued.
    ///
    /// To be called once at a time.
    pub async fn run(&self, shutdown: CancellationToken) {
        let mut workers = JoinSet::new();
        for index in 0..self.shared.endpoints.len() {
            workers.spawn(work(Arc::clone(&self.shared), index));
        }
        shutdown.cancelled().await;
        workers.shutdown().await;
    }

    /// Returns how deliveries stand.
    pub fn status(&self) -> DeliveryStatus {
        let count = |outcome| self.shared.metrics.count(outcome);
        let endpoints = self.shared.endpoints.iter().map(|endpoint| {
            let state = endpoint.state();
            EndpointStatus {
                endpoint: endpoint.shown.to_string(),
                disabled: state.queue.is_disabled(),
                pending: state.queue.len(),
                last_error: state.last_error.clone(),
            }
        });
        DeliveryStatus {
            attempts: self.shared.metrics.attempts.get(),
            delivered: count(Final::Delivered),
            failed: count(Final::Failed),
            expired: count(Final::Expired),
            superseded: count(Final::Superseded),
            disabled: count(Final::Disabled),
            dropped: count(Final::Dropped),
            endpoints: endpoints.collect(),
        }
    }
}

impl Endpoint {
    fn new(endpoint: WebhookEndpoint, limit: usize) -> Result<Self, TargetError> {
        let url = check_url(&endpoint.url)?;
        let shown: Arc<str> = url.origin().ascii_serialization().into();
        let state = EndpointState { queue: EndpointQueue::new(limit), last_error: None };
        Ok(Self { url, shown, secret: endpoint.secret, state: Mutex::new(state), wake: Notify::new() })
    }

    /// Never held across an await.
    fn state(&self) -> MutexGuard<'_, EndpointState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    fn report(
        &self,
        endpoint: &Endpoint,
        steps: impl IntoIterator<Item = Step>,
        at: DateTime<Utc>,
        detail: Option<&str>,
    ) {
        for Step { event, attempts, outcome } in steps {
            self.metrics.ended(outcome);
            self.log.record(DeliveryReport {
                event_id: event.id,
                pool: event.pool.clone(),
                endpoint: Arc::clone(&endpoint.shown),
                at,
                attempts,
                outcome,
                detail: detail.map(str::to_owned),
            });
        }
    }

    async fn send(&self, endpoint: &Endpoint, poster: &mut Poster, waiting: &Waiting) {
        self.metrics.attempts.inc();
        let started = Utc::now();
        let answer = poster.post(&waiting.event, started, waiting.patience(self.timeout, started)).await;
        let now = Utc::now();
        let verdict = judge(&answer);
        let detail = match answer {
            Answer::Status { status, .. } => format!("status {status}"),
            Answer::None(reason) => reason,
        };
        let steps = {
            let mut state = endpoint.state();
            let steps = state.queue.finish(verdict, &self.schedule, now);
            let delivered = verdict == super::retry::Verdict::Delivered;
            state.last_error = if delivered { None } else { Some(detail.clone()) };
            steps
        };
        self.report(endpoint, steps, now, Some(&detail));
    }
}

/// Serves one endpoint for ever.
async fn work(shared: Arc<Shared>, index: usize) {
    let Some(endpoint) = shared.endpoints.get(index) else { return };
    let mut poster = Poster::new(endpoint.url.clone(), endpoint.secret.clone());
    loop {
        let now = Utc::now();
        let (ended, next) = endpoint.state().queue.next(now);
        shared.report(endpoint, ended, now, None);
        match next {
            Next::Send(waiting) => shared.send(endpoint, &mut poster, &waiting).await,
            Next::Idle => endpoint.wake.notified().await,
            Next::Sleep(until) => {
                let wait = (until - now).to_std().unwrap_or_default();
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = endpoint.wake.notified() => {}
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
