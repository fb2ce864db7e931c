use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::Store;
use super::error::StoreError;

/// How much an event matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, sqlx::Type)]
#[serde(rename_all = "lowercase")]
#[sqlx(type_name = "text", rename_all = "lowercase")]
pub enum EventLevel {
    /// Good to know.
    Info,
    /// Something works worse than it should.
    Warning,
    /// Something does not work.
    Error,
}

impl EventLevel {
    /// The level in lower case.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// Something an operator should know about Clairvoy itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, sqlx::FromRow)]
pub struct EventRow {
    /// When it happened.
    pub at: DateTime<Utc>,
    /// How much it matters.
    pub level: EventLevel,
    /// One line for people.
    pub message: String,
}

impl Store {
    /// Writes an event.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn put_event(&self, event: &EventRow) -> Result<(), StoreError> {
        sqlx::query("INSERT INTO event (at, level, message) VALUES ($1, $2, $3)")
            .bind(event.at)
            .bind(event.level)
            .bind(&event.message)
            .execute(self.pool())
            .await
            .map_err(StoreError::query("write an event"))?;
        Ok(())
    }

    /// Returns the newest events, newest first.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn events(&self, limit: u32) -> Result<Vec<EventRow>, StoreError> {
        sqlx::query_as("SELECT at, level, message FROM event ORDER BY at DESC, id DESC LIMIT $1")
            .bind(i64::from(limit))
            .fetch_all(self.pool())
            .await
            .map_err(StoreError::query("read events"))
    }

    /// Returns the newest event up to a time that says one of these, or begins with this; none where none is kept.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn newest_event(
        &self,
        said: &[String],
        begin: &str,
        at: DateTime<Utc>,
    ) -> Result<Option<EventRow>, StoreError> {
        sqlx::query_as(
            "SELECT at, level, message FROM event
             WHERE at <= $3 AND (message = ANY($1) OR starts_with(message, $2)) ORDER BY at DESC, id DESC LIMIT 1",
        )
        .bind(said)
        .bind(begin)
        .bind(at)
        .fetch_optional(self.pool())
        .await
        .map_err(StoreError::query("read an event"))
    }
}
