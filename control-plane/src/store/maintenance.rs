use std::time::Duration;

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::Store;
use super::connect::bounded;
use super::decisions::{FORGET_ACKNOWLEDGEMENTS, FORGET_DECISIONS};
use super::error::StoreError;
use super::settings::Retention;

/// How often minutes are rolled up.
const ROLL_UP: Duration = Duration::from_secs(10);
/// How often partitions are made and old rows removed.
const MAINTAIN: Duration = Duration::from_secs(600);
/// Minutes and hours rolled up in one round, so that a backlog holds up neither maintenance nor the end.
const MINUTES_A_ROUND: u64 = 600;
const HOURS_A_ROUND: u32 = 24;
/// Partitions made ahead: the next days, so that a day without maintenance does no harm.
const DAYS_AHEAD: u32 = 2;
/// How long a step of maintenance may take; the server gives each 60 s.
const STEP: Duration = Duration::from_secs(90);
/// A clock that is ahead of the database's by more than this is told.
const CLOCKS_DIFFER: TimeDelta = TimeDelta::minutes(5);
/// Days that models of a backend are kept after it was last seen.
const GONE_DAYS: u32 = 14;
/// Rows removed in one statement, so that locks stay short.
const CHUNK: i64 = 10_000;

/// What one round of maintenance did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MaintenanceReport {
    /// Day and month partitions made.
    pub partitions_created: u32,
    /// Day and month partitions dropped.
    pub partitions_dropped: u32,
    /// Rows removed from tables without partitions.
    pub rows_removed: u64,
}

impl Store {
    /// Rolls up minutes and hours every 10 s, and maintains partitions and retention at once and every 10 minutes, until
    /// `stop`. Failures are logged and tried again in the next round.
    pub async fn run_maintenance(&self, retention: Retention, stop: CancellationToken) {
        let mut ticks = interval(ROLL_UP);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut maintained: Option<Instant> = None;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            if maintained.is_none_or(|at| at.elapsed() >= MAINTAIN) {
                match self.maintain(Utc::now(), &retention).await {
                    Ok(report) => {
                        tracing::debug!(?report, "maintained the database");
                        maintained = Some(Instant::now());
                    }
                    Err(error) => tracing::warn!(%error, "cannot maintain the database; trying again"),
                }
            }
            let rolled_up = async {
                self.roll_up_minutes(Utc::now(), MINUTES_A_ROUND).await?;
                self.roll_up_hours(Utc::now(), HOURS_A_ROUND).await
            };
            if let Err(error) = rolled_up.await {
                tracing::warn!(%error, "cannot roll up telemetry; trying again");
            }
        }
    }

    /// Makes the partitions of today and the next days, drops those past retention, and removes old rows.
    ///
    /// # Errors
    /// When the database does not answer, or a lock is not free within 2 s. What was done by then stays done.
    pub async fn maintain(
        &self,
        now: DateTime<Utc>,
        retention: &Retention,
    ) -> Result<MaintenanceReport, StoreError> {
        let failed = StoreError::query("maintain the database");
        self.try_maintain(now, retention).await.map_err(failed)
    }

    async fn try_maintain(
        &self,
        now: DateTime<Utc>,
        retention: &Retention,
    ) -> Result<MaintenanceReport, sqlx::Error> {
        let mut report = MaintenanceReport::default();
        let today = now.date_naive();
        // What is removed does not come back: of two clocks, the one that is behind decides.
        let theirs: DateTime<Utc> =
            bounded(STEP, Box::pin(sqlx::query_scalar("SELECT now()").fetch_one(self.pool()))).await?;
        if now - theirs > CLOCKS_DIFFER {
            let seconds = (now - theirs).num_seconds();
            tracing::warn!(
                seconds,
                "this machine's clock is ahead of the database's; retention goes by the latter"
            );
        }
        let past = now.min(theirs);
        let oldest_today = past.date_naive();
        let tables = [
            ("backend_sample", retention.samples_days),
            ("backend_minute", retention.minutes_days),
            ("input_page", retention.samples_days),
            ("checkpoint", retention.samples_days),
        ];
        for (table, days) in tables {
            for ahead in 0..=DAYS_AHEAD {
                let step = sqlx::query_scalar("SELECT create_day_partition($1::regclass, $2)")
                    .bind(table)
                    .bind(shift(today, i64::from(ahead)));
                let made: bool = bounded(STEP, Box::pin(step.fetch_one(self.pool()))).await?;
                report.partitions_created += u32::from(made);
            }
            let step = sqlx::query_scalar("SELECT drop_day_partitions($1::regclass, $2)")
                .bind(table)
                .bind(shift(oldest_today, -i64::from(days)));
            let dropped: i32 = bounded(STEP, Box::pin(step.fetch_one(self.pool()))).await?;
            report.partitions_dropped += u32::try_from(dropped).unwrap_or(0);
        }
        let tables = [
            ("group_minute", retention.minutes_days),
            ("backend_hour", retention.hours_days),
            ("group_hour", retention.hours_days),
        ];
        for (table, days) in tables {
            for day in [today, shift(today, i64::from(DAYS_AHEAD))] {
                let step = sqlx::query_scalar("SELECT create_month_partition($1::regclass, $2)")
                    .bind(table)
                    .bind(day);
                let made: bool = bounded(STEP, Box::pin(step.fetch_one(self.pool()))).await?;
                report.partitions_created += u32::from(made);
            }
            let step = sqlx::query_scalar("SELECT drop_month_partitions($1::regclass, $2)")
                .bind(table)
                .bind(shift(oldest_today, -i64::from(days)));
            let dropped: i32 = bounded(STEP, Box::pin(step.fetch_one(self.pool()))).await?;
            report.partitions_dropped += u32::try_from(dropped).unwrap_or(0);
        }
        for (statement, days) in removals(retention) {
            let cutoff = past - TimeDelta::days(i64::from(days));
            loop {
                let step = sqlx::query(statement).bind(cutoff).bind(CHUNK);
                let removed = bounded(STEP, Box::pin(step.execute(self.pool()))).await?.rows_affected();
                report.rows_removed += removed;
                if removed < CHUNK.unsigned_abs() {
                    break;
                }
            }
        }
        report.rows_removed +=
            bounded(STEP, Box::pin(sqlx::query(FORGET_GROUPS).execute(self.pool()))).await?.rows_affected();
        // A batch in a spool may still ask for its mark as long as its samples would be taken.
        let marks_days = i64::from(retention.samples_days) + MARKS_LAST;
        let step = sqlx::query(FOLD_MARKS).bind(past - TimeDelta::days(marks_days));
        bounded(STEP, Box::pin(step.execute(self.pool()))).await?;
        Ok(report)
    }
}

/// Days that marks are kept beyond the samples: a sample may be a day ahead, and days are whole.
const MARKS_LAST: i64 = 3;

/// Removes pools and models of which nothing is left.
const FORGET_GROUPS: &str = "
    DELETE FROM fleet_group g
    WHERE NOT EXISTS (SELECT FROM group_hour h WHERE h.group_id = g.id)
      AND NOT EXISTS (SELECT FROM group_minute m WHERE m.group_id = g.id)
      AND NOT EXISTS (SELECT FROM backend b WHERE b.pool = g.name OR b.model = g.name)";

/// Removes states from before `$1`. The newest of what is saved only when it changes is in force at any age: leases and found
/// backends, weights, and whether a canary has stepped back.
const FORGET_STATES: &str = "
    DELETE FROM model_state WHERE ctid = ANY(ARRAY(
        SELECT m.ctid FROM model_state m
        WHERE m.trained_at < $1 AND (m.kind NOT IN ('membership', 'weights', 'canary') OR EXISTS (
            SELECT FROM model_state n WHERE n.kind = m.kind AND n.key = m.key AND n.version > m.version))
        LIMIT $2))";

/// Removes models of backends that were not seen since `$1`. While nothing at all was seen, all are kept.
const FORGET_MODELS: &str = "
    DELETE FROM model_state WHERE ctid = ANY(ARRAY(
        SELECT m.ctid FROM model_state m,
            LATERAL (SELECT least($1, max(last_seen_at) - interval '14 days') AS at FROM backend) AS cutoff
        WHERE m.kind IN ('wait', 'capacity', 'anomaly') AND m.trained_at < cutoff.at
          AND NOT EXISTS (SELECT FROM backend b WHERE b.address = m.key AND b.last_seen_at >= cutoff.at)
        LIMIT $2))";

/// Adds the rows of writers long gone to one, so that the total stays and the table does not grow.
const FOLD_MARKS: &str = "
    WITH gone AS (
        DELETE FROM ingest_mark
        WHERE updated_at < $1 AND writer <> '00000000-0000-0000-0000-000000000000' RETURNING rows
    )
    INSERT INTO ingest_mark (writer, batch, rows, updated_at)
    SELECT '00000000-0000-0000-0000-000000000000', 0, sum(rows), now() FROM gone HAVING count(*) > 0
    ON CONFLICT (writer) DO UPDATE SET rows = ingest_mark.rows + excluded.rows, updated_at = excluded.updated_at";

/// Returns, for each table that grows and has no partitions, the statement that removes at most `$2` rows from before
/// `$1`, and the days that are kept.
fn removals(retention: &Retention) -> [(&'static str, u32); 8] {
    [
        (
            "DELETE FROM demand WHERE ctid = ANY(ARRAY(
                 SELECT ctid FROM demand WHERE recorded_at < $1 LIMIT $2))",
            retention.demand_days,
        ),
        (
            "DELETE FROM forecast WHERE ctid = ANY(ARRAY(
                 SELECT ctid FROM forecast WHERE issued_at < $1 LIMIT $2))",
            retention.forecasts_days,
        ),
        (FORGET_DECISIONS, retention.decisions_days),
        // After those, whose acknowledgements stay with them.
        (FORGET_ACKNOWLEDGEMENTS, retention.decisions_days),
        (FORGET_STATES, retention.minutes_days),
        (FORGET_MODELS, GONE_DAYS),
        (
            "DELETE FROM event WHERE ctid = ANY(ARRAY(SELECT ctid FROM event WHERE at < $1 LIMIT $2))",
            retention.events_days,
        ),
        (
            "DELETE FROM backend WHERE ctid = ANY(ARRAY(
                 SELECT ctid FROM backend WHERE last_seen_at < $1 LIMIT $2))",
            // A month longer, so that no hour of the backend is left.
            retention.hours_days.saturating_add(32),
        ),
    ]
}

fn shift(day: NaiveDate, by_days: i64) -> NaiveDate {
    day.checked_add_signed(TimeDelta::days(by_days)).unwrap_or(day)
}
