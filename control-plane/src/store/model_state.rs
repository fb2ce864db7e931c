use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::Store;
use super::error::StoreError;

/// Versions kept of each state: enough to look back after a bad training.
const KEPT_VERSIONS: i32 = 5;

/// A trained model or learned value.
#[derive(Clone, Debug, PartialEq, sqlx::FromRow)]
pub struct ModelState {
    /// 1 for the first of its kind and key.
    pub version: i32,
    /// When it was trained.
    pub trained_at: DateTime<Utc>,
    /// What was saved.
    pub state: Value,
}

impl Store {
    /// Saves a new version of the state of `kind` about `key`, removes versions long past, and returns its number.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn save_model_state(
        &self,
        kind: &str,
        key: &str,
        trained_at: DateTime<Utc>,
        state: &Value,
    ) -> Result<i32, StoreError> {
        self.save_model_text(kind, key, trained_at, &state.to_string()).await
    }

    /// [`Store::save_model_state`] of a state that is JSON already.
    ///
    /// # Errors
    /// When the database does not answer, or `state` is no JSON.
    pub async fn save_model_text(
        &self,
        kind: &str,
        key: &str,
        trained_at: DateTime<Utc>,
        state: &str,
    ) -> Result<i32, StoreError> {
        let save = async {
            let mut transaction = self.pool().begin().await?;
            // Two savers of the same state must not choose the same number.
            sqlx::query(
                "SELECT pg_advisory_xact_lock(hashtextextended('model_state:' || $1 || ':' || $2, 0))",
            )
            .bind(kind)
            .bind(key)
            .execute(&mut *transaction)
            .await?;
            let version: i32 = sqlx::query_scalar(
                "INSERT INTO model_state (kind, key, version, trained_at, state)
                 SELECT $1, $2, coalesce(max(version), 0) + 1, $3, $4::text::jsonb
                 FROM model_state WHERE kind = $1 AND key = $2
                 RETURNING version",
            )
            .bind(kind)
            .bind(key)
            .bind(trained_at)
            .bind(state)
            .fetch_one(&mut *transaction)
            .await?;
            sqlx::query("DELETE FROM model_state WHERE kind = $1 AND key = $2 AND version <= $3")
                .bind(kind)
                .bind(key)
                .bind(version - KEPT_VERSIONS)
                .execute(&mut *transaction)
                .await?;
            transaction.commit().await?;
            Ok(version)
        };
        save.await.map_err(StoreError::query("save a trained model"))
    }

    /// Returns the newest version of the state of `kind` about `key`.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn load_model_state(&self, kind: &str, key: &str) -> Result<Option<ModelState>, StoreError> {
        sqlx::query_as(
            "SELECT version, trained_at, state FROM model_state
             WHERE kind = $1 AND key = $2 ORDER BY version DESC LIMIT 1",
        )
        .bind(kind)
        .bind(key)
        .fetch_optional(self.pool())
        .await
        .map_err(StoreError::query("load a trained model"))
    }

    /// Returns the newest version of the states of `kind` about these keys, or about all, by key.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn newest_model_states(
        &self,
        kind: &str,
        keys: Option<&[String]>,
    ) -> Result<BTreeMap<String, ModelState>, StoreError> {
        let rows: Vec<Keyed> = sqlx::query_as(
            "SELECT DISTINCT ON (key) key, version, trained_at, state FROM model_state
             WHERE kind = $1 AND ($2::text[] IS NULL OR key = ANY($2)) ORDER BY key, version DESC",
        )
        .bind(kind)
        .bind(keys)
        .fetch_all(self.pool())
        .await
        .map_err(StoreError::query("load trained models"))?;
        Ok(rows.into_iter().map(|Keyed { key, model }| (key, model)).collect())
    }
}

#[derive(sqlx::FromRow)]
struct Keyed {
    key: String,
    #[sqlx(flatten)]
    model: ModelState,
}
