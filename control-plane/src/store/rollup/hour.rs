use std::sync::LazyLock;

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::{AssertSqlSafe, PgConnection};

use crate::store::Store;
use crate::store::connect::bounded;
use crate::store::error::StoreError;

use super::{PATIENCE, STATEMENT, measures};

/// An hour is rolled up this long after its end, when its last minute has been.
const SETTLES: TimeDelta = TimeDelta::seconds(90);

static BACKEND_HOUR: LazyLock<String> = LazyLock::new(measures::backend_hour);
static GROUP_HOUR: LazyLock<String> = LazyLock::new(measures::group_hour);
static GROUP_MINUTES: LazyLock<String> = LazyLock::new(measures::group_minutes);

impl Store {
    /// Computes up to `limit` hours that are over at `now` and had a minute rolled up since they were last computed,
    /// newest first, each from all of its minutes: a second run changes nothing. Returns how many it computed.
    ///
    /// Safe to run in several processes: an hour is taken by one of them.
    ///
    /// # Errors
    /// When the database does not answer. Hours done by then stay done.
    pub async fn roll_up_hours(&self, now: DateTime<Utc>, limit: u32) -> Result<u32, StoreError> {
        let mut done = 0;
        while done < limit {
            let failed = StoreError::query("roll up minutes");
            if !bounded(PATIENCE, Box::pin(self.roll_up_hour(now))).await.map_err(failed)? {
                break;
            }
            done += 1;
        }
        Ok(done)
    }

    async fn roll_up_hour(&self, now: DateTime<Utc>) -> Result<bool, sqlx::Error> {
        let mut transaction = self.pool().begin().await?;
        sqlx::query(STATEMENT).execute(&mut *transaction).await?;
        let claimed: Option<DateTime<Utc>> = sqlx::query_scalar(
            "WITH due AS (
                 SELECT hour FROM dirty_hour WHERE hour <= $1 ORDER BY hour DESC LIMIT 1 FOR UPDATE SKIP LOCKED
             )
             DELETE FROM dirty_hour d USING due WHERE d.hour = due.hour RETURNING d.hour",
        )
        .bind(now - TimeDelta::hours(1) - SETTLES)
        .fetch_optional(&mut *transaction)
        .await?;
        let Some(hour) = claimed else {
            return Ok(false);
        };
        // Minutes rolled up by a version that knew no groups.
        let without_groups: Vec<DateTime<Utc>> = sqlx::query_scalar(
            "SELECT DISTINCT minute FROM backend_minute WHERE minute >= $1 AND minute < $1 + interval '1 hour'
             EXCEPT SELECT minute FROM group_minute WHERE minute >= $1 AND minute < $1 + interval '1 hour'",
        )
        .bind(hour)
        .fetch_all(&mut *transaction)
        .await?;
        if !without_groups.is_empty() {
            make_groups(&mut transaction, &without_groups).await?;
        }
        sqlx::query(
            "SELECT create_month_partition(t, ($1 AT TIME ZONE 'UTC')::date)
             FROM unnest(ARRAY['backend_hour', 'group_hour']::regclass[]) AS t",
        )
        .bind(hour)
        .execute(&mut *transaction)
        .await?;
        // Hours outlive their minutes: one without any is left as it is.
        for statement in [
            "DELETE FROM backend_hour WHERE hour = $1 AND EXISTS (
                 SELECT FROM backend_minute WHERE minute >= $1 AND minute < $1 + interval '1 hour')",
            "DELETE FROM group_hour WHERE hour = $1 AND EXISTS (
                 SELECT FROM group_minute WHERE minute >= $1 AND minute < $1 + interval '1 hour')",
        ] {
            sqlx::query(statement).bind(hour).execute(&mut *transaction).await?;
        }
        for statement in [&BACKEND_HOUR, &GROUP_HOUR] {
            sqlx::query(AssertSqlSafe(statement.as_str())).bind(hour).execute(&mut *transaction).await?;
        }
        transaction.commit().await?;
        Ok(true)
    }
}

/// Makes minutes of pools and models that are not there yet, from those of their backends.
pub(super) async fn make_groups(
    connection: &mut PgConnection,
    minutes: &[DateTime<Utc>],
) -> Result<(), sqlx::Error> {
    // Only the missing ones, as a conflict would use up a number each time.
    sqlx::query(
        "INSERT INTO fleet_group (kind, name)
         SELECT DISTINCT v.kind, v.name
         FROM backend b CROSS JOIN LATERAL (VALUES ('pool', b.pool), ('model', b.model)) AS v (kind, name)
         WHERE v.name IS NOT NULL
           AND NOT EXISTS (SELECT FROM fleet_group g WHERE g.kind = v.kind AND g.name = v.name)
         ON CONFLICT DO NOTHING",
    )
    .execute(&mut *connection)
    .await?;
    sqlx::query(
        "SELECT create_month_partition('group_minute', day)
         FROM (SELECT DISTINCT (m AT TIME ZONE 'UTC')::date AS day FROM unnest($1::timestamptz[]) AS m) AS days",
    )
    .bind(minutes)
    .execute(&mut *connection)
    .await?;
    sqlx::query(AssertSqlSafe(GROUP_MINUTES.as_str())).bind(minutes).execute(connection).await?;
    Ok(())
}
