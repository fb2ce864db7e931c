use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

/// The CloudEvents `type` of a replica plan.
pub const EVENT_TYPE: &str = "dev.clairvoy.replicas.planned";

/// Receivers of webhooks may refuse bodies above 20 kB; the reason is the only part without a bound of its own.
const LONGEST_REASON_CHARACTERS: usize = 2000;

/// How many replicas a pool should have, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaPlanEvent {
    /// Id of the decision; receivers tell repeated deliveries by it.
    pub id: Uuid,
    /// When it was decided.
    pub at: DateTime<Utc>,
    /// The model that the pool serves.
    pub model: String,
    /// The pool to scale.
    pub pool: String,
    /// Replicas that the pool should have.
    pub replicas: u32,
    /// Replicas that it has.
    pub current: u32,
    /// Replicas that the demand of this moment needs.
    pub needed_now: u32,
    /// Replicas that the demand forecast at the horizon needs.
    pub needed_forecast: u32,
    /// How far ahead the forecast was read: the pool's cold start, rounded up to whole seconds.
    pub horizon_seconds: u32,
    /// What the number follows from, for people.
    pub reason: String,
    /// From when on the plan is worth nothing and is not delivered any more.
    pub expires_at: DateTime<Utc>,
}

impl ReplicaPlanEvent {
    /// Returns the webhook's body: a CloudEvent in structured JSON. The same event gives the same bytes.
    pub fn body(&self) -> String {
        let reason: String = self.reason.chars().take(LONGEST_REASON_CHARACTERS).collect();
        json!({
            "specversion": "1.0",
            "id": self.id.to_string(),
            "source": "/clairvoy",
            "type": EVENT_TYPE,
            "subject": self.pool,
            "time": timestamp(self.at),
            "datacontenttype": "application/json",
            "data": {
                "model": self.model,
                "pool": self.pool,
                "replicas": self.replicas,
                "current": self.current,
                "needed_now": self.needed_now,
                "needed_forecast": self.needed_forecast,
                "horizon_seconds": self.horizon_seconds,
                "reason": reason,
                "expires_at": timestamp(self.expires_at),
            },
        })
        .to_string()
    }
}

fn timestamp(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}

#[cfg(test)]
pub(super) mod tests {
    use chrono::TimeDelta;
    use serde_json::Value;

    use super::*;

    pub(crate) fn plan(pool: &str, at: DateTime<Utc>, lives: TimeDelta) -> ReplicaPlanEvent {
        ReplicaPlanEvent {
            id: Uuid::new_v4(),
            at,
            model: "chat-large".into(),
            pool: pool.into(),
            replicas: 3,
            current: 2,
            needed_now: 2,
            needed_forecast: 3,
            horizon_seconds: 15,
            reason: "forecast 23.0 rps at +15 s, 6.0 rps each".into(),
            expires_at: at + lives,
        }
    }

    #[test]
    fn the_body_is_a_cloud_event() {
        let event = plan("large-h100-a", DateTime::UNIX_EPOCH, TimeDelta::seconds(60));
        let body: Value = serde_json::from_str(&event.body()).unwrap();
        let expected = json!({
            "specversion": "1.0", "id": event.id.to_string(), "source": "/clairvoy",
            "type": "dev.clairvoy.replicas.planned", "subject": "large-h100-a",
            "time": "1970-01-01T00:00:00.000Z", "datacontenttype": "application/json",
            "data": {
                "model": "chat-large", "pool": "large-h100-a", "replicas": 3, "current": 2, "needed_now": 2,
                "needed_forecast": 3, "horizon_seconds": 15,
                "reason": "forecast 23.0 rps at +15 s, 6.0 rps each", "expires_at": "1970-01-01T00:01:00.000Z"
            }
        });
        assert_eq!(body, expected);
    }

    #[test]
    fn a_long_reason_does_not_make_a_long_body() {
        let mut event = plan("large-h100-a", DateTime::UNIX_EPOCH, TimeDelta::seconds(60));
        event.reason = "ü".repeat(100_000);
        assert!(event.body().len() < 20_000);
    }
}
