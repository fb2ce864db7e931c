use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use chrono::{DateTime, TimeDelta, Utc};
use clairvoy::store::{Metric, Retention, Subject};

use crate::Args;
use crate::figures::Spread;
use crate::server::Server;

/// Charts of each kind that are read.
const READS: u32 = 40;
const POOLS: u32 = 10;

pub(crate) struct Charted {
    pub(crate) rows: f64,
    /// What was read, and the milliseconds that it took.
    pub(crate) charts: Vec<(String, usize, Spread)>,
    pub(crate) hour_ms: f64,
    /// Bytes of a row with its part of the indexes: of backends by minute and by hour, and of groups together, by backend.
    pub(crate) minute_bytes: f64,
    pub(crate) hour_bytes: f64,
    pub(crate) group_minute_bytes: f64,
    pub(crate) group_hour_bytes: f64,
}

pub(crate) async fn run(args: &Args, server: &Server) -> Result<Charted> {
    let pool = server.store.pool();
    // Only to fill it sooner; nothing that is measured writes.
    for statement in [
        "ALTER SYSTEM SET fsync = off",
        "ALTER SYSTEM SET max_wal_size = '4GB'",
        "ALTER SYSTEM SET synchronous_commit = off",
        "SELECT pg_reload_conf()",
    ] {
        sqlx::query(statement).execute(pool).await?;
    }
    let end = DateTime::from_timestamp(Utc::now().timestamp() / 86_400 * 86_400, 0).context("a day")?;
    let begin = end - TimeDelta::days(i64::from(args.days));
    sqlx::query(
        "INSERT INTO backend (address, pool, model)
         SELECT format('10.0.%s.%s:8000', n / 250, n % 250), format('pool-%s', n % $2), 'large'
         FROM generate_series(0, $1 - 1) AS n",
    )
    .bind(i32::try_from(args.backends)?)
    .bind(i32::try_from(POOLS)?)
    .execute(pool)
    .await?;
    eprintln!("charts, filling {} days of {} backends", args.days, args.backends);
    let begun = Instant::now();
    let days: Vec<_> = (0..args.days).map(|day| begin + TimeDelta::days(i64::from(day))).collect();
    let (first, second) = days.split_at(days.len() / 2);
    tokio::try_join!(fill(server, first), fill(server, second))?;
    eprintln!("charts, filled in {:.0} s; rolling up hours", begun.elapsed().as_secs_f64());
    let begun = Instant::now();
    let hours = server.store.roll_up_hours(Utc::now(), u32::MAX).await?;
    ensure!(hours == args.days * 24, "{hours} hours were rolled up");
    let hour_ms = begun.elapsed().as_secs_f64() * 1e3 / f64::from(hours);
    eprintln!("charts, rolled up in {:.0} s", begun.elapsed().as_secs_f64());
    server.execute("VACUUM (ANALYZE) backend_hour, group_minute, group_hour, backend, fleet_group").await?;
    server.execute("CHECKPOINT").await?;

    let mut charts = Vec::new();
    let week = (begin, end);
    let day = (end - TimeDelta::days(1), end);
    for name in ["backend", "pool", "model"] {
        let subject = |n: u32| match name {
            "backend" => Subject::Backend(format!("10.0.{}.{}:8000", n / 250, n % 250)),
            "pool" => Subject::Pool(format!("pool-{}", n % POOLS)),
            _ => Subject::Model("large".into()),
        };
        for (span, window) in [(format!("{} days", args.days), week), ("1 day".to_owned(), day)] {
            for (what, metric) in [("queue depth", Metric::QueueDepth), ("TTFT p95", Metric::TtftP95Seconds)]
            {
                let mut taken = Vec::new();
                let mut points = 0;
                for n in 0..READS {
                    // Another backend each time, so that little of it is in memory already.
                    let subject = subject(n * 37 % args.backends);
                    let begun = Instant::now();
                    let history = server
                        .store
                        .history(&subject, metric, window, &Retention::default(), Utc::now())
                        .await?;
                    taken.push(begun.elapsed().as_secs_f64() * 1e3);
                    points = history.context("nothing known")?.points.len();
                }
                ensure!(points > 0, "an empty chart");
                charts.push((format!("{span} of a {name}, {what}"), points, Spread::of(taken)));
            }
        }
    }
    let per_row = |(bytes, rows): (f64, f64)| bytes / f64::max(rows, 1.0);
    let minutes = server.size("backend_minute").await?;
    Ok(Charted {
        rows: minutes.1,
        charts,
        hour_ms,
        minute_bytes: per_row(minutes),
        hour_bytes: per_row(server.size("backend_hour").await?),
        group_minute_bytes: per_row(server.size("group_minute").await?),
        group_hour_bytes: per_row(server.size("group_hour").await?),
    })
}

/// Fills days with the minutes of all backends, in the order in which they would have come.
async fn fill(server: &Server, days: &[DateTime<Utc>]) -> Result<()> {
    for day in days {
        // Committed by itself: the other half waits for it.
        sqlx::query("SELECT create_day_partition('backend_minute', ($1 AT TIME ZONE 'UTC')::date)")
            .bind(day)
            .execute(server.store.pool())
            .await?;
        sqlx::query(
            "INSERT INTO backend_minute (minute, backend_id, samples, covered_seconds, queue_depth_mean,
                 queue_depth_max, running_mean, running_max, kv_used_mean, kv_used_max, gpu_utilisation_mean,
                 gpu_utilisation_max, ttft_seconds, ttft_p50_seconds, ttft_p50_max_seconds, ttft_p95_seconds,
                 ttft_p95_max_seconds, inter_token_seconds, inter_token_p95_seconds, inter_token_p95_max_seconds,
                 queue_wait_seconds, ttft_count, arrived, completed, prompt_tokens, output_tokens, iterations,
                 iteration_tokens, preempted)
             SELECT minute, b.id, 60, 60, x * 20, x * 40, x * 60, x * 90, x, x, 1 - x, 1, 0.2 + x, 0.15 + x, 0.3 + x,
                 0.6 + x, 1 + x, 0.02 + x, 0.05 + x, 0.1 + x, x / 10, 300, 300, 299, 150000, 72000, 2400, 120000, 0
             FROM generate_series($1, $1 + interval '1439 minutes', '1 minute') AS minute
             CROSS JOIN (SELECT id FROM backend ORDER BY id) AS b
             CROSS JOIN LATERAL (SELECT (b.id * 7919 + extract(epoch FROM minute)::bigint / 60 * 104729) % 1009 / 1009.0::float8) AS v (x)",
        )
        .bind(day)
        .execute(server.store.pool())
        .await?;
    }
    Ok(())
}
