use std::time::Duration;

use chrono::{DateTime, Utc};
use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use reqwest::{Client, Url};

use super::event::ReplicaPlanEvent;
use super::retry::{Answer, retry_after};
use super::signature::Secret;
use super::target::{host, resolve};
use crate::telemetry::{client_builder, root_cause};

/// Sends events to one endpoint, over connections to addresses that were checked.
pub(super) struct Poster {
    url: Url,
    secret: Secret,
    /// Bound to the addresses that the host had when it was checked; made anew after a failure.
    pinned: Option<Client>,
}

impl Poster {
    pub(super) fn new(url: Url, secret: Secret) -> Self {
        Self { url, secret, pinned: None }
    }

    /// Makes one attempt, no longer than `patience` in all.
    pub(super) async fn post(
        &mut self,
        event: &ReplicaPlanEvent,
        now: DateTime<Utc>,
        patience: Duration,
    ) -> Answer {
        let attempt = tokio::time::timeout(patience, self.attempt(event, now)).await;
        let failure = match attempt {
            Ok(Ok(answer)) => return answer,
            Ok(Err(reason)) => reason,
            Err(_) => format!("no answer within {} ms", patience.as_millis()),
        };
        self.pinned = None;
        Answer::None(failure)
    }

    async fn attempt(&mut self, event: &ReplicaPlanEvent, now: DateTime<Utc>) -> Result<Answer, String> {
        let client = match self.pinned.take() {
            Some(client) => client,
            None => connect(&self.url).await?,
        };
        let id = event.id.to_string();
        let body = event.body();
        let timestamp = now.timestamp();
        let request = client
            .post(self.url.clone())
            .header(CONTENT_TYPE, "application/cloudevents+json")
            .header("webhook-id", &id)
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", self.secret.sign(&id, timestamp, body.as_bytes()))
            .body(body);
        let response = request.send().await.map_err(|error| root_cause(&error))?;
        let status = response.status().as_u16();
        let wait = response.headers().get(RETRY_AFTER).and_then(|header| header.to_str().ok());
        let retry_after = wait.and_then(|header| retry_after(header, now));
        self.pinned = Some(client);
        Ok(Answer::Status { status, retry_after })
    }
}

/// Builds a client whose connections can only go to the addresses just checked.
async fn connect(url: &Url) -> Result<Client, String> {
    let addresses = resolve(url).await.map_err(|error| error.to_string())?;
    client_builder(url.scheme() == "https", Duration::from_secs(5))
        .resolve_to_addrs(&host(url), &addresses)
        .build()
        .map_err(|error| root_cause(&error))
}
