//! Fetching pinned wheels with pip, and saying plainly what to do when that fails.

use std::env::consts::{ARCH, OS};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, anyhow, bail};

use crate::sh;
use crate::version::Version;

/// The first pip that knows the platform tags of the pinned wheels (`manylinux_2_28` and the like).
const OLDEST: Version = Version { major: 20, minor: 3 };

/// Refuses machines for which nothing is pinned.
pub(crate) fn check_platform() -> Result<()> {
    if OS == "linux" && matches!(ARCH, "x86_64" | "aarch64") {
        return Ok(());
    }
    bail!(
        "tools are pinned for Linux on x86-64 and arm64 only, this is {OS} on {ARCH}; with tools of your own, \
         set CLAIRVOY_ENVOY (the program) and CLAIRVOY_POSTGRES_BIN (the folder with `postgres`)"
    );
}

/// Returns the version of the python3 on the path, as it prints it.
pub(crate) fn python_version() -> Result<String> {
    Ok(sh::output(Command::new(python3()?).arg("--version"))?.stdout)
}

fn python3() -> Result<PathBuf> {
    sh::find("python3").context("python3 is not on the path (Debian: `apt-get install python3 python3-pip`)")
}

/// Finds a python3 whose pip is new enough.
pub(crate) fn find() -> Result<PathBuf> {
    let python = python3()?;
    let output = sh::output(Command::new(&python).args(["-m", "pip", "--version"]))?;
    if !output.success {
        bail!("{} has no pip (Debian: `apt-get install python3-pip`)", python.display());
    }
    match Version::find(&output.stdout) {
        Some(version) if version < OLDEST => bail!(
            "pip {}.{} of {} is too old, {}.{} is needed: `python3 -m pip install --user --upgrade pip`",
            version.major,
            version.minor,
            python.display(),
            OLDEST.major,
            OLDEST.minor
        ),
        _ => Ok(python),
    }
}

/// Installs what a requirement file pins into a folder of its own, checked against its hashes.
///
/// pip rather than an unpacker of ours: it keeps the executable bits. With `--target` it touches nothing
/// of the system, so it works where system-wide installs are refused.
pub(crate) fn install(python: &Path, requirements: &Path, folder: &Path, progress_bar: bool) -> Result<()> {
    let mut command = Command::new(python);
    command.args([
        "-m",
        "pip",
        "install",
        "--no-deps",
        "--require-hashes",
        "--only-binary=:all:",
        "--no-compile",
    ]);
    command.args(["--retries", "3", "--target"]).arg(folder).arg("-r").arg(requirements);
    // The user's own pip settings must not send the files elsewhere, or stop for a question.
    command.env("PIP_USER", "0").env("PIP_REQUIRE_VIRTUALENV", "0").env("PIP_NO_INPUT", "1");
    command.env("PIP_ROOT_USER_ACTION", "ignore").env("PIP_DISABLE_PIP_VERSION_CHECK", "1");
    if progress_bar {
        command.stdout(Stdio::inherit());
    } else {
        command.arg("--quiet");
    }
    let child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(anyhow!("{}; pip says:{}", explain(&said), sh::tail(&said, 6)))
}

fn explain(said: &str) -> &'static str {
    const OFFLINE: [&str; 6] = [
        "NewConnectionError",
        "ConnectTimeoutError",
        "ReadTimeoutError",
        "ProxyError",
        "Max retries exceeded",
        "Name or service not known",
    ];
    if said.contains("DO NOT MATCH THE HASHES") {
        "the package index served other files than the pinned ones: nothing was installed"
    } else if OFFLINE.iter().any(|sign| said.contains(sign)) {
        "the package index cannot be reached: check the network or the proxy settings of pip, then run it again"
    } else if said.contains("No matching distribution") {
        "no pinned wheel fits this system (glibc 2.31 or newer is needed, for gRPC also Python 3.10 to 3.14), or the \
         package index lacks it"
    } else if said.contains("No space left") {
        "the disk is full"
    } else {
        "pip failed"
    }
}

#[cfg(test)]
mod tests {
    use super::explain;

    #[test]
    fn failures_are_told_apart() {
        let offline =
            "WARNING: Retrying … NewConnectionError('…')\nERROR: No matching distribution found for x";
        assert!(explain(offline).contains("network"));
        assert!(explain("ERROR: No matching distribution found for x").contains("glibc"));
        assert!(explain("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES …").contains("nothing was installed"));
        assert_eq!(explain("Traceback …"), "pip failed");
    }
}
