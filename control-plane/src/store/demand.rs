use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::Store;
use super::error::StoreError;

/// Rows sent in one statement.
const CHUNK: usize = 10_000;

/// The demand on a model in one forecast step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, sqlx::FromRow)]
pub struct DemandRow {
    /// The model's name.
    pub model: String,
    /// Start of the step.
    pub at: DateTime<Utc>,
    /// Mean rate over the step.
    pub requests_per_second: f64,
}

impl Store {
    /// Writes demand, replacing what was there for the same model and step; all rows or none. Returns how many steps
    /// were written: of rows for the same step the last one counts.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn put_demand(&self, step_seconds: u32, rows: &[DemandRow]) -> Result<u64, StoreError> {
        let step = i32::try_from(step_seconds).unwrap_or(i32::MAX);
        let unique: std::collections::BTreeMap<(&str, DateTime<Utc>), f64> =
            rows.iter().map(|row| ((row.model.as_str(), row.at), row.requests_per_second)).collect();
        let unique: Vec<_> = unique.into_iter().collect();
        let mut transaction = self.pool().begin().await.map_err(StoreError::query("write demand"))?;
        let mut written = 0;
        for chunk in unique.chunks(CHUNK) {
            let models: Vec<&str> = chunk.iter().map(|((model, _), _)| *model).collect();
            let times: Vec<DateTime<Utc>> = chunk.iter().map(|((_, at), _)| *at).collect();
            let rates: Vec<f64> = chunk.iter().map(|(_, rate)| *rate).collect();
            let done = sqlx::query(
                "INSERT INTO demand (model, step_seconds, at, requests_per_second)
                 SELECT model, $4, at, rate FROM unnest($1::text[], $2::timestamptz[], $3::float8[]) AS r (model, at, rate)
                 ON CONFLICT (model, step_seconds, at) DO UPDATE
                 SET requests_per_second = excluded.requests_per_second, recorded_at = excluded.recorded_at",
            )
            .bind(models)
            .bind(times)
            .bind(rates)
            .bind(step)
            .execute(&mut *transaction)
            .await
            .map_err(StoreError::query("write demand"))?;
            written += done.rows_affected();
        }
        transaction.commit().await.map_err(StoreError::query("write demand"))?;
        Ok(written)
    }

    /// Returns the demand on a model for steps that start in `from..to`, oldest first. Steps without demand known are
    /// left out.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn demand(
        &self,
        model: &str,
        step_seconds: u32,
        from: DateTime<Utc>,
        to: DateTime<Utc>,
    ) -> Result<Vec<DemandRow>, StoreError> {
        sqlx::query_as(
            "SELECT model, at, requests_per_second FROM demand
             WHERE model = $1 AND step_seconds = $2 AND at >= $3 AND at < $4 ORDER BY at",
        )
        .bind(model)
        .bind(i32::try_from(step_seconds).unwrap_or(i32::MAX))
        .bind(from)
        .bind(to)
        .fetch_all(self.pool())
        .await
        .map_err(StoreError::query("read demand"))
    }
}
