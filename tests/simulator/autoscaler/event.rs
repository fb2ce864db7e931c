//! The body of a webhook: a structured CloudEvent about the size of one pool.

use chrono::{DateTime, Utc};
use serde::Deserialize;

/// Type of the event that asks for a number of replicas.
const REPLICAS_PLANNED: &str = "dev.clairvoy.replicas.planned";

/// What a webhook asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct ReplicaPlan {
    /// Id of the decision; the same on every attempt to deliver it.
    pub id: String,
    /// The pool to size.
    pub pool: String,
    /// Replicas it should have.
    pub replicas: u32,
    /// Replicas that today's demand needs, as the sender counts them.
    pub needed_now: u32,
    /// Replicas that the forecast demand needs.
    pub needed_forecast: u32,
    /// How far ahead the forecast was read, in seconds.
    pub horizon_seconds: f64,
    /// When it was decided.
    pub decided_at: DateTime<Utc>,
    /// After this moment the plan must not be acted on.
    pub expires_at: DateTime<Utc>,
}

#[derive(Deserialize)]
struct Envelope {
    specversion: String,
    id: String,
    #[serde(rename = "source")]
    _source: String,
    #[serde(rename = "type")]
    kind: String,
    subject: String,
    time: DateTime<Utc>,
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    pool: String,
    replicas: u32,
    needed_now: u32,
    needed_forecast: u32,
    horizon_seconds: f64,
    expires_at: DateTime<Utc>,
}

impl ReplicaPlan {
    /// Reads the body of a webhook whose `webhook-id` header is `id`.
    ///
    /// # Errors
    ///
    /// What is wrong with it, in words for the sender.
    pub fn parse(id: &str, body: &[u8]) -> Result<Self, String> {
        let event: Envelope = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        if event.specversion != "1.0" {
            return Err(format!("specversion `{}` is not 1.0", event.specversion));
        }
        if event.kind != REPLICAS_PLANNED {
            return Err(format!("type `{}` is not {REPLICAS_PLANNED}", event.kind));
        }
        if event.id != id {
            return Err(format!("id `{}` is not the webhook-id `{id}`", event.id));
        }
        if event.subject != event.data.pool {
            return Err(format!("subject `{}` is not the pool `{}`", event.subject, event.data.pool));
        }
        Ok(Self {
            id: event.id,
            pool: event.data.pool,
            replicas: event.data.replicas,
            needed_now: event.data.needed_now,
            needed_forecast: event.data.needed_forecast,
            horizon_seconds: event.data.horizon_seconds,
            decided_at: event.time,
            expires_at: event.data.expires_at,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &str = r#"{"specversion":"1.0","id":"d-1","source":"/clairvoy","type":"dev.clairvoy.replicas.planned",
        "subject":"a","time":"2026-01-01T00:00:00Z","datacontenttype":"application/json","data":{"model":"m","pool":"a",
        "replicas":3,"current":2,"needed_now":2,"needed_forecast":3,"horizon_seconds":15,"reason":"r",
        "expires_at":"2026-01-01T00:01:00Z"}}"#;

    #[test]
    fn a_plan_is_read() {
        let plan = ReplicaPlan::parse("d-1", BODY.as_bytes()).unwrap();
        assert_eq!((plan.pool.as_str(), plan.replicas, plan.needed_now), ("a", 3, 2));
    }

    #[test]
    fn contradictions_are_named() {
        for (from, to, word) in [
            ("\"1.0\"", "\"0.3\"", "specversion"),
            ("replicas.planned", "other", "type"),
            ("d-1", "d-2", "webhook-id"),
            ("\"subject\":\"a\"", "\"subject\":\"b\"", "subject"),
            ("\"source\":\"/clairvoy\",", "", "source"),
        ] {
            let error = ReplicaPlan::parse("d-1", BODY.replace(from, to).as_bytes()).unwrap_err();
            assert!(error.contains(word), "{word}: {error}");
        }
    }
}
