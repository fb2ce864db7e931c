use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use super::Store;
use super::error::StoreError;

/// A webhook to be delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxMessage {
    /// The decision it tells of. The same message may go to several URLs.
    pub id: Uuid,
    /// Where to.
    pub url: String,
    /// The body, as it is to be sent each time.
    pub body: String,
    /// When it is useless.
    pub expires_at: DateTime<Utc>,
}

/// A webhook that is due.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct OutboxEntry {
    /// The decision it tells of.
    pub id: Uuid,
    /// Where to.
    pub url: String,
    /// The body, as it is to be sent each time.
    pub body: String,
    /// When it is useless.
    pub expires_at: DateTime<Utc>,
    /// Attempts that were begun, this one included.
    pub attempts: i32,
}

impl Store {
    /// Puts a webhook in the outbox, due at once. One with the same id and URL is left as it is.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn put_outbox(&self, message: &OutboxMessage, now: DateTime<Utc>) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO webhook_outbox (id, url, body, created_at, expires_at, next_attempt_at)
             VALUES ($1, $2, $3, $4, $5, $4) ON CONFLICT (id, url) DO NOTHING",
        )
        .bind(message.id)
        .bind(&message.url)
        .bind(&message.body)
        .bind(now)
        .bind(message.expires_at)
        .execute(self.pool())
        .await
        .map_err(StoreError::query("write to the outbox"))?;
        Ok(())
    }

    /// Takes webhooks that are due, oldest first, and hides them for `lease`: if the attempt is never reported they
    /// come up again after it. Expired ones are not taken.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn claim_outbox(
        &self,
        now: DateTime<Utc>,
        lease: Duration,
        limit: u32,
    ) -> Result<Vec<OutboxEntry>, StoreError> {
        let hidden_until = now + TimeDelta::from_std(lease).unwrap_or(TimeDelta::days(1));
        sqlx::query_as(
            "WITH due AS (
                 SELECT id, url FROM webhook_outbox
                 WHERE delivered_at IS NULL AND next_attempt_at <= $1 AND expires_at > $1
                 ORDER BY next_attempt_at LIMIT $3 FOR UPDATE SKIP LOCKED
             ), claimed AS (
                 UPDATE webhook_outbox o SET attempts = attempts + 1, next_attempt_at = $2
                 FROM due WHERE o.id = due.id AND o.url = due.url
                 RETURNING o.id, o.url, o.body, o.created_at, o.expires_at, o.attempts
             )
             SELECT id, url, body, expires_at, attempts FROM claimed ORDER BY created_at, id, url",
        )
        .bind(now)
        .bind(hidden_until)
        .bind(i64::from(limit))
        .fetch_all(self.pool())
        .await
        .map_err(StoreError::query("read the outbox"))
    }

    /// Notes that a webhook was delivered.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn outbox_delivered(&self, id: Uuid, url: &str, now: DateTime<Utc>) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE webhook_outbox SET delivered_at = $3, last_error = NULL WHERE id = $1 AND url = $2",
        )
        .bind(id)
        .bind(url)
        .bind(now)
        .execute(self.pool())
        .await
        .map_err(StoreError::query("note a delivered webhook"))?;
        Ok(())
    }

    /// Notes a failed attempt and when to try again.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn outbox_failed(
        &self,
        id: Uuid,
        url: &str,
        error: &str,
        next_attempt_at: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE webhook_outbox SET last_error = $3, next_attempt_at = $4 WHERE id = $1 AND url = $2",
        )
        .bind(id)
        .bind(url)
        .bind(error)
        .bind(next_attempt_at)
        .execute(self.pool())
        .await
        .map_err(StoreError::query("note a failed webhook"))?;
        Ok(())
    }
}
