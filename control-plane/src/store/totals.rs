use chrono::{DateTime, Utc};

use super::Store;
use super::error::StoreError;

/// How much the database holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, sqlx::FromRow)]
pub struct StoredTotals {
    /// Samples ever written, those that retention removed included.
    pub telemetry_rows: i64,
    /// Forecasts issued (all horizons of a model at one time are one) within retention.
    pub forecasts: i64,
    /// Decisions within retention.
    pub decisions: i64,
    /// Of these, changes of weights.
    pub weight_changes: i64,
    /// Webhooks delivered within retention.
    pub webhooks_delivered: i64,
    /// Webhooks that expired undelivered within retention.
    pub webhooks_failed: i64,
}

impl Store {
    /// Counts what is stored. It scans tables: call it when Clairvoy starts and count on from there.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn totals(&self, now: DateTime<Utc>) -> Result<StoredTotals, StoreError> {
        sqlx::query_as(
            "SELECT (SELECT coalesce(sum(rows), 0)::bigint FROM ingest_mark) AS telemetry_rows,
                    (SELECT count(*) FROM (SELECT DISTINCT model, issued_at FROM forecast) AS f) AS forecasts,
                    d.decisions, d.weight_changes, w.webhooks_delivered, w.webhooks_failed
             FROM (SELECT count(*) AS decisions, count(*) FILTER (WHERE kind = 'weights') AS weight_changes
                   FROM decision) AS d,
                  (SELECT count(delivered_at) AS webhooks_delivered,
                          count(*) FILTER (WHERE delivered_at IS NULL AND expires_at <= $1) AS webhooks_failed
                   FROM webhook_outbox) AS w",
        )
        .bind(now)
        .fetch_one(self.pool())
        .await
        .map_err(StoreError::query("count what is stored"))
    }
}
