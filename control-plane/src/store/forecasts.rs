use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::Store;
use super::error::StoreError;

/// One point of a forecast of demand, in requests per second.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, sqlx::FromRow)]
pub struct ForecastRow {
    /// The model's name.
    pub model: String,
    /// When the forecast was made.
    pub issued_at: DateTime<Utc>,
    /// How far ahead this point lies, in seconds.
    pub horizon_seconds: i32,
    /// Start of the time that is forecast.
    pub target_at: DateTime<Utc>,
    /// Its length, in seconds: one step, or several for a far horizon.
    pub target_seconds: i32,
    /// 10 % quantile.
    pub q10: f64,
    /// Median.
    pub q50: f64,
    /// 90 % quantile.
    pub q90: f64,
    /// 95 % quantile.
    pub q95: f64,
    /// 99 % quantile.
    pub q99: f64,
    /// The forecaster that made it.
    pub expert: String,
}

impl Store {
    /// Writes forecasts. A point that is there already (same model, time of issue and horizon) is left as it is.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn put_forecasts(&self, rows: &[ForecastRow]) -> Result<u64, StoreError> {
        fn column<'a, T>(rows: &'a [ForecastRow], value: impl Fn(&'a ForecastRow) -> T) -> Vec<T> {
            rows.iter().map(value).collect()
        }
        sqlx::query(
            "INSERT INTO forecast (model, issued_at, horizon_seconds, target_at, q10, q50, q90, q95, q99, expert,
                                   target_seconds)
             SELECT * FROM unnest($1::text[], $2::timestamptz[], $3::integer[], $4::timestamptz[],
                                  $5::float8[], $6::float8[], $7::float8[], $8::float8[], $9::float8[], $10::text[], $11::integer[])
             ON CONFLICT DO NOTHING",
        )
        .bind(column(rows, |row| row.model.as_str()))
        .bind(column(rows, |row| row.issued_at))
        .bind(column(rows, |row| row.horizon_seconds))
        .bind(column(rows, |row| row.target_at))
        .bind(column(rows, |row| row.q10))
        .bind(column(rows, |row| row.q50))
        .bind(column(rows, |row| row.q90))
        .bind(column(rows, |row| row.q95))
        .bind(column(rows, |row| row.q99))
        .bind(column(rows, |row| row.expert.as_str()))
        .bind(column(rows, |row| row.target_seconds))
        .execute(self.pool())
        .await
        .map(|done| done.rows_affected())
        .map_err(StoreError::query("write forecasts"))
    }

    /// Returns what had been forecast for the steps in `from..to` with a horizon of at least `lead_seconds`: for each
    /// step the newest such point, oldest step first.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn forecasts_as_issued(
        &self,
        model: &str,
        lead_seconds: u32,
        from: DateTime<Utc>,
        to: DateTime<Utc>,
    ) -> Result<Vec<ForecastRow>, StoreError> {
        sqlx::query_as(
            "SELECT DISTINCT ON (target_at)
                    model, issued_at, horizon_seconds, target_at, target_seconds, q10, q50, q90, q95, q99, expert
             FROM forecast
             WHERE model = $1 AND horizon_seconds >= $2 AND target_at >= $3 AND target_at < $4
             ORDER BY target_at, issued_at DESC, horizon_seconds",
        )
        .bind(model)
        .bind(i32::try_from(lead_seconds).unwrap_or(i32::MAX))
        .bind(from)
        .bind(to)
        .fetch_all(self.pool())
        .await
        .map_err(StoreError::query("read issued forecasts"))
    }

    /// Returns the newest forecast of a model, nearest step first; empty when there is none.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn latest_forecast(&self, model: &str) -> Result<Vec<ForecastRow>, StoreError> {
        sqlx::query_as(
            "SELECT model, issued_at, horizon_seconds, target_at, target_seconds, q10, q50, q90, q95, q99, expert
             FROM forecast
             WHERE model = $1 AND issued_at = (SELECT max(issued_at) FROM forecast WHERE model = $1)
             ORDER BY horizon_seconds",
        )
        .bind(model)
        .fetch_all(self.pool())
        .await
        .map_err(StoreError::query("read the latest forecast"))
    }
}
