use std::sync::Arc;

use chrono::{DateTime, Utc};
use sqlx::Row as _;
use sqlx::postgres::PgRow;

use crate::telemetry::Sample;

use super::Store;
use super::copy::CopyRows;
use super::error::StoreError;

/// The statement that [`encode`] speaks to.
pub(super) const COPY_SAMPLES: &str = "COPY backend_sample (at, backend_id, interval_seconds, queue_depth, running, \
    kv_used, gpu_utilisation, ttft_seconds, ttft_count, inter_token_seconds, arrived, completed, prompt_tokens, \
    output_tokens, simulated, kv_used_max, ttft_p50_seconds, ttft_p95_seconds, inter_token_p95_seconds, \
    queue_wait_seconds, iterations, iteration_tokens, preempted) FROM STDIN (FORMAT binary)";
const FIELDS: i16 = 23;

/// Returns the samples, each with the number of its backend, as one COPY stream.
pub(super) fn encode(samples: &[(i32, &Sample)]) -> Vec<u8> {
    let mut rows = CopyRows::new(FIELDS, samples.len());
    for (backend_id, sample) in samples {
        rows.row()
            .timestamp(sample.at)
            .integer(*backend_id)
            .real(sample.interval_seconds)
            .real_or_null(sample.queue_depth)
            .real_or_null(sample.running)
            .real_or_null(sample.kv_used)
            .real_or_null(sample.gpu_utilisation)
            .real_or_null(sample.ttft_seconds)
            .double(sample.ttft_count)
            .real_or_null(sample.inter_token_seconds)
            .double(sample.arrived)
            .double(sample.completed)
            .double(sample.prompt_tokens)
            .double(sample.output_tokens)
            .boolean(sample.simulated)
            .real_or_null(sample.kv_used_max)
            .real_or_null(sample.ttft_p50_seconds)
            .real_or_null(sample.ttft_p95_seconds)
            .real_or_null(sample.inter_token_p95_seconds)
            .real_or_null(sample.queue_wait_seconds)
            .real(sample.iterations)
            .real(sample.iteration_tokens)
            .real(sample.preempted);
    }
    rows.finish()
}

#[derive(sqlx::FromRow)]
struct SampleRow {
    at: DateTime<Utc>,
    address: String,
    interval_seconds: f32,
    queue_depth: Option<f32>,
    running: Option<f32>,
    kv_used: Option<f32>,
    gpu_utilisation: Option<f32>,
    ttft_seconds: Option<f32>,
    ttft_count: f64,
    inter_token_seconds: Option<f32>,
    arrived: f64,
    completed: f64,
    prompt_tokens: f64,
    output_tokens: f64,
    simulated: bool,
    kv_used_max: Option<f32>,
    ttft_p50_seconds: Option<f32>,
    ttft_p95_seconds: Option<f32>,
    inter_token_p95_seconds: Option<f32>,
    queue_wait_seconds: Option<f32>,
    iterations: f32,
    iteration_tokens: f32,
    preempted: f32,
}

impl From<SampleRow> for Sample {
    fn from(row: SampleRow) -> Self {
        Self {
            at: row.at,
            backend: Arc::from(row.address),
            interval_seconds: row.interval_seconds.into(),
            queue_depth: row.queue_depth.map(Into::into),
            running: row.running.map(Into::into),
            kv_used: row.kv_used.map(Into::into),
            gpu_utilisation: row.gpu_utilisation.map(Into::into),
            ttft_seconds: row.ttft_seconds.map(Into::into),
            ttft_count: row.ttft_count,
            inter_token_seconds: row.inter_token_seconds.map(Into::into),
            arrived: row.arrived,
            completed: row.completed,
            prompt_tokens: row.prompt_tokens,
            output_tokens: row.output_tokens,
            simulated: row.simulated,
            kv_used_max: row.kv_used_max.map(Into::into),
            ttft_p50_seconds: row.ttft_p50_seconds.map(Into::into),
            ttft_p95_seconds: row.ttft_p95_seconds.map(Into::into),
            inter_token_p95_seconds: row.inter_token_p95_seconds.map(Into::into),
            queue_wait_seconds: row.queue_wait_seconds.map(Into::into),
            iterations: row.iterations.into(),
            iteration_tokens: row.iteration_tokens.into(),
            preempted: row.preempted.into(),
        }
    }
}

/// A column as a number; none where it is null, or not in this table.
fn number(row: &PgRow, column: &str) -> Option<f64> {
    let short = || row.try_get::<Option<f32>, _>(column).ok().flatten().map(f64::from);
    short().or_else(|| row.try_get::<Option<f64>, _>(column).ok().flatten())
}

fn from_any(row: &PgRow) -> Result<Sample, sqlx::Error> {
    let gauge = |column: &str| number(row, column);
    let count = |column: &str| number(row, column).unwrap_or_default();
    Ok(Sample {
        at: row.try_get("at")?,
        backend: Arc::from(row.try_get::<String, _>("address")?),
        interval_seconds: count("interval_seconds"),
        queue_depth: gauge("queue_depth"),
        running: gauge("running"),
        kv_used: gauge("kv_used"),
        kv_used_max: gauge("kv_used_max"),
        gpu_utilisation: gauge("gpu_utilisation"),
        ttft_seconds: gauge("ttft_seconds"),
        ttft_count: count("ttft_count"),
        ttft_p50_seconds: gauge("ttft_p50_seconds"),
        ttft_p95_seconds: gauge("ttft_p95_seconds"),
        inter_token_seconds: gauge("inter_token_seconds"),
        inter_token_p95_seconds: gauge("inter_token_p95_seconds"),
        queue_wait_seconds: gauge("queue_wait_seconds"),
        iterations: count("iterations"),
        iteration_tokens: count("iteration_tokens"),
        preempted: count("preempted"),
        arrived: count("arrived"),
        completed: count("completed"),
        prompt_tokens: count("prompt_tokens"),
        output_tokens: count("output_tokens"),
        simulated: row.try_get("simulated")?,
    })
}

impl Store {
    /// Returns all samples with `from <= at < to`, oldest first, of one model's backends or of all, with every column that
    /// the table has; those of a backend with the same time in the order in which they were written.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn samples_whole(
        &self,
        model: Option<&str>,
        from: DateTime<Utc>,
        to: DateTime<Utc>,
    ) -> Result<Vec<Sample>, StoreError> {
        let failed = StoreError::query("read samples");
        let rows = sqlx::query(
            "SELECT s.*, b.address FROM backend_sample s JOIN backend b ON b.id = s.backend_id
             WHERE s.at >= $2 AND s.at < $3 AND ($1::text IS NULL OR b.model = $1)
             ORDER BY s.at, b.address, s.ctid",
        )
        .bind(model)
        .bind(from)
        .bind(to)
        .fetch_all(self.pool())
        .await;
        rows.and_then(|rows| rows.iter().map(from_any).collect()).map_err(failed)
    }

    /// Returns the newest `limit` samples with `from <= at < to`, oldest first; of one model's backends, or of all.
    /// Gauges, means, and the counts of engine steps and preemptions come back with seven digits.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn samples(
        &self,
        model: Option<&str>,
        from: DateTime<Utc>,
        to: DateTime<Utc>,
        limit: u32,
    ) -> Result<Vec<Sample>, StoreError> {
        let rows: Vec<SampleRow> = sqlx::query_as(
            "SELECT s.at, b.address, s.interval_seconds, s.queue_depth, s.running, s.kv_used, s.gpu_utilisation,
                    s.ttft_seconds, s.ttft_count, s.inter_token_seconds, s.arrived, s.completed, s.prompt_tokens,
                    s.output_tokens, s.simulated, s.kv_used_max, s.ttft_p50_seconds, s.ttft_p95_seconds,
                    s.inter_token_p95_seconds, s.queue_wait_seconds, s.iterations, s.iteration_tokens, s.preempted
             FROM backend_sample s JOIN backend b ON b.id = s.backend_id
             WHERE s.at >= $2 AND s.at < $3 AND ($1::text IS NULL OR b.model = $1)
             ORDER BY s.at DESC, b.address DESC LIMIT $4",
        )
        .bind(model)
        .bind(from)
        .bind(to)
        .bind(i64::from(limit))
        .fetch_all(self.pool())
        .await
        .map_err(StoreError::query("read samples"))?;
        Ok(rows.into_iter().rev().map(Sample::from).collect())
    }
}
