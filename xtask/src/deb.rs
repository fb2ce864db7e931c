//! Prometheus for the tests, which no wheel has: Debian's package, unpacked into `.tools/` and not installed.

use std::env::consts::ARCH;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::sh;
use crate::stamp::Stamp;
use crate::tool::remove;
use crate::workspace::Workspace;

const PINS: &str = "tools/prometheus.txt";
const OWN: &str = "set CLAIRVOY_PROMETHEUS to a program of your own, 2.42 or newer";

/// Returns the program, fetched when it is not there or made from other pins; and whether it was fetched now.
pub(crate) fn prometheus(workspace: &Workspace) -> Result<(PathBuf, bool)> {
    let file = workspace.root().join(PINS);
    let pins = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let stamp = Stamp::new().with(pins.as_bytes());
    let folder = workspace.tools().join("prometheus");
    let program = folder.join("usr/bin/prometheus");
    let ready = || stamp.matches(&folder.join(".stamp")) && program.is_file();
    if ready() {
        return Ok((program, false));
    }
    fs::create_dir_all(workspace.tools())?;
    let lock = File::create(workspace.tools().join(".lock"))?;
    lock.lock().context("cannot lock .tools/.lock")?;
    if ready() {
        return Ok((program, false));
    }
    let fresh = workspace.tools().join("prometheus.new");
    remove(&fresh)?;
    fs::create_dir_all(&fresh)?;
    unpack(&pins, &fresh).with_context(|| format!("cannot fetch Prometheus; {OWN}"))?;
    stamp.write(&fresh.join(".stamp"))?;
    remove(&folder)?;
    fs::rename(&fresh, &folder)?;
    Ok((program, true))
}

fn unpack(pins: &str, folder: &Path) -> Result<()> {
    let arch = match ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let version = pins.lines().find_map(|line| line.strip_prefix("prometheus=="));
    let version = version.with_context(|| format!("{PINS} pins no version"))?;
    let hash = pins.lines().find_map(|line| line.strip_prefix(arch)?.trim().strip_prefix("sha256:"));
    let hash = hash.with_context(|| format!("{PINS} pins no package for {arch}"))?;
    if sh::find("apt-get").is_none() || sh::find("dpkg-deb").is_none() {
        bail!("there is no apt-get here");
    }
    println!("  fetching Prometheus {version} (19 MB) into .tools/prometheus …");
    // A download only: it needs no root, and installs nothing.
    let package = format!("prometheus={version}");
    let said = sh::output(Command::new("apt-get").args(["download", "-qq", &package]).current_dir(folder))?;
    if !said.success {
        bail!("apt-get has no {package} (`apt-get update` may help); it says:{}", sh::tail(&said.stderr, 3));
    }
    let file = downloaded(folder)?;
    let sum = sh::output(Command::new("sha256sum").arg(&file))?;
    if sum.stdout.split_whitespace().next() != Some(hash) {
        bail!("apt-get fetched another file than the pinned one");
    }
    let unpacked = sh::output(Command::new("dpkg-deb").arg("-x").arg(&file).arg(folder))?;
    if !unpacked.success {
        bail!("dpkg-deb says:{}", sh::tail(&unpacked.stderr, 3));
    }
    fs::remove_file(&file)?;
    let runs = sh::output(Command::new(folder.join("usr/bin/prometheus")).arg("--version"))?;
    if !runs.success {
        bail!("it was fetched but does not run on this machine:{}", sh::tail(&runs.stderr, 5));
    }
    Ok(())
}

fn downloaded(folder: &Path) -> Result<PathBuf> {
    let files = fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()?;
    let mut packages = files
        .into_iter()
        .map(|file| file.path())
        .filter(|path| path.extension().is_some_and(|end| end == "deb"));
    packages.next().context("apt-get left no package")
}
