use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use chrono::{DateTime, TimeDelta, Utc};
use clairvoy::store::{SpoolSettings, TelemetryWriter, WriterSettings};
use clairvoy::telemetry::Sample;

use crate::Args;
use crate::figures::{cpu_seconds, resident_mib};
use crate::recorded;
use crate::server::Server;

/// What one run of the writer took.
pub(crate) struct Ours {
    pub(crate) rows_per_second: f64,
    pub(crate) cpu_us_per_row: f64,
    /// Memory beyond that before the run, at most.
    pub(crate) memory_mib: f64,
}

pub(crate) struct Ingested {
    pub(crate) ours: Vec<Ours>,
    /// Rows per second of psql.
    pub(crate) psql: Vec<f64>,
    pub(crate) bytes_per_row: f64,
    /// Of recorded inputs, a second of 1,000 backends.
    pub(crate) page_bytes: f64,
    /// To roll up a minute of all backends.
    pub(crate) minute_ms: f64,
    pub(crate) queue_rows: usize,
    /// What the queue takes when it is full, in MiB.
    pub(crate) queue_mib: f64,
}

const COLUMNS: &str = "at, backend_id, interval_seconds, queue_depth, running, kv_used, gpu_utilisation, ttft_seconds, \
    ttft_count, inter_token_seconds, arrived, completed, prompt_tokens, output_tokens, simulated, kv_used_max, \
    ttft_p50_seconds, ttft_p95_seconds, inter_token_p95_seconds, queue_wait_seconds, iterations, iteration_tokens, preempted";

pub(crate) async fn run(args: &Args, server: &Server) -> Result<Ingested> {
    let backends: Vec<Arc<str>> =
        (0..args.backends).map(|n| format!("10.0.{}.{}:8000", n / 250, n % 250).into()).collect();
    // The last hours, so that all of it is within retention; a whole minute to begin with.
    let seconds = i64::try_from(args.rows / u64::from(args.backends))?;
    let begin = Utc::now() - TimeDelta::seconds(seconds + 3_600);
    let begin = DateTime::from_timestamp(begin.timestamp() / 60 * 60, 0).unwrap_or(begin);
    let settings = WriterSettings {
        spool: Some(SpoolSettings { dir: server.dir().join("spool"), max_bytes: 1 << 30 }),
        ..WriterSettings::default()
    };
    let file = server.dir().join("rows.copy");
    let mut measured = Ingested {
        ours: Vec::new(),
        psql: Vec::new(),
        bytes_per_row: 0.0,
        page_bytes: 0.0,
        minute_ms: 0.0,
        queue_rows: settings.queue_rows,
        queue_mib: (settings.queue_rows * size_of::<Sample>()) as f64 / f64::from(1 << 20),
    };
    // Partitions and ids are there before either is measured.
    write(server, &settings, &backends, begin, u64::from(args.backends)).await?;
    for number in 1..=args.runs {
        eprintln!("ingest, run {number} of {}", args.runs);
        empty(server).await?;
        measured.ours.push(write(server, &settings, &backends, begin, args.rows).await?);
        ensure!(count(server).await? == args.rows, "not all rows arrived");
        if number == 1 {
            server.psql(&format!(
                "\\copy (SELECT {COLUMNS} FROM backend_sample) TO '{}' (FORMAT binary)",
                file.display()
            ))?;
        }
        empty(server).await?;
        let begun = Instant::now();
        server
            .psql(&format!("\\copy backend_sample ({COLUMNS}) FROM '{}' (FORMAT binary)", file.display()))?;
        measured.psql.push(args.rows as f64 / begun.elapsed().as_secs_f64());
        ensure!(count(server).await? == args.rows, "psql left rows out");
    }
    empty(server).await?;
    write(server, &settings, &backends, begin, args.rows).await?;
    let (bytes, rows) = server.size("backend_sample").await?;
    measured.bytes_per_row = bytes / rows;
    measured.page_bytes = recorded::page_bytes(server, begin).await?;
    let begun = Instant::now();
    let minutes = server.store.roll_up(Utc::now()).await?;
    measured.minute_ms = begun.elapsed().as_secs_f64() * 1e3 / minutes.max(1) as f64;
    Ok(measured)
}

async fn write(
    server: &Server,
    settings: &WriterSettings,
    backends: &[Arc<str>],
    begin: DateTime<Utc>,
    rows: u64,
) -> Result<Ours> {
    // As many as may wait without the spool's help.
    let full = settings.queue_rows / 2 - settings.batch_rows;
    let before = resident_mib();
    let cpu = cpu_seconds();
    let mut peak = before;
    let writer = TelemetryWriter::spawn(&server.store, settings.clone());
    let counters = writer.counters();
    let begun = Instant::now();
    let mut sent = 0;
    while sent < rows {
        if writer.queued() >= full {
            tokio::time::sleep(Duration::from_millis(1)).await;
            continue;
        }
        let chunk = sent..rows.min(sent + 5_000);
        sent = chunk.end;
        writer.record(chunk.map(|number| sample(backends, begin, number)));
        peak = peak.max(resident_mib());
    }
    while counters.rows_written() < rows {
        ensure!(counters.failures() == 0, "{:?}", counters.last_error());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let seconds = begun.elapsed().as_secs_f64();
    let cpu = cpu_seconds() - cpu;
    ensure!(counters.rows_spooled() == 0, "the spool had to help");
    writer.shutdown(Duration::from_secs(5)).await;
    Ok(Ours {
        rows_per_second: rows as f64 / seconds,
        cpu_us_per_row: cpu * 1e6 / rows as f64,
        memory_mib: peak - before,
    })
}

async fn empty(server: &Server) -> Result<()> {
    server.execute("TRUNCATE backend_sample; TRUNCATE dirty_minute").await?;
    server.execute("CHECKPOINT").await
}

async fn count(server: &Server) -> Result<u64> {
    let rows: i64 =
        sqlx::query_scalar("SELECT count(*) FROM backend_sample").fetch_one(server.store.pool()).await?;
    Ok(rows.unsigned_abs())
}

/// One backend after the other in each second, with every field.
fn sample(backends: &[Arc<str>], begin: DateTime<Utc>, number: u64) -> Sample {
    let count = backends.len() as u64;
    let (second, backend) = (number / count, number % count);
    let wave = (number % 1_009) as f64 / 1_009.0;
    let after = TimeDelta::microseconds((second * 1_000_000 + backend * 1_000_000 / count) as i64);
    Sample {
        at: begin + after,
        backend: Arc::clone(&backends[backend as usize]),
        interval_seconds: 1.0 + wave / 100.0,
        queue_depth: Some((wave * 20.0).floor()),
        running: Some((wave * 60.0).floor()),
        kv_used: Some(wave),
        kv_used_max: Some(wave),
        gpu_utilisation: Some(1.0 - wave),
        ttft_seconds: Some(0.2 + wave),
        ttft_count: 5.0,
        ttft_p50_seconds: Some(0.15 + wave),
        ttft_p95_seconds: Some(0.6 + wave),
        inter_token_seconds: Some(0.02 + wave / 50.0),
        inter_token_p95_seconds: Some(0.05 + wave / 50.0),
        queue_wait_seconds: Some(wave / 10.0),
        iterations: 40.0,
        iteration_tokens: 2_000.0 + wave,
        preempted: 0.0,
        arrived: 5.0,
        completed: 5.0,
        prompt_tokens: 2_500.0,
        output_tokens: 1_200.0,
        simulated: false,
    }
}
