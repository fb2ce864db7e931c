//! The HTTP side: believes, answers and counts webhooks, and hands plans to the pools.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State},
    http::{HeaderMap, StatusCode, header::CONTENT_TYPE},
    routing::post,
};
use chrono::{DateTime, Utc};
use tokio::sync::watch;

use super::{
    event::ReplicaPlan,
    scaling::Progress,
    signature::{Refusal, Secret, SignedHeaders, verify},
};

/// Largest webhook that is read; the standard advises senders to stay below 20 kB.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// Ids remembered to know a repeated webhook again.
const REMEMBERED_IDS: usize = 1024;

/// How many webhooks came, and what became of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WebhookCounts {
    /// Signature and body right, and acted on.
    pub accepted: u64,
    /// Right, but seen before: answered as accepted, not acted on again.
    pub repeated: u64,
    /// Right, but past the moment it was good for: not acted on.
    pub expired: u64,
    /// Right, but older than the plan that the pool follows: not acted on.
    pub overtaken: u64,
    /// No signature matches, or a header is missing.
    pub forged: u64,
    /// Signed right, but too long ago or too far ahead.
    pub stale: u64,
    /// Signed right, but with a body that makes no sense here.
    pub malformed: u64,
}

/// Takes webhooks.
pub(super) struct Receiver {
    secret: Secret,
    targets: HashMap<String, watch::Sender<u32>>,
    on_progress: Arc<dyn Fn(&Progress) + Send + Sync>,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    counts: WebhookCounts,
    ids: VecDeque<String>,
    newest: HashMap<String, DateTime<Utc>>,
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("counts", &self.counts()).finish_non_exhaustive()
    }
}

/// What the sender is told.
type Answer = (StatusCode, String);

impl Receiver {
    pub(super) fn new(
        secret: Secret,
        targets: HashMap<String, watch::Sender<u32>>,
        on_progress: Arc<dyn Fn(&Progress) + Send + Sync>,
    ) -> Self {
        Self { secret, targets, on_progress, seen: Mutex::default() }
    }

    pub(super) fn counts(&self) -> WebhookCounts {
        self.with(|seen| seen.counts)
    }

    /// Decides about one webhook that arrived at `now`.
    pub(super) fn take(&self, headers: &HeaderMap, body: &[u8], now: DateTime<Utc>) -> Answer {
        let id = match self.believe(headers, body, now) {
            Ok(id) => id,
            Err(refusal) => {
                self.with(|seen| match refusal {
                    Refusal::Stale(_) => seen.counts.stale += 1,
                    Refusal::Header | Refusal::Forged => seen.counts.forged += 1,
                });
                (self.on_progress)(&Progress::WebhookRefused { why: refusal.to_string() });
                return (StatusCode::UNAUTHORIZED, refusal.to_string());
            }
        };
        let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        if !content_type.is_some_and(|value| value.starts_with("application/cloudevents+json")) {
            self.with(|seen| seen.counts.malformed += 1);
            let message = "content type is not application/cloudevents+json".to_owned();
            return (StatusCode::UNSUPPORTED_MEDIA_TYPE, message);
        }
        let plan = match ReplicaPlan::parse(&id, body) {
            Ok(plan) => plan,
            Err(message) => {
                self.with(|seen| seen.counts.malformed += 1);
                return (StatusCode::BAD_REQUEST, message);
            }
        };
        let Some(target) = self.targets.get(&plan.pool) else {
            self.with(|seen| seen.counts.malformed += 1);
            return (StatusCode::NOT_FOUND, format!("no pool `{}` here", plan.pool));
        };
        if let Some(answer) = self.with(|seen| seen.reason_not_to_act(&plan, now)) {
            return answer;
        }
        (self.on_progress)(&Progress::WebhookVerified { plan: plan.clone() });
        target.send_replace(plan.replicas);
        (StatusCode::ACCEPTED, String::new())
    }

    fn believe(&self, headers: &HeaderMap, body: &[u8], now: DateTime<Utc>) -> Result<String, Refusal> {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).ok_or(Refusal::Header);
        let signed = SignedHeaders {
            id: text("webhook-id")?,
            timestamp: text("webhook-timestamp")?,
            signature: text("webhook-signature")?,
        };
        verify(&self.secret, signed, body, now.timestamp())?;
        Ok(signed.id.to_owned())
    }

    fn with<T>(&self, f: impl FnOnce(&mut Seen) -> T) -> T {
        f(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Seen {
    fn reason_not_to_act(&mut self, plan: &ReplicaPlan, now: DateTime<Utc>) -> Option<Answer> {
        if self.ids.contains(&plan.id) {
            self.counts.repeated += 1;
            return Some((StatusCode::ACCEPTED, "repeated: acted on before".to_owned()));
        }
        self.ids.push_back(plan.id.clone());
        if self.ids.len() > REMEMBERED_IDS {
            self.ids.pop_front();
        }
        if plan.expires_at <= now {
            self.counts.expired += 1;
            return Some((StatusCode::ACCEPTED, "expired: not acted on".to_owned()));
        }
        // Retries of an older plan may arrive after a newer one.
        if self.newest.get(&plan.pool).is_some_and(|newest| *newest > plan.decided_at) {
            self.counts.overtaken += 1;
            return Some((StatusCode::ACCEPTED, "overtaken by a newer plan: not acted on".to_owned()));
        }
        self.newest.insert(plan.pool.clone(), plan.decided_at);
        self.counts.accepted += 1;
        None
    }
}

pub(super) fn router(receiver: Arc<Receiver>) -> Router {
    Router::new().route("/hook", post(hook)).layer(DefaultBodyLimit::max(MAX_BODY_BYTES)).with_state(receiver)
}

async fn hook(State(receiver): State<Arc<Receiver>>, headers: HeaderMap, body: Bytes) -> Answer {
    receiver.take(&headers, &body, Utc::now())
}
