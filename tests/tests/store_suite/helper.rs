//! Another process that runs an embedded server, to be killed or to be another user.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use clairvoy::store::EmbeddedPostgres;
use sqlx::{Connection, PgConnection};

use crate::support::{embedded_settings, postgres_bin};

const DIR: &str = "CLAIRVOY_TEST_HELPER_DIR";
const READY: &str = "helper ready ";

/// The unprivileged user that the helper becomes when the tests run as root.
const NOBODY: u32 = 65_534;

/// A helper process; killed when dropped.
pub(crate) struct Helper {
    child: Child,
    /// The postmaster's process id.
    pub(crate) postmaster: u32,
    /// How many times a helper had run on the directory before.
    pub(crate) runs_before: i64,
}

impl Helper {
    /// Starts a helper whose server keeps its data in `dir`, and waits until it has noted its run in the database.
    pub(crate) fn start(dir: &Path) -> Self {
        let mut command = if rustix::process::geteuid().is_root() { as_nobody(dir) } else { as_oneself() };
        let mut child = command
            .args(["--exact", "helper::hold_a_server", "--ignored", "--nocapture"])
            .env(DIR, dir.join("state"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            // The test harness writes its own words on the same line.
            if let Some((_, numbers)) = line.split_once(READY) {
                let (postmaster, runs) = numbers.split_once(' ').unwrap();
                let (postmaster, runs_before) = (postmaster.parse().unwrap(), runs.trim().parse().unwrap());
                return Self { child, postmaster, runs_before };
            }
            said.push_str(&line);
            said.push('\n');
        }
        let status = child.wait().unwrap();
        panic!("the helper ended ({status}) before it was ready: {said}");
    }

    /// Kills it, leaving it no time to stop its server.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn as_oneself() -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.env("CLAIRVOY_POSTGRES_BIN", postgres_bin());
    command
}

/// Prepares a helper of the user `nobody`, with copies of all it needs in `dir`: that user may not be able to reach
/// the originals.
fn as_nobody(dir: &Path) -> Command {
    let exe = dir.join("helper");
    if !exe.exists() {
        std::fs::copy(std::env::current_exe().unwrap(), &exe).unwrap();
        std::fs::create_dir(dir.join("state")).unwrap();
        std::os::unix::fs::chown(dir.join("state"), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let mut command = Command::new(exe);
    command.env("CLAIRVOY_POSTGRES_BIN", reachable_bin(dir)).current_dir("/").uid(NOBODY).gid(NOBODY);
    command
}

fn reachable_bin(dir: &Path) -> PathBuf {
    let bin = postgres_bin();
    let version = Command::new(bin.join("postgres")).arg("--version").current_dir("/").uid(NOBODY).output();
    if version.is_ok_and(|output| output.status.success()) {
        return bin;
    }
    let top = bin.ancestors().nth(3).unwrap();
    let copied = Command::new("cp").arg("-rL").arg(top).arg(dir.join("postgres-copy")).status().unwrap();
    assert!(copied.success(), "cannot copy {}", top.display());
    dir.join("postgres-copy").join(bin.strip_prefix(top).unwrap())
}

/// Not a test: what the helper process runs.
#[test]
#[ignore = "run by other tests, in a process of its own"]
fn hold_a_server() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let server = EmbeddedPostgres::start(embedded_settings(Path::new(&dir))).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let note_run = async {
        let mut connection = PgConnection::connect_with(&server.connect_options()).await?;
        sqlx::raw_sql("CREATE TABLE IF NOT EXISTS run (n integer)").execute(&mut connection).await?;
        let before: i64 = sqlx::query_scalar("SELECT count(*) FROM run").fetch_one(&mut connection).await?;
        sqlx::raw_sql("INSERT INTO run VALUES (1)").execute(&mut connection).await?;
        Ok::<_, sqlx::Error>(before)
    };
    let before = runtime.block_on(note_run).unwrap();
    let clairvoy::store::EmbeddedState::Running { pid } = server.state() else {
        panic!("{:?}", server.state())
    };
    println!("{READY}{pid} {before}");
    // Until the test that started us ends, however it ends.
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}
