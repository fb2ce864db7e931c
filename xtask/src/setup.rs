//! `cargo xtask setup`: what must be there before the first build.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::ValueEnum;

use crate::tool::{ENVOY, GRPCIO, OPENTELEMETRY, POSTGRES, Presence, Tool};
use crate::workspace::Workspace;
use crate::{dashboard, deb, sh, tool};

/// Fetch what is missing into .tools/ and build the dashboard.
///
/// Envoy, Postgres, gRPC and OpenTelemetry for Python (clients that the tests start) and (where the path has none that
/// is new enough) Node.js are fetched as the versions pinned with their hashes in tools/*.txt; so is Debian's Prometheus,
/// for the tests, where there is apt-get. Nothing is installed outside the repository, so removing .tools/ undoes it. A second run finds everything in place and costs milliseconds; a changed pin is fetched
/// again, a changed dashboard is built again.
///
/// To use tools of your own, set CLAIRVOY_ENVOY (the program), CLAIRVOY_POSTGRES_BIN (the folder with `postgres`
/// and `initdb`), CLAIRVOY_GRPCIO (the folder with Python's module `grpc`), CLAIRVOY_OPENTELEMETRY (that with
/// `opentelemetry`) or CLAIRVOY_PROMETHEUS (the program).
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only this part; may be given more than once
    #[arg(long, value_name = "PART")]
    only: Vec<Part>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    Envoy,
    Postgres,
    Grpcio,
    Opentelemetry,
    Prometheus,
    Dashboard,
}

/// Where the tools are that the demo and the tests start.
pub(crate) struct Tools {
    /// The Envoy program.
    pub(crate) envoy: PathBuf,
    /// The folder with `postgres` and `initdb`.
    pub(crate) postgres_bin: PathBuf,
}

pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    let wanted = |part| args.only.is_empty() || args.only.contains(&part);
    check_compiler()?;
    if wanted(Part::Envoy) {
        envoy(workspace, true)?;
    }
    if wanted(Part::Postgres) {
        postgres_bin(workspace, true)?;
    }
    if wanted(Part::Grpcio) {
        grpcio(workspace, true)?;
    }
    if wanted(Part::Opentelemetry) {
        opentelemetry(workspace, true)?;
    }
    if wanted(Part::Prometheus)
        && let Err(error) = prometheus(workspace, true)
    {
        // Only one test wants it, and says so.
        say(true, "prometheus", &format!("missing: {error:#}"));
    }
    if wanted(Part::Dashboard) {
        build_dashboard(workspace, true)?;
    }
    Ok(())
}

/// Does the whole set-up for another command: speaks only when there is something to do.
pub(crate) fn quietly(workspace: &Workspace) -> Result<Tools> {
    check_compiler()?;
    let tools = Tools { envoy: envoy(workspace, false)?, postgres_bin: postgres_bin(workspace, false)? };
    build_dashboard(workspace, false)?;
    Ok(tools)
}

fn envoy(workspace: &Workspace, report: bool) -> Result<PathBuf> {
    if let Some(program) = tool::own("CLAIRVOY_ENVOY", None)? {
        say(report, "envoy", &format!("{} (CLAIRVOY_ENVOY)", program.display()));
        return Ok(program);
    }
    fetch(&ENVOY, workspace, report)
}

fn postgres_bin(workspace: &Workspace, report: bool) -> Result<PathBuf> {
    if let Some(folder) = tool::own("CLAIRVOY_POSTGRES_BIN", Some("postgres"))? {
        say(report, "postgres", &format!("{} (CLAIRVOY_POSTGRES_BIN)", folder.display()));
        return Ok(folder);
    }
    let mut program = fetch(&POSTGRES, workspace, report)?;
    program.pop();
    Ok(program)
}

/// The folder with Python's module `grpc`, which only the tests need.
pub(crate) fn grpcio(workspace: &Workspace, report: bool) -> Result<PathBuf> {
    if let Some(folder) = tool::own("CLAIRVOY_GRPCIO", Some("grpc/__init__.py"))? {
        say(report, "grpcio", &format!("{} (CLAIRVOY_GRPCIO)", folder.display()));
        return Ok(folder);
    }
    fetch(&GRPCIO, workspace, report)?;
    Ok(GRPCIO.folder(workspace))
}

/// The folder with Python's OpenTelemetry SDK, which only the tests need.
pub(crate) fn opentelemetry(workspace: &Workspace, report: bool) -> Result<PathBuf> {
    if let Some(folder) = tool::own("CLAIRVOY_OPENTELEMETRY", Some("opentelemetry/sdk/metrics/__init__.py"))?
    {
        say(report, "opentelemetry", &format!("{} (CLAIRVOY_OPENTELEMETRY)", folder.display()));
        return Ok(folder);
    }
    fetch(&OPENTELEMETRY, workspace, report)?;
    Ok(OPENTELEMETRY.folder(workspace))
}

/// The Prometheus program, which only the tests need.
pub(crate) fn prometheus(workspace: &Workspace, report: bool) -> Result<PathBuf> {
    if let Some(program) = tool::own("CLAIRVOY_PROMETHEUS", None)? {
        say(report, "prometheus", &format!("{} (CLAIRVOY_PROMETHEUS)", program.display()));
        return Ok(program);
    }
    let (program, fetched) = deb::prometheus(workspace)?;
    say(report || fetched, "prometheus", "ready");
    Ok(program)
}

fn fetch(tool: &Tool, workspace: &Workspace, report: bool) -> Result<PathBuf> {
    let presence = tool.ensure(workspace)?;
    if report || matches!(presence, Presence::Fetched) {
        say(true, tool.name, &format!("{} ready", tool.version(workspace)?));
    }
    Ok(tool.program(workspace))
}

fn build_dashboard(workspace: &Workspace, report: bool) -> Result<()> {
    match dashboard::ensure(workspace)? {
        dashboard::Presence::NoSources => {
            say(report, "dashboard", "skipped: this checkout has no dashboards/web/package.json");
        }
        dashboard::Presence::Ready => say(report, "dashboard", "ready"),
        dashboard::Presence::Built(seconds) => say(true, "dashboard", &format!("built in {seconds:.1} s")),
    }
    Ok(())
}

fn say(report: bool, part: &str, text: &str) {
    if report {
        println!("{part:<10} {text}");
    }
}

/// One dependency (the TLS provider) is compiled with it; a message now is kinder than one in mid-build.
fn check_compiler() -> Result<()> {
    let own = std::env::var_os("CC").is_some();
    if !own && sh::find("cc").is_none() {
        bail!("there is no C compiler `cc` on the path (Debian: `apt-get install build-essential`)");
    }
    Ok(())
}
