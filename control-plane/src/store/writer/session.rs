use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, NaiveDate, Utc};
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection};

use crate::store::connect::bounded;
use crate::store::samples::{COPY_SAMPLES, encode};
use crate::telemetry::Sample;

use super::BatchId;

/// Bytes of a COPY sent at a time.
const COPY_CHUNK: usize = 64 * 1024;
/// A batch takes milliseconds; beyond this the connection is taken for dead.
const BATCH_TIMEOUT: Duration = Duration::from_secs(60);
const GOODBYE: Duration = Duration::from_secs(2);
/// Known ids and partitions are asked for again after this, so that addresses long gone are forgotten.
const CACHE_AGE: Duration = Duration::from_secs(3600);
/// Commits wait for the disk: there is one batch a second, and what counts as written survives a crash of the database.
const SET_UP: &str = "SET statement_timeout = '30s'";

/// A connection of the writer's own, with what it learned over it.
#[derive(Debug, Default)]
pub(super) struct Session {
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    connection: PgConnection,
    ids: HashMap<Arc<str>, i32>,
    days: BTreeSet<NaiveDate>,
    since: Instant,
}

impl Session {
    /// Writes a batch in one transaction. Returns false when it turns out to be there already, from an attempt whose
    /// answer was lost.
    ///
    /// After an error the connection is given up, and the next call opens another.
    pub(super) async fn write(
        &mut self,
        options: &PgConnectOptions,
        batch: &[Sample],
        id: BatchId,
    ) -> Result<bool, sqlx::Error> {
        // Taken out, so that an error or a cancelled call leaves no connection in the middle of something.
        let open = self.open.take();
        let work = async {
            let mut open = match open {
                Some(open) => open,
                None => Open::connect(options).await?,
            };
            let written = open.write(batch, id).await?;
            Ok((open, written))
        };
        match tokio::time::timeout(BATCH_TIMEOUT, work).await {
            Ok(Ok((open, written))) => {
                self.open = Some(open);
                Ok(written)
            }
            Ok(Err(error)) => Err(error),
            Err(_) => Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())),
        }
    }

    /// Says goodbye to the server.
    pub(super) async fn close(self) {
        if let Some(open) = self.open
            && let Err(error) = bounded(GOODBYE, Box::pin(open.connection.close())).await
        {
            tracing::debug!(%error, "cannot close the telemetry connection");
        }
    }
}

impl Open {
    async fn connect(options: &PgConnectOptions) -> Result<Self, sqlx::Error> {
        let mut connection = PgConnection::connect_with(options).await?;
        sqlx::raw_sql(SET_UP).execute(&mut connection).await?;
        Ok(Self { connection, ids: HashMap::new(), days: BTreeSet::new(), since: Instant::now() })
    }

    async fn write(&mut self, batch: &[Sample], id: BatchId) -> Result<bool, sqlx::Error> {
        if self.since.elapsed() >= CACHE_AGE {
            self.ids.clear();
            self.days.clear();
            self.since = Instant::now();
        }
        self.make_partitions(batch).await?;
        self.learn_ids(batch).await?;
        let rows: Vec<(i32, &Sample)> =
            batch.iter().filter_map(|sample| Some((*self.ids.get(&sample.backend)?, sample))).collect();

        let mut transaction = self.connection.begin().await?;
        // An earlier attempt that is still committing holds the lock of this row, so this waits for its outcome.
        let fresh: Option<i64> = sqlx::query_scalar(
            "INSERT INTO ingest_mark (writer, batch, rows, updated_at) VALUES ($1, $2, $3, now())
             ON CONFLICT (writer) DO UPDATE
             SET batch = excluded.batch, rows = ingest_mark.rows + excluded.rows, updated_at = excluded.updated_at
             WHERE ingest_mark.batch < excluded.batch
             RETURNING batch",
        )
        .bind(id.writer)
        .bind(id.number)
        .bind(count(rows.len()))
        .fetch_optional(&mut *transaction)
        .await?;
        if fresh.is_none() {
            transaction.rollback().await?;
            return Ok(false);
        }
        let mut copy = transaction.copy_in_raw(COPY_SAMPLES).await?;
        for chunk in encode(&rows).chunks(COPY_CHUNK) {
            copy.send(chunk).await?;
        }
        copy.finish().await?;
        let minutes = minutes(&rows);
        // In the order of time, so that two writers cannot wait for each other.
        sqlx::query(
            "INSERT INTO dirty_minute (minute, rows)
             SELECT * FROM unnest($1::timestamptz[], $2::bigint[]) AS m (minute, rows) ORDER BY minute
             ON CONFLICT (minute) DO UPDATE SET rows = dirty_minute.rows + excluded.rows",
        )
        .bind(minutes.keys().copied().collect::<Vec<_>>())
        .bind(minutes.values().copied().collect::<Vec<_>>())
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(true)
    }

    async fn make_partitions(&mut self, batch: &[Sample]) -> Result<(), sqlx::Error> {
        // Neighbours are of the same day, nearly always.
        let mut days: Vec<NaiveDate> = batch.iter().map(|sample| sample.at.date_naive()).collect();
        days.dedup();
        for day in days {
            if !self.days.contains(&day) {
                sqlx::query("SELECT create_day_partition('backend_sample', $1)")
                    .bind(day)
                    .execute(&mut self.connection)
                    .await?;
                self.days.insert(day);
            }
        }
        Ok(())
    }

    /// Asks for the ids of backends not known yet, giving new ones to those that the database does not know either.
    async fn learn_ids(&mut self, batch: &[Sample]) -> Result<(), sqlx::Error> {
        let unknown: BTreeMap<&str, &Arc<str>> = batch
            .iter()
            .filter(|sample| !self.ids.contains_key(&sample.backend))
            .map(|sample| (sample.backend.as_ref(), &sample.backend))
            .collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let addresses: Vec<&str> = unknown.keys().copied().collect();
        // Only the missing ones, as a conflict would use up a number each time.
        sqlx::query(
            "INSERT INTO backend (address)
             SELECT address FROM unnest($1::text[]) AS u (address)
             WHERE NOT EXISTS (SELECT FROM backend b WHERE b.address = u.address)
             ON CONFLICT (address) DO NOTHING",
        )
        .bind(&addresses)
        .execute(&mut self.connection)
        .await?;
        let known: Vec<(i32, String)> =
            sqlx::query_as("SELECT id, address FROM backend WHERE address = ANY($1)")
                .bind(&addresses)
                .fetch_all(&mut self.connection)
                .await?;
        for (id, address) in known {
            if let Some(backend) = unknown.get(address.as_str()) {
                self.ids.insert(Arc::clone(backend), id);
            }
        }
        Ok(())
    }
}

fn minutes(rows: &[(i32, &Sample)]) -> BTreeMap<DateTime<Utc>, i64> {
    let mut counts = BTreeMap::new();
    for (_, sample) in rows {
        *counts.entry(sample.at.timestamp().div_euclid(60)).or_insert(0) += 1;
    }
    let time = |(minute, rows): (i64, i64)| Some((DateTime::from_timestamp(minute * 60, 0)?, rows));
    counts.into_iter().filter_map(time).collect()
}

fn count(rows: usize) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}
