//! Where the repository is, and where cargo puts what it builds.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::sh;

/// The repository and its target folder, as absolute paths.
pub(crate) struct Workspace {
    root: PathBuf,
    target: PathBuf,
    /// `CARGO_TARGET_DIR` made absolute, when it is set: cargo reads it against the working directory,
    /// and ours is not that of its children.
    target_override: Option<PathBuf>,
}

impl Workspace {
    /// Finds the repository by the manifest folder that `cargo run` hands on.
    pub(crate) fn find() -> Result<Self> {
        let manifest =
            env::var_os("CARGO_MANIFEST_DIR").context("run this as `cargo xtask`, inside the repository")?;
        let root = Path::new(&manifest)
            .parent()
            .context("the manifest folder of xtask has no parent")?
            .to_path_buf();
        // Read before any build: cargo replaces the file, and the link to it goes stale.
        let program = env::current_exe().context("cannot tell where this program lies")?;
        let target =
            program.parent().and_then(Path::parent).context("this program lies outside a target folder")?;
        let target_override = match env::var_os("CARGO_TARGET_DIR") {
            Some(folder) => Some(std::path::absolute(folder)?),
            None => None,
        };
        Ok(Self { root, target: target.to_path_buf(), target_override })
    }

    /// Returns the repository's root folder.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Returns the folder of what cargo builds.
    pub(crate) fn target(&self) -> &Path {
        &self.target
    }

    /// Returns the folder of fetched tools.
    pub(crate) fn tools(&self) -> PathBuf {
        self.root.join(".tools")
    }

    /// Returns the path as a person would type it from the root, where it lies below the root.
    pub(crate) fn short<'a>(&self, path: &'a Path) -> std::path::Display<'a> {
        path.strip_prefix(&self.root).unwrap_or(path).display()
    }

    /// Returns a cargo command with the given arguments, to be run in the root.
    pub(crate) fn cargo(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.current_dir(&self.root).args(args);
        for (name, _) in env::vars_os().filter(|(name, _)| describes_xtask(name)) {
            command.env_remove(name);
        }
        if let Some(target) = &self.target_override {
            command.env("CARGO_TARGET_DIR", target);
        }
        command
    }

    /// Returns the path of a program that [`Self::build_programs`] made.
    pub(crate) fn program(&self, name: &str, release: bool) -> Result<PathBuf> {
        let profile = if release { "release" } else { "debug" };
        let path = self.target.join(profile).join(name);
        if !path.is_file() {
            bail!("the build left no program `{name}` at {}", path.display());
        }
        Ok(path)
    }

    /// Builds all programs of the workspace. The whole workspace at once, because the features of shared
    /// dependencies differ from those of a single package, and each flavour would be compiled anew.
    pub(crate) fn build_programs(&self, release: bool) -> Result<()> {
        let mut build = self.cargo(&["build", "--workspace", "--exclude", "xtask", "--bins"]);
        if release {
            build.arg("--release");
        }
        sh::run(&mut build)
    }
}

/// Tells whether `cargo run` set a variable to describe xtask. Handed on to another cargo, these make the
/// build script of `ring` run again, and with it half of the dependencies compile again.
fn describes_xtask(variable: &OsStr) -> bool {
    let name = variable.to_string_lossy();
    ["CARGO_MANIFEST_", "CARGO_PKG_", "CARGO_BIN_", "CARGO_CRATE_"]
        .iter()
        .any(|start| name.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_the_user_are_handed_on() {
        assert!(describes_xtask("CARGO_PKG_VERSION_MAJOR".as_ref()));
        assert!(describes_xtask("CARGO_MANIFEST_DIR".as_ref()));
        for own in ["CARGO_TARGET_DIR", "CARGO_HOME", "CARGO_TERM_COLOR", "CARGO_BUILD_JOBS", "PATH"] {
            assert!(!describes_xtask(own.as_ref()), "{own}");
        }
    }
}
