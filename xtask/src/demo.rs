//! `cargo xtask demo`: the product on one machine, from nothing.

use std::env;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, anyhow};

use crate::setup::{self, Tools};
use crate::sh;
use crate::workspace::Workspace;

/// Where root's demo keeps its state when the repository cannot be reached by the database's user.
const ROOT_STATE: &str = "/var/lib/clairvoy/demo";

/// Start a small fleet on this machine: Clairvoy, Envoys, Postgres and simulated model servers.
///
/// Does the set-up, builds, then becomes the demo: it prints where the dashboard is, and Ctrl-C ends it with
/// everything it started. The database is made anew at each start; configuration and logs stay in
/// .demo/. All ports are on the loopback address.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Stop by itself after so many seconds, with exit code 0 if all went well
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,
    /// Build with optimisation (takes minutes the first time)
    #[arg(long)]
    release: bool,
    /// Further flags, handed to the demo as they are; `-- --help` lists them
    #[arg(value_name = "FLAGS", trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    let tools = setup::quietly(workspace)?;
    workspace.build_programs(args.release)?;
    let mut demo = command(workspace, &tools, args.release, &args.rest)?;
    if let Some(seconds) = args.seconds {
        demo.arg("--seconds").arg(seconds.to_string());
    }
    demo.args(&args.rest);
    // Becomes the demo, so that signals and the exit code go straight through.
    let error = demo.exec();
    Err(anyhow!("cannot start `{}`: {error}", sh::line(&demo)))
}

/// Returns the command that starts the demo, without the caller's own flags `rest`. A state folder named
/// there is left to be the only one.
pub(crate) fn command(
    workspace: &Workspace,
    tools: &Tools,
    release: bool,
    rest: &[String],
) -> Result<Command> {
    let mut demo = Command::new(workspace.program("demo", release)?);
    demo.arg("--clairvoy").arg(workspace.program("clairvoy", release)?);
    demo.arg("--envoy").arg(&tools.envoy).arg("--postgres-bin").arg(&tools.postgres_bin);
    if !rest.iter().any(|flag| flag == "--state-dir" || flag.starts_with("--state-dir=")) {
        demo.arg("--state-dir").arg(state_folder(workspace)?);
    }
    Ok(demo)
}

fn state_folder(workspace: &Workspace) -> Result<PathBuf> {
    let usual = workspace.root().join(".demo");
    if !is_root() {
        return Ok(usual);
    }
    // Postgres refuses to run as root, so root's demo runs it as another user, who must get there.
    let Some(closed) = closed_to_others(workspace.root())? else { return Ok(usual) };
    println!(
        "{} is closed to other users, and Postgres does not run as root: the demo's state goes to {ROOT_STATE}",
        closed.display()
    );
    fs::create_dir_all(ROOT_STATE).with_context(|| format!("cannot create {ROOT_STATE}"))?;
    Ok(ROOT_STATE.into())
}

fn is_root() -> bool {
    // The standard library has no getuid; the owner of this entry is the user we run as.
    match fs::metadata("/proc/self") {
        Ok(process) => process.uid() == 0,
        Err(_) => env::var_os("USER").is_some_and(|user| user == "root"),
    }
}

/// Returns the first folder on the way to `path` that users other than its owner cannot pass through.
fn closed_to_others(path: &Path) -> Result<Option<PathBuf>> {
    let path = path.canonicalize()?;
    for folder in path.ancestors() {
        if fs::metadata(folder)?.permissions().mode() & 0o001 == 0 {
            return Ok(Some(folder.to_path_buf()));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_folder_on_the_way_is_found() {
        let closed = env::temp_dir().join(format!("xtask-closed-{}", std::process::id()));
        let inner = closed.join("repository");
        fs::create_dir_all(&inner).unwrap();
        fs::set_permissions(&inner, fs::Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
        let canonical = closed.canonicalize().unwrap();
        let found = closed_to_others(&inner).unwrap();
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o755)).unwrap();
        let open = closed_to_others(&inner).unwrap();
        fs::remove_dir_all(&closed).unwrap();
        assert_eq!(found.as_ref(), Some(&canonical));
        assert_ne!(open.as_ref(), Some(&canonical));
    }
}
