//! Telemetry by minute and by hour, of backends, pools and models; each computed anew from all it is made of whenever a
//! part of that came late.

mod hour;
mod measures;

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::Store;
use super::connect::bounded;
use super::error::StoreError;

pub(super) use self::measures::Merge;

/// How long one roll-up may take, on the server and until its answer is here.
const STATEMENT: &str = "SET LOCAL statement_timeout = '300s'";
const PATIENCE: Duration = Duration::from_secs(330);

/// What one backend did within one minute.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, sqlx::FromRow)]
pub struct MinuteRow {
    /// Start of the minute.
    pub minute: DateTime<Utc>,
    /// `host:port`.
    pub address: String,
    /// Number of samples.
    pub samples: i32,
    /// Time that the samples cover, in seconds: divide counts by this to get rates.
    pub covered_seconds: f64,
    /// Mean of the queue depth.
    pub queue_depth_mean: Option<f64>,
    /// Highest queue depth.
    pub queue_depth_max: Option<f64>,
    /// Mean of the running requests.
    pub running_mean: Option<f64>,
    /// Most running requests.
    pub running_max: Option<f64>,
    /// Mean of the used part of the KV cache, 0 to 1.
    pub kv_used_mean: Option<f64>,
    /// Largest used part of the KV cache, of a data-parallel engine where that is known, 0 to 1.
    pub kv_used_max: Option<f64>,
    /// Mean GPU utilisation, 0 to 1.
    pub gpu_utilisation_mean: Option<f64>,
    /// Highest GPU utilisation, 0 to 1.
    pub gpu_utilisation_max: Option<f64>,
    /// Mean time to first token over `ttft_count` requests, in seconds.
    pub ttft_seconds: Option<f64>,
    /// Requests that got their first token.
    pub ttft_count: f64,
    /// Mean of the medians of the time to first token, weighted by requests, in seconds.
    pub ttft_p50_seconds: Option<f64>,
    /// The largest of these medians, in seconds.
    pub ttft_p50_max_seconds: Option<f64>,
    /// Mean of the 95th percentiles of the time to first token, weighted by requests, in seconds.
    pub ttft_p95_seconds: Option<f64>,
    /// The largest of these 95th percentiles, in seconds.
    pub ttft_p95_max_seconds: Option<f64>,
    /// Mean time between output tokens, weighted by tokens, in seconds.
    pub inter_token_seconds: Option<f64>,
    /// Mean of the 95th percentiles of the time between output tokens, weighted by tokens, in seconds.
    pub inter_token_p95_seconds: Option<f64>,
    /// The largest of these 95th percentiles, in seconds.
    pub inter_token_p95_max_seconds: Option<f64>,
    /// Mean wait for a place in the batch, weighted by the requests that got their first token, in seconds.
    pub queue_wait_seconds: Option<f64>,
    /// Steps of the engine.
    pub iterations: f64,
    /// Tokens that these steps processed.
    pub iteration_tokens: f64,
    /// Requests put back into the queue.
    pub preempted: f64,
    /// Requests that arrived.
    pub arrived: f64,
    /// Requests that ended.
    pub completed: f64,
    /// Prompt tokens processed.
    pub prompt_tokens: f64,
    /// Output tokens produced.
    pub output_tokens: f64,
}

impl Store {
    /// Computes the minutes that are over at `now` and got samples since they were last computed, each from all of
    /// its samples, so late rows count and a second run changes nothing. Returns how many minutes it computed.
    ///
    /// Safe to run in several processes: a minute is taken by one of them.
    ///
    /// # Errors
    /// When the database does not answer. Minutes done by then stay done.
    pub async fn roll_up(&self, now: DateTime<Utc>) -> Result<u64, StoreError> {
        self.roll_up_minutes(now, u64::MAX).await
    }

    /// The same for the oldest `limit` of these minutes.
    pub(super) async fn roll_up_minutes(&self, now: DateTime<Utc>, limit: u64) -> Result<u64, StoreError> {
        let mut done = 0;
        // One transaction each: a batch with samples of the same minute waits for it.
        while done < limit {
            let failed = StoreError::query("roll up samples");
            if !bounded(PATIENCE, Box::pin(self.roll_up_one(now))).await.map_err(failed)? {
                break;
            }
            done += 1;
        }
        Ok(done)
    }

    async fn roll_up_one(&self, now: DateTime<Utc>) -> Result<bool, sqlx::Error> {
        let mut transaction = self.pool().begin().await?;
        sqlx::query(STATEMENT).execute(&mut *transaction).await?;
        let claimed: Option<DateTime<Utc>> = sqlx::query_scalar(
            "WITH due AS (
                 SELECT minute FROM dirty_minute WHERE minute <= $1 ORDER BY minute LIMIT 1 FOR UPDATE SKIP LOCKED
             )
             DELETE FROM dirty_minute d USING due WHERE d.minute = due.minute RETURNING d.minute",
        )
        .bind(now - TimeDelta::minutes(1))
        .fetch_optional(&mut *transaction)
        .await?;
        let Some(minute) = claimed else {
            return Ok(false);
        };
        // Statements after the claim see every batch that had marked the minute.
        sqlx::query("SELECT create_day_partition('backend_minute', ($1 AT TIME ZONE 'UTC')::date)")
            .bind(minute)
            .execute(&mut *transaction)
            .await?;
        sqlx::query(
            "DELETE FROM backend_minute WHERE minute = $1
             AND EXISTS (SELECT FROM backend_sample WHERE at >= $1 AND at < $1 + interval '1 minute')",
        )
        .bind(minute)
        .execute(&mut *transaction)
        .await?;
        let backends: Vec<i32> = sqlx::query_scalar(
            "INSERT INTO backend_minute (minute, backend_id, samples, covered_seconds, queue_depth_mean,
                 queue_depth_max, running_mean, running_max, kv_used_mean, kv_used_max, gpu_utilisation_mean,
                 gpu_utilisation_max, ttft_seconds, ttft_p50_seconds, ttft_p50_max_seconds, ttft_p95_seconds,
                 ttft_p95_max_seconds, inter_token_seconds, inter_token_p95_seconds, inter_token_p95_max_seconds,
                 queue_wait_seconds, ttft_count, arrived, completed, prompt_tokens, output_tokens, iterations,
                 iteration_tokens, preempted)
             SELECT $1, backend_id, count(*), sum(interval_seconds::float8), avg(queue_depth), max(queue_depth),
                 avg(running), max(running), avg(kv_used), max(coalesce(kv_used_max, kv_used)),
                 avg(gpu_utilisation), max(gpu_utilisation),
                 sum(ttft_seconds * ttft_count)
                     / nullif(sum(ttft_count) FILTER (WHERE ttft_seconds IS NOT NULL), 0),
                 sum(ttft_p50_seconds * ttft_count)
                     / nullif(sum(ttft_count) FILTER (WHERE ttft_p50_seconds IS NOT NULL), 0),
                 max(ttft_p50_seconds),
                 sum(ttft_p95_seconds * ttft_count)
                     / nullif(sum(ttft_count) FILTER (WHERE ttft_p95_seconds IS NOT NULL), 0),
                 max(ttft_p95_seconds),
                 coalesce(
                     sum(inter_token_seconds * output_tokens)
                         / nullif(sum(output_tokens) FILTER (WHERE inter_token_seconds IS NOT NULL), 0),
                     avg(inter_token_seconds)),
                 coalesce(
                     sum(inter_token_p95_seconds * output_tokens)
                         / nullif(sum(output_tokens) FILTER (WHERE inter_token_p95_seconds IS NOT NULL), 0),
                     avg(inter_token_p95_seconds)),
                 max(inter_token_p95_seconds),
                 coalesce(
                     sum(queue_wait_seconds * ttft_count)
                         / nullif(sum(ttft_count) FILTER (WHERE queue_wait_seconds IS NOT NULL), 0),
                     avg(queue_wait_seconds)),
                 sum(ttft_count), sum(arrived), sum(completed), sum(prompt_tokens), sum(output_tokens),
                 sum(iterations::float8), sum(iteration_tokens::float8), sum(preempted::float8)
             FROM backend_sample WHERE at >= $1 AND at < $1 + interval '1 minute'
             GROUP BY backend_id
             RETURNING backend_id",
        )
        .bind(minute)
        .fetch_all(&mut *transaction)
        .await?;
        sqlx::query(
            "UPDATE backend SET last_seen_at = $2 WHERE id = ANY($1) AND last_seen_at < $2 - interval '1 hour'",
        )
        .bind(&backends)
        .bind(minute)
        .execute(&mut *transaction)
        .await?;
        if !backends.is_empty() {
            sqlx::query("DELETE FROM group_minute WHERE minute = $1")
                .bind(minute)
                .execute(&mut *transaction)
                .await?;
            hour::make_groups(&mut transaction, &[minute]).await?;
        }
        transaction.commit().await?;
        Ok(true)
    }

    /// Returns the first `limit` minutes in `from..to` of the backends of one model or of all, oldest first.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn minutes(
        &self,
        model: Option<&str>,
        from: DateTime<Utc>,
        to: DateTime<Utc>,
        limit: u32,
    ) -> Result<Vec<MinuteRow>, StoreError> {
        sqlx::query_as(
            "SELECT m.minute, b.address, m.samples, m.covered_seconds, m.queue_depth_mean, m.queue_depth_max,
                    m.running_mean, m.running_max, m.kv_used_mean, m.kv_used_max, m.gpu_utilisation_mean,
                    m.gpu_utilisation_max, m.ttft_seconds, m.ttft_count, m.ttft_p50_seconds, m.ttft_p50_max_seconds,
                    m.ttft_p95_seconds, m.ttft_p95_max_seconds, m.inter_token_seconds, m.inter_token_p95_seconds,
                    m.inter_token_p95_max_seconds, m.queue_wait_seconds, m.iterations, m.iteration_tokens,
                    m.preempted, m.arrived, m.completed, m.prompt_tokens, m.output_tokens
             FROM backend_minute m JOIN backend b ON b.id = m.backend_id
             WHERE m.minute >= $2 AND m.minute < $3 AND ($1::text IS NULL OR b.model = $1)
             ORDER BY m.minute, b.address LIMIT $4",
        )
        .bind(model)
        .bind(from)
        .bind(to)
        .bind(i64::from(limit))
        .fetch_all(self.pool())
        .await
        .map_err(StoreError::query("read minutes"))
    }
}
