use std::fs;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{Connection, PgConnection};

use super::account::Account;
use super::binaries::Binaries;
use super::death_signal::die_with_parent;
use super::error::EmbeddedError;
use super::layout::Layout;
use super::log_tail::LogTail;
use super::postmaster::{self, Postmaster};

/// The user that `initdb` makes; the only one.
const SUPERUSER: &str = "postgres";
/// The database that Clairvoy uses.
const DATABASE: &str = "clairvoy";
/// A fast shutdown writes a checkpoint, which may take a while on a slow disk.
const FAST_STOP: Duration = Duration::from_secs(30);
/// An immediate shutdown only kills processes.
const IMMEDIATE_STOP: Duration = Duration::from_secs(5);
/// How long the first connection may take.
const FIRST_CONNECTION: Duration = Duration::from_secs(15);

/// All that is needed to start the server, again and again.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) binaries: Binaries,
    pub(super) account: Account,
    pub(super) layout: Layout,
}

impl Plan {
    /// Returns how to reach the database.
    pub(super) fn connect_options(&self) -> PgConnectOptions {
        connect_options(&self.layout.socket_dir)
    }

    /// Makes the cluster if there is none. A killed `initdb` leaves only a temporary folder behind.
    pub(super) fn initialise(&self) -> Result<(), EmbeddedError> {
        let data = &self.layout.data;
        if let Some(made_by) = self.layout.data_version() {
            let found = self.binaries.major;
            if made_by != found {
                return Err(EmbeddedError::VersionMismatch { data_dir: data.clone(), made_by, found });
            }
            return Ok(());
        }
        let half = self.layout.root.join("data.part");
        if half.exists() {
            fs::remove_dir_all(&half).map_err(EmbeddedError::io("remove", &half))?;
        }
        tracing::info!(path = %data.display(), version = self.binaries.major, "making a new Postgres cluster");
        let mut initdb = self.command("initdb");
        initdb.arg("-D").arg(&half).args(["-U", SUPERUSER, "--auth=trust", "--encoding=UTF8", "--locale=C"]);
        let path = self.binaries.bin.join("initdb");
        let output = initdb.arg("--no-instructions").output().map_err(EmbeddedError::io("run", &path))?;
        if !output.status.success() {
            let log = format!("{}{}", text(&output.stdout), text(&output.stderr));
            return Err(EmbeddedError::Initdb {
                status: output.status.to_string(),
                log: log.trim().to_owned(),
            });
        }
        fs::rename(&half, data).map_err(EmbeddedError::io("rename", &half))?;
        let root = &self.layout.root;
        fs::File::open(root).and_then(|dir| dir.sync_all()).map_err(EmbeddedError::io("sync", root))
    }

    /// Starts the server. It ends when the calling thread does.
    pub(super) fn spawn(&self) -> Result<Server, EmbeddedError> {
        let mut command = self.command("postgres");
        let mut socket_setting = std::ffi::OsString::from("unix_socket_directories=");
        socket_setting.push(&self.layout.socket_dir);
        command
            .arg("-D")
            .arg(&self.layout.data)
            .args(["-c", "listen_addresses=", "-c"])
            .arg(socket_setting)
            .args(["-c", "unix_socket_permissions=0700", "-c", "port=5432", "-c", "logging_collector=off"])
            .args(["-c", "log_destination=stderr", "-c", "timezone=UTC", "-c", "log_timezone=UTC"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let path = self.binaries.bin.join("postgres");
        let mut child = command.spawn().map_err(EmbeddedError::io("run", &path))?;
        let log = child.stderr.take().map(LogTail::follow);
        Ok(Server { child, log })
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.binaries.bin.join(program));
        command
            .env_clear()
            .envs([("LC_ALL", "C"), ("TZ", "UTC")])
            .current_dir(&self.layout.root)
            .stdin(Stdio::null());
        // Ctrl-C reaches the whole foreground group; the server must outlive our last writes.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        self.account.apply(&mut command);
        die_with_parent(&mut command);
        command
    }
}

/// A running server.
#[derive(Debug)]
pub(super) struct Server {
    child: Child,
    log: Option<LogTail>,
}

impl Server {
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns whether it takes connections, by its own word.
    pub(super) fn is_ready(&self, data: &Path) -> bool {
        Postmaster::read(data).is_some_and(|postmaster| postmaster.ready && postmaster.pid == self.pid())
    }

    /// Returns how it ended, if it has.
    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Returns the end of its log.
    pub(super) fn log_end(&self) -> String {
        self.log.as_ref().map_or_else(String::new, LogTail::end)
    }

    /// Stops it: sessions are cut and a checkpoint is written. If that takes too long it is stopped at once, and
    /// recovers from its journal at the next start.
    pub(super) fn stop(&mut self) {
        for (signal, patience) in [(Signal::INT, FAST_STOP), (Signal::QUIT, IMMEDIATE_STOP)] {
            if self.ended().is_some() {
                return;
            }
            if let Some(pid) = postmaster::to_pid(self.pid())
                && let Err(error) = kill_process(pid, signal)
            {
                tracing::warn!(process.id = self.pid(), %error, "cannot signal Postgres");
            }
            let deadline = Instant::now() + patience;
            while Instant::now() < deadline {
                if self.ended().is_some() {
                    return;
                }
                thread::sleep(Duration::from_millis(10));
            }
        }
        tracing::error!(process.id = self.pid(), "Postgres does not stop; killing it");
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait()) {
            tracing::error!(process.id = self.pid(), %error, "cannot kill Postgres");
        }
    }
}

/// Returns how to reach the database of a server by its socket.
pub(super) fn connect_options(socket_dir: &Path) -> PgConnectOptions {
    PgConnectOptions::new_without_pgpass()
        .socket(socket_dir)
        .port(5432)
        .username(SUPERUSER)
        .database(DATABASE)
        .ssl_mode(PgSslMode::Disable)
        .application_name("clairvoy")
}

/// Opens a real connection and makes Clairvoy's database if it is missing. Must not be called on an async thread.
pub(super) fn greet(options: &PgConnectOptions) -> Result<(), EmbeddedError> {
    let failed = |error: std::io::Error| EmbeddedError::Connect(sqlx::Error::Io(error));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let work = async {
        let mut connection = PgConnection::connect_with(&options.clone().database("postgres")).await?;
        let known: Option<i32> = sqlx::query_scalar("SELECT 1 FROM pg_database WHERE datname = $1")
            .bind(DATABASE)
            .fetch_optional(&mut connection)
            .await?;
        if known.is_none() {
            sqlx::query("CREATE DATABASE clairvoy").execute(&mut connection).await?;
        }
        connection.close().await
    };
    let answer = runtime.block_on(async { tokio::time::timeout(FIRST_CONNECTION, work).await });
    match answer {
        Ok(result) => result.map_err(EmbeddedError::Connect),
        Err(_) => Err(failed(std::io::ErrorKind::TimedOut.into())),
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
