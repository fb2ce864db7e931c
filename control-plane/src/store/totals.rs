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
}

impl Store {
    /// Counts what is stored. It scans tables: call it when Clairvoy starts and count on from there.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn totals(&self) -> Result<StoredTotals, StoreError> {
        sqlx::query_as(
            "SELECT (SELECT coalesce(sum(rows), 0)::bigint FROM ingest_mark) AS telemetry_rows,
                    (SELECT count(*) FROM (SELECT DISTINCT model, issued_at FROM forecast) AS f) AS forecasts,
                    d.decisions, d.weight_changes
             FROM (SELECT count(*) AS decisions, count(*) FILTER (WHERE kind = 'weights') AS weight_changes
                   FROM decision) AS d",
        )
        .fetch_one(self.pool())
        .await
        .map_err(StoreError::query("count what is stored"))
    }
}
