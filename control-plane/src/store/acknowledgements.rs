use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::types::Json;
use uuid::Uuid;

use super::Store;
use super::error::StoreError;

/// What the Envoys said to the endpoints that were published with a decision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, sqlx::FromRow)]
pub struct AcknowledgementRow {
    /// The decision.
    pub decision_id: Uuid,
    /// When it was published.
    pub published_at: DateTime<Utc>,
    /// Envoys that were to be told.
    pub envoys: i32,
    /// Those that ACKed it.
    pub accepted: i32,
    /// Those that refused it.
    pub refused: i32,
    /// Those that went before they answered.
    pub gone: i32,
    /// From publishing until the first ACK, seconds.
    pub first_seconds: Option<f64>,
    /// From publishing until the last one, seconds.
    pub last_seconds: Option<f64>,
    /// The first of those that refused it.
    #[sqlx(json)]
    pub refusals: Vec<Refusal>,
}

/// An Envoy that refused what it was sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Its `node.id`.
    pub node: String,
    /// What it said.
    pub reason: String,
}

impl Store {
    /// Writes what became of decisions. A row that is there already is left as it is.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn put_acknowledgements(&self, rows: &[AcknowledgementRow]) -> Result<(), StoreError> {
        fn column<'a, T>(
            rows: &'a [AcknowledgementRow],
            value: impl Fn(&'a AcknowledgementRow) -> T,
        ) -> Vec<T> {
            rows.iter().map(value).collect()
        }
        sqlx::query(
            "INSERT INTO acknowledgement (decision_id, published_at, envoys, accepted, refused, gone, first_seconds,
                                          last_seconds, refusals)
             SELECT * FROM unnest($1::uuid[], $2::timestamptz[], $3::integer[], $4::integer[], $5::integer[], $6::integer[],
                                  $7::float8[], $8::float8[], $9::jsonb[])
             ON CONFLICT (decision_id) DO NOTHING",
        )
        .bind(column(rows, |row| row.decision_id))
        .bind(column(rows, |row| row.published_at))
        .bind(column(rows, |row| row.envoys))
        .bind(column(rows, |row| row.accepted))
        .bind(column(rows, |row| row.refused))
        .bind(column(rows, |row| row.gone))
        .bind(column(rows, |row| row.first_seconds))
        .bind(column(rows, |row| row.last_seconds))
        .bind(column(rows, |row| Json(&row.refusals)))
        .execute(self.pool())
        .await
        .map_err(StoreError::query("write acknowledgements"))?;
        Ok(())
    }

    /// Returns what became of decisions; none of those whose Envoys may still answer, that told them nothing new, or that are
    /// of a time before this was written down.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn acknowledgements(&self, decisions: &[Uuid]) -> Result<Vec<AcknowledgementRow>, StoreError> {
        sqlx::query_as(
            "SELECT decision_id, published_at, envoys, accepted, refused, gone, first_seconds, last_seconds, refusals
             FROM acknowledgement WHERE decision_id = ANY($1)",
        )
        .bind(decisions)
        .fetch_all(self.pool())
        .await
        .map_err(StoreError::query("read acknowledgements"))
    }
}
