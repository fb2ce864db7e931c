//! Ten minutes at the writer's full rate, with `CLAIRVOY_LONG=1`.

use std::time::Duration;

use clairvoy::store::{SpoolSettings, TelemetryWriter, WriterSettings};
use tokio::time::Instant;

use crate::sender::numbered;
use crate::support::{SharedServer, eventually};

const LENGTH: Duration = Duration::from_secs(600);
/// Memory and speed are compared from here on.
const WARM: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_minutes_at_full_rate_grow_neither_memory_nor_lag() {
    if std::env::var_os("CLAIRVOY_LONG").is_none_or(|value| value != "1") {
        eprintln!("skipped: takes ten minutes; set CLAIRVOY_LONG=1");
        return;
    }
    let server = SharedServer::get().await;
    let store = server.store().await;
    let spool = tempfile::tempdir().unwrap();
    let settings = WriterSettings {
        spool: Some(SpoolSettings { dir: spool.path().to_owned(), max_bytes: 1 << 30 }),
        ..WriterSettings::default()
    };
    // Just below where the spool begins to help, so that the database is what limits the rate.
    let full = settings.queue_rows / 2 - 10_000;
    let writer = TelemetryWriter::spawn(&store, settings);
    let counters = writer.counters();
    let begun = Instant::now();
    let (mut sent, mut warm, mut peak, mut emptied) = (0_u64, None, 0, Instant::now());
    while begun.elapsed() < LENGTH {
        if writer.queued() < full {
            writer.record((sent..sent + 5_000).map(|number| numbered(number % 36_000_000)));
            sent += 5_000;
        } else {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        if begun.elapsed() >= WARM {
            let memory = resident_kib();
            warm.get_or_insert((memory, sent, Instant::now()));
            peak = peak.max(memory);
        }
        // Ten minutes of this would fill the disk.
        if emptied.elapsed() > Duration::from_secs(20) {
            sqlx::query("TRUNCATE backend_sample").execute(store.pool()).await.unwrap();
            emptied = Instant::now();
        }
    }
    let (memory, sent_warm, since) = warm.unwrap();
    let rate = (sent - sent_warm) as f64 / since.elapsed().as_secs_f64();
    let last = Instant::now();
    eventually("the queue is written", || async { counters.rows_written() == sent }).await;
    let lag = last.elapsed();
    println!(
        "{sent} rows, {rate:.0} a second; memory {memory} KiB after a minute, at most {peak} KiB; \
         the last row was written {lag:?} after it was recorded"
    );
    assert_eq!((counters.rows_dropped(), counters.failures()), (0, 0));
    assert!(peak < memory + memory / 4 + 8_192, "memory grew from {memory} to {peak} KiB");
    assert!(lag < Duration::from_secs(10), "{lag:?}");
    writer.shutdown(Duration::from_secs(10)).await;
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}
