//! What is lost when something is killed or full: what `docs/storage.md` says, and nothing is there twice.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use clairvoy::store::{SpoolSettings, Store, TelemetryWriter, WriterSettings};
use clairvoy::telemetry::Sample;
use rustix::process::Signal;

use crate::proxy::Proxy;
use crate::sender::{CHUNK, Sender, arrived, numbered};
use crate::support::{SharedServer, eventually, external, open_embedded, send_signal, state_dir};

fn settings(spool: &Path, max_bytes: u64) -> WriterSettings {
    WriterSettings {
        batch_rows: 2_000,
        batch_time: Duration::from_millis(50),
        spool: Some(SpoolSettings { dir: spool.to_owned(), max_bytes }),
        ..WriterSettings::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_clairvoy_loses_what_was_in_memory_only() {
    let server = SharedServer::get().await;
    let dir = tempfile::tempdir().unwrap();
    let name = server.database().await;
    let store = Store::open(external(server.url(&name))).await.unwrap();
    let mut sender = Sender::start(&server.url(&name), dir.path(), u64::MAX / 2);
    eventually("batches are written", || async { sender.told().written > 30_000 }).await;
    let told = sender.kill();
    eventually("the last session has ended", || async { no_copy(&store).await }).await;
    let (rows, numbers) = arrived(&store).await;
    assert_eq!(rows, numbers, "nothing twice");
    // What it recorded and wrote after it spoke last is not known here.
    // A database that is slow for a moment has some of it spooled.
    assert!(rows + told.spooled >= told.sent - told.in_memory, "{rows} rows, {told:?}");
    assert_eq!(told.dropped, 0);

    let mut second = Sender::start(&server.url(&name), dir.path(), 0);
    eventually("the second has nothing to do but the spool", || std::future::ready(second.has_ended())).await;
    let (after, numbers) = arrived(&store).await;
    assert_eq!(after, numbers, "nothing twice");
    assert!(after >= rows.max(told.sent - told.in_memory), "{after} rows, {rows} before, {told:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_spool_survives_a_kill_and_nothing_of_it_is_written_twice() {
    let server = SharedServer::get().await;
    let proxy = Proxy::start(&server.socket_dir()).await;
    let dir = tempfile::tempdir().unwrap();
    let url = proxy.url(&server.database().await);
    let store = Store::open(external(url.clone())).await.unwrap();
    let mut sender = Sender::start(&url, dir.path(), u64::MAX / 2);
    eventually("batches are written", || async { sender.told().written > 10_000 }).await;
    // A commit whose answer is lost goes to the spool, too, and must not come twice.
    proxy.lose_answers_to_commits(2);
    eventually("both are lost", || async { proxy.commits_left_to_lose() == 0 }).await;
    proxy.set_away(true);
    let spooled = sender.told().spooled;
    eventually("batches are spooled", || async { sender.told().spooled > spooled + 30_000 }).await;
    let told = sender.kill();
    let before = arrived_through(&server, &url).await;
    assert!(before.0 < told.sent);

    // The second is killed halfway through the spool; the third ends the work.
    proxy.set_away(false);
    let mut second = Sender::start(&url, dir.path(), 0);
    eventually("some of it is written", || async { second.told().written > 4_000 }).await;
    second.kill();
    let mut third = Sender::start(&url, dir.path(), 0);
    eventually("the spool is written out", || std::future::ready(third.has_ended())).await;
    let (rows, numbers) = arrived(&store).await;
    assert_eq!(rows, numbers, "nothing twice");
    assert!(rows >= told.sent - told.in_memory, "{rows} rows, {told:?}");
    assert!(rows <= told.sent + 2 * CHUNK, "{rows} rows, {told:?}");
    assert!(rows > before.0);
    let left = std::fs::read_dir(dir.path()).unwrap().flatten();
    assert_eq!(left.filter(|entry| entry.file_name() != "lock").count(), 0, "nothing is left on the disk");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgres_killed_in_the_middle_of_a_copy_loses_nothing() {
    let dir = state_dir();
    let store = open_embedded(&dir.path().join("state")).await;
    let spool = tempfile::tempdir().unwrap();
    let writer = TelemetryWriter::spawn(
        &store,
        WriterSettings { batch_rows: 20_000, ..settings(spool.path(), 1 << 30) },
    );
    let counters = writer.counters();
    let mut sent = 0;
    for kill in 1..=3_u64 {
        let copying = loop {
            if writer.queued() < 60_000 {
                writer.record((sent..sent + 20_000).map(numbered));
                sent += 20_000;
            }
            let pid: Result<Option<i32>, _> = sqlx::query_scalar(
                "SELECT pid FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'COPY backend_sample%' LIMIT 1",
            )
            .fetch_optional(store.pool())
            .await;
            if let Ok(Some(pid)) = pid {
                break pid;
            }
        };
        // The server takes this for a crash of its own, and starts again as a whole.
        send_signal(copying.unsigned_abs(), Signal::KILL);
        eventually("an attempt fails", || async { counters.failures() >= kill }).await;
        eventually("it goes on", || async {
            writer.queued() == 0 && counters.in_spool().0 == 0 && counters.last_error().is_none()
        })
        .await;
    }
    writer.shutdown(Duration::from_secs(10)).await;
    assert_eq!((counters.rows_written(), counters.rows_dropped()), (sent, 0));
    assert_eq!(arrived(&store).await, (sent, sent));
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_loses_the_oldest_and_counts_them() {
    let Some(disk) = SmallDisk::mount(6) else { return };
    let server = SharedServer::get().await;
    let proxy = Proxy::start(&server.socket_dir()).await;
    let store = Store::open(external(proxy.url(&server.database().await))).await.unwrap();
    proxy.set_away(true);
    let writer = TelemetryWriter::spawn(&store, settings(&disk.path.join("spool"), 32 << 20));
    let counters = writer.counters();
    let rows = 200_000;
    let mut sent = 0;
    while sent < rows {
        writer.record((sent..sent + 10_000).map(numbered));
        sent += 10_000;
        eventually("the queue is moved", || async { writer.queued() < 50_000 }).await;
    }
    // A batch between queue and spool is in neither.
    let all = || async { counters.in_spool().0 + counters.rows_dropped() == rows };
    eventually("every row is spooled or counted", all).await;
    let (in_spool, bytes) = counters.in_spool();
    assert!(bytes <= 6 << 20, "{bytes} bytes");
    assert!(in_spool >= 10_000, "{in_spool} rows are kept");
    assert!(counters.take_news().iter().any(|(_, said)| said.contains("the spool is full")));

    proxy.set_away(false);
    eventually("it is written out", || async { counters.in_spool().0 == 0 }).await;
    writer.shutdown(Duration::from_secs(10)).await;
    assert_eq!(counters.rows_written(), in_spool);
    assert_eq!(arrived(&store).await, (in_spool, in_spool));
    let newest: f64 = sqlx::query_scalar("SELECT max(prompt_tokens) FROM backend_sample")
        .fetch_one(store.pool())
        .await
        .unwrap();
    assert_eq!(newest, (rows - 1) as f64, "the newest are kept");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_written_at_the_end_waits_for_the_next_start() {
    let server = SharedServer::get().await;
    let proxy = Proxy::start(&server.socket_dir()).await;
    let store = Store::open(external(proxy.url(&server.database().await))).await.unwrap();
    let spool = tempfile::tempdir().unwrap();
    proxy.set_away(true);
    let writer = TelemetryWriter::spawn(
        &store,
        WriterSettings { batch_rows: 500, ..settings(spool.path(), 32 << 20) },
    );
    writer.record((0..5_000).map(numbered));
    writer.shutdown(Duration::from_millis(300)).await;
    assert_eq!((writer.counters().rows_dropped(), writer.queued()), (0, 0));
    assert_eq!(writer.counters().in_spool().0, 5_000);
    drop(writer);

    // Before the database is known, samples go to the spool as well.
    let writer = TelemetryWriter::start(settings(spool.path(), 32 << 20));
    writer.record((5_000..6_000).map(numbered));
    eventually("both are spooled", || async { writer.counters().in_spool().0 == 6_000 }).await;
    proxy.set_away(false);
    writer.attach(&store);
    eventually("all is written", || async { writer.counters().rows_written() == 6_000 }).await;
    writer.shutdown(Duration::from_secs(10)).await;
    assert_eq!(arrived(&store).await, (6_000, 6_000));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_segment_that_can_be_read_only_later_is_written_then() {
    let server = SharedServer::get().await;
    let store = server.store().await;
    let spool = tempfile::tempdir().unwrap();
    // One batch to a segment.
    let settings = settings(spool.path(), 16 * 300_000);
    let writer = TelemetryWriter::start(settings.clone());
    for batch in 0..4 {
        writer.record((batch * 2_000..(batch + 1) * 2_000).map(numbered));
    }
    eventually("all is spooled", || async { writer.counters().in_spool().0 == 8_000 }).await;
    writer.shutdown(Duration::from_secs(10)).await;
    let segments = std::fs::read_dir(spool.path()).unwrap().flatten().map(|entry| entry.path());
    let mut segments: Vec<_> = segments.filter(|path| path.extension().is_some()).collect();
    segments.sort();
    assert!(segments.len() >= 4, "{segments:?}");
    let whole = std::fs::read(&segments[0]).unwrap();
    std::fs::write(&segments[0], b"another version of it").unwrap();

    let writer = TelemetryWriter::spawn(&store, settings.clone());
    eventually("the others are written", || async { arrived(&store).await.0 == 6_000 }).await;
    writer.shutdown(Duration::from_secs(10)).await;
    std::fs::write(&segments[0], whole).unwrap();
    let writer = TelemetryWriter::spawn(&store, settings);
    eventually("it is written", || async { writer.counters().rows_written() == 2_000 }).await;
    writer.shutdown(Duration::from_secs(10)).await;
    assert_eq!(arrived(&store).await, (8_000, 8_000));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_old_counts_once_however_often_its_batch_is_tried() {
    let server = SharedServer::get().await;
    let proxy = Proxy::start(&server.socket_dir()).await;
    let store = Store::open(external(proxy.url(&server.database().await))).await.unwrap();
    let spool = tempfile::tempdir().unwrap();
    let writer = TelemetryWriter::start(settings(spool.path(), 32 << 20));
    let counters = writer.counters();
    writer.record((0..100).map(|number| {
        let sample = numbered(number);
        let days = chrono::TimeDelta::days(if number < 10 { 365 } else { 0 });
        Sample { at: sample.at - days, ..sample }
    }));
    eventually("they are spooled", || async { counters.in_spool().0 == 100 }).await;
    proxy.set_away(true);
    writer.attach(&store);
    let failed = counters.failures();
    eventually("it is tried", || async { counters.failures() >= failed + 3 }).await;
    proxy.set_away(false);
    eventually("all is written", || async { counters.rows_written() == 90 }).await;
    writer.shutdown(Duration::from_secs(10)).await;
    assert_eq!(counters.rows_dropped(), 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_postgres_loses_nothing_either() {
    let server = SharedServer::get().await;
    let store = server.store().await;
    let spool = tempfile::tempdir().unwrap();
    // Whoever holds this lock keeps every batch waiting.
    let mut holder = store.pool().begin().await.unwrap();
    sqlx::query("LOCK TABLE ingest_mark IN EXCLUSIVE MODE").execute(&mut *holder).await.unwrap();
    let writer = TelemetryWriter::spawn(
        &store,
        WriterSettings { queue_rows: 20_000, ..settings(spool.path(), 64 << 20) },
    );
    let counters = writer.counters();
    for chunk in 0..100 {
        writer.record((chunk * 1_000..(chunk + 1) * 1_000).map(numbered));
        eventually("the spool helps", || async { writer.queued() < 18_000 }).await;
    }
    assert_eq!(counters.rows_dropped(), 0);
    assert!(counters.in_spool().0 > 50_000);
    holder.rollback().await.unwrap();
    eventually("all is written", || async { counters.rows_written() == 100_000 }).await;
    writer.shutdown(Duration::from_secs(10)).await;
    assert_eq!(arrived(&store).await, (100_000, 100_000));
}

async fn no_copy(store: &Store) -> bool {
    let copies: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM pg_stat_activity
         WHERE datname = current_database() AND pid <> pg_backend_pid() AND state <> 'idle'",
    )
    .fetch_one(store.pool())
    .await
    .unwrap();
    copies == 0
}

/// Counts past the proxy, which is away.
async fn arrived_through(server: &SharedServer, url: &str) -> (u64, u64) {
    let name = url.rsplit('/').next().and_then(|name| name.split('?').next()).unwrap();
    let store = Store::open(external(server.url(name))).await.unwrap();
    let counted = arrived(&store).await;
    store.close().await.unwrap();
    counted
}

/// A file system in memory, of a few MiB.
struct SmallDisk {
    path: PathBuf,
    _dir: tempfile::TempDir,
}

impl SmallDisk {
    /// `None`, with the reason told, where that is not allowed.
    fn mount(mebibytes: u32) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        std::fs::create_dir(&path).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mebibytes}m"), "tmpfs"])
            .arg(&path)
            .output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self { path, _dir: dir }),
            other => {
                eprintln!("skipped: a full disk needs the right to mount a tmpfs: {other:?}");
                None
            }
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}
