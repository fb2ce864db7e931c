use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::Store;
use super::error::StoreError;

/// A backend and where it belongs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, sqlx::FromRow)]
pub struct BackendRow {
    /// `host:port`.
    pub address: String,
    /// The pool's name.
    pub pool: String,
    /// The model's name.
    pub model: String,
}

/// A backend that joined a pool through the API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, sqlx::FromRow)]
pub struct RegisteredBackend {
    /// The pool's name.
    pub pool: String,
    /// `host:port`.
    pub address: String,
    /// Whether it takes new requests.
    pub state: RegisteredState,
    /// When it joined.
    pub registered_at: DateTime<Utc>,
    /// When its state last changed.
    pub updated_at: DateTime<Utc>,
}

/// Whether a registered backend takes new requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, sqlx::Type)]
#[serde(rename_all = "lowercase")]
#[sqlx(type_name = "text", rename_all = "lowercase")]
pub enum RegisteredState {
    /// It does.
    Ready,
    /// It finishes what it has, and leaves.
    Draining,
}

impl Store {
    /// Notes which pool and model each backend belongs to, so that samples can be read by model. Call it when the
    /// configuration is loaded and when a backend joins.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn describe_backends(&self, backends: &[BackendRow]) -> Result<(), StoreError> {
        // One statement must not touch a row twice; the last description of an address wins.
        let unique: std::collections::BTreeMap<&str, &BackendRow> =
            backends.iter().map(|backend| (backend.address.as_str(), backend)).collect();
        let addresses: Vec<&str> = unique.keys().copied().collect();
        let pools: Vec<&str> = unique.values().map(|backend| backend.pool.as_str()).collect();
        let models: Vec<&str> = unique.values().map(|backend| backend.model.as_str()).collect();
        // Only the missing ones are inserted: a conflict would use up a number for each backend at each call, and the
        // numbers of a large fleet that changes often would run out within weeks.
        sqlx::query(
            "WITH given AS (
                 SELECT * FROM unnest($1::text[], $2::text[], $3::text[]) AS g (address, pool, model)
             ), changed AS (
                 UPDATE backend b SET pool = g.pool, model = g.model FROM given g
                 WHERE b.address = g.address AND (b.pool, b.model) IS DISTINCT FROM (g.pool, g.model)
             )
             INSERT INTO backend (address, pool, model)
             SELECT address, pool, model FROM given g
             WHERE NOT EXISTS (SELECT FROM backend b WHERE b.address = g.address)
             ON CONFLICT (address) DO UPDATE SET pool = excluded.pool, model = excluded.model",
        )
        .bind(addresses)
        .bind(pools)
        .bind(models)
        .execute(self.pool())
        .await
        .map_err(StoreError::query("describe backends"))?;
        Ok(())
    }

    /// Adds a backend to a pool, or makes a draining one ready again. Returns true when it was not there before.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn register_backend(
        &self,
        pool: &str,
        address: &str,
        now: DateTime<Utc>,
    ) -> Result<bool, StoreError> {
        sqlx::query_scalar(
            "INSERT INTO registered_backend (pool, address, state, registered_at, updated_at)
             VALUES ($1, $2, 'ready', $3, $3)
             ON CONFLICT (pool, address) DO UPDATE SET state = 'ready', updated_at = excluded.updated_at
             RETURNING xmax = 0",
        )
        .bind(pool)
        .bind(address)
        .bind(now)
        .fetch_one(self.pool())
        .await
        .map_err(StoreError::query("register a backend"))
    }

    /// Changes the state of a registered backend. Returns false when there is none.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn set_registered_state(
        &self,
        pool: &str,
        address: &str,
        state: RegisteredState,
        now: DateTime<Utc>,
    ) -> Result<bool, StoreError> {
        sqlx::query(
            "UPDATE registered_backend SET state = $3, updated_at = $4 WHERE pool = $1 AND address = $2",
        )
        .bind(pool)
        .bind(address)
        .bind(state)
        .bind(now)
        .execute(self.pool())
        .await
        .map(|done| done.rows_affected() > 0)
        .map_err(StoreError::query("change the state of a registered backend"))
    }

    /// Removes a registered backend. Returns false when there is none.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn remove_registered_backend(&self, pool: &str, address: &str) -> Result<bool, StoreError> {
        sqlx::query("DELETE FROM registered_backend WHERE pool = $1 AND address = $2")
            .bind(pool)
            .bind(address)
            .execute(self.pool())
            .await
            .map(|done| done.rows_affected() > 0)
            .map_err(StoreError::query("remove a registered backend"))
    }

    /// Returns all registered backends by pool and address.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn registered_backends(&self) -> Result<Vec<RegisteredBackend>, StoreError> {
        sqlx::query_as(
            "SELECT pool, address, state, registered_at, updated_at FROM registered_backend ORDER BY pool, address",
        )
        .fetch_all(self.pool())
        .await
        .map_err(StoreError::query("read the registered backends"))
    }
}
