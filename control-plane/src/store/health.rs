use std::time::Instant;

use super::embedded::EmbeddedState;
use super::error::StoreError;
use super::{Store, migrations};

/// The state of the database, for checks.
#[derive(Clone, Debug, PartialEq)]
pub struct StoreHealth {
    /// Time that a small query took, in seconds, a wait for a free connection included.
    pub latency_seconds: f64,
    /// What the server calls itself, such as `18.6`.
    pub server_version: String,
    /// Migrations that the database has.
    pub migrations_applied: usize,
    /// Migrations that this build knows. Fewer than applied: a newer Clairvoy migrated the database.
    pub migrations_known: usize,
    /// The embedded server, if it is used.
    pub embedded: Option<EmbeddedState>,
}

impl Store {
    /// Asks the database how it is.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn health(&self) -> Result<StoreHealth, StoreError> {
        let begun = Instant::now();
        let (server_version, applied): (String, i64) = sqlx::query_as(
            "SELECT current_setting('server_version'), (SELECT count(*) FROM _sqlx_migrations WHERE success)",
        )
        .fetch_one(self.pool())
        .await
        .map_err(StoreError::query("check the database"))?;
        Ok(StoreHealth {
            latency_seconds: begun.elapsed().as_secs_f64(),
            server_version,
            migrations_applied: usize::try_from(applied).unwrap_or(0),
            migrations_known: migrations().iter().count(),
            embedded: self.embedded_state(),
        })
    }
}
