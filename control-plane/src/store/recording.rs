use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::Store;
use super::error::StoreError;

/// What one controller took in from one tick to the next.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct PageRow {
    /// The life of the process.
    pub run: Uuid,
    /// Counts the pages of a run, from 1 on.
    pub sequence: i64,
    /// When the page ended.
    pub at: DateTime<Utc>,
    /// What was taken in, in order, as JSON.
    pub page: String,
}

/// All that decisions depend on after a page.
#[derive(Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct CheckpointRow {
    /// The life of the process.
    pub run: Uuid,
    /// The last page before it.
    pub sequence: i64,
    /// When that page ended.
    pub at: DateTime<Utc>,
    /// What the controller remembered, as packed JSON.
    pub core: Vec<u8>,
    /// What the learner had found and the controller had not taken in, as packed JSON.
    pub pending: Vec<u8>,
    /// What the learner remembered, as packed JSON.
    pub learner: Vec<u8>,
}

impl std::fmt::Debug for CheckpointRow {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let bytes = self.core.len() + self.pending.len() + self.learner.len();
        write!(formatter, "checkpoint of {bytes} bytes after page {} of run {}", self.sequence, self.run)
    }
}

/// Where there is a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct CheckpointMark {
    /// The life of the process.
    pub run: Uuid,
    /// The last page before it.
    pub sequence: i64,
    /// When that page ended.
    pub at: DateTime<Utc>,
}

/// Where the pages of a run begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct RunMark {
    /// The life of the process.
    pub run: Uuid,
    /// Its first page that counts.
    pub sequence: i64,
    /// When that page ended.
    pub at: DateTime<Utc>,
}

impl Store {
    /// Writes what was taken in. A page that is there already is left as it is.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn put_page(&self, row: &PageRow) -> Result<(), StoreError> {
        self.make_day("input_page", row.at).await?;
        sqlx::query(
            "INSERT INTO input_page (run, sequence, at, page) VALUES ($1, $2, $3, $4::json)
             ON CONFLICT (run, sequence, at) DO NOTHING",
        )
        .bind(row.run)
        .bind(row.sequence)
        .bind(row.at)
        .bind(&row.page)
        .execute(self.pool())
        .await
        .map_err(StoreError::query("write recorded inputs"))?;
        Ok(())
    }

    /// Writes a checkpoint. One that is there already is left as it is.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn put_checkpoint(&self, row: &CheckpointRow) -> Result<(), StoreError> {
        self.make_day("checkpoint", row.at).await?;
        sqlx::query(
            "INSERT INTO checkpoint (run, sequence, at, core, pending, learner) VALUES ($1, $2, $3, $4, $5, $6)
             ON CONFLICT (run, sequence, at) DO NOTHING",
        )
        .bind(row.run)
        .bind(row.sequence)
        .bind(row.at)
        .bind(&row.core)
        .bind(&row.pending)
        .bind(&row.learner)
        .execute(self.pool())
        .await
        .map_err(StoreError::query("write a checkpoint"))?;
        Ok(())
    }

    /// Makes the partition for a row, which maintenance may not have made: the row may have waited long.
    async fn make_day(&self, table: &'static str, at: DateTime<Utc>) -> Result<(), StoreError> {
        sqlx::query("SELECT create_day_partition($1::regclass, ($2 AT TIME ZONE 'UTC')::date)")
            .bind(table)
            .bind(at)
            .execute(self.pool())
            .await
            .map_err(StoreError::query("make a partition for recorded inputs"))?;
        Ok(())
    }

    /// Returns where the checkpoints before `to` are, oldest first.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn checkpoints(&self, to: DateTime<Utc>) -> Result<Vec<CheckpointMark>, StoreError> {
        sqlx::query_as("SELECT run, sequence, at FROM checkpoint WHERE at < $1 ORDER BY at, sequence")
            .bind(to)
            .fetch_all(self.pool())
            .await
            .map_err(StoreError::query("look for checkpoints"))
    }

    /// Returns a checkpoint.
    ///
    /// # Errors
    /// When the database does not answer, or does not have it any more.
    pub async fn checkpoint(&self, run: Uuid, sequence: i64) -> Result<CheckpointRow, StoreError> {
        sqlx::query_as(
            "SELECT run, sequence, at, core, pending, learner FROM checkpoint WHERE run = $1 AND sequence = $2",
        )
        .bind(run)
        .bind(sequence)
        .fetch_one(self.pool())
        .await
        .map_err(StoreError::query("read a checkpoint"))
    }

    /// Returns the runs that took something in between `from` and `to`, by the first page that ended at `from` or later;
    /// the elder one first.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn runs(&self, from: DateTime<Utc>, to: DateTime<Utc>) -> Result<Vec<RunMark>, StoreError> {
        // From run to run along the primary key, as there is no list of them.
        sqlx::query_as(
            "WITH RECURSIVE known AS (
                 (SELECT run FROM input_page ORDER BY run LIMIT 1)
                 UNION ALL
                 SELECT (SELECT p.run FROM input_page p WHERE p.run > known.run ORDER BY p.run LIMIT 1)
                 FROM known WHERE known.run IS NOT NULL
             )
             SELECT known.run, first.sequence, first.at FROM known CROSS JOIN LATERAL (
                 SELECT p.sequence, p.at, p.page FROM input_page p
                 WHERE p.run = known.run AND p.at >= $1 ORDER BY p.sequence LIMIT 1
             ) AS first
             WHERE known.run IS NOT NULL AND (first.at < $2 OR (first.page->>'since')::timestamptz < $2)
             ORDER BY known.run",
        )
        .bind(from)
        .bind(to)
        .fetch_all(self.pool())
        .await
        .map_err(StoreError::query("look for recorded inputs"))
    }

    /// Returns the next pages of a run after one of its pages, in their order: at most `most`, and no more than about `bytes`
    /// beside the first. None: there are no more.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn pages(
        &self,
        run: Uuid,
        after: i64,
        most: u32,
        bytes: u32,
    ) -> Result<Vec<PageRow>, StoreError> {
        sqlx::query_as(
            "SELECT run, sequence, at, page FROM (
                 SELECT *, sum(octet_length(page)) OVER (ORDER BY sequence ROWS UNBOUNDED PRECEDING) AS bytes
                 FROM (
                     SELECT run, sequence, at, page::text AS page FROM input_page
                     WHERE run = $1 AND sequence > $2 ORDER BY sequence LIMIT $3
                 ) AS next
             ) AS counted
             WHERE bytes - octet_length(page) < $4 ORDER BY sequence",
        )
        .bind(run)
        .bind(after)
        .bind(i64::from(most))
        .bind(i64::from(bytes))
        .fetch_all(self.pool())
        .await
        .map_err(StoreError::query("read recorded inputs"))
    }
}
