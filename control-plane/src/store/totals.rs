use super::Store;
use super::error::StoreError;

impl Store {
    /// Returns how many samples were ever written, those that retention removed included.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn telemetry_rows(&self) -> Result<i64, StoreError> {
        sqlx::query_scalar("SELECT coalesce(sum(rows), 0)::bigint FROM ingest_mark")
            .fetch_one(self.pool())
            .await
            .map_err(StoreError::query("count what is stored"))
    }
}
