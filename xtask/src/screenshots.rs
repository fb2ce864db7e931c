//! `cargo xtask screenshots`: the pictures of the dashboard in the documentation, taken of the real thing.

use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::workspace::Workspace;
use crate::{dashboard, demo, http, setup, sh};

/// Take the pictures of the dashboard for the documentation, of a running demo.
///
/// Starts the demo, waits until forecasts and decisions are made of moving data (about a minute), takes the
/// pictures with headless Chromium, and stops the demo. Needs Chromium (Debian: `apt-get install chromium`).
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The folder for the pictures, relative to the repository
    #[arg(long, value_name = "FOLDER", default_value = "docs/images")]
    out: PathBuf,
    /// Where the demo's API will be; with another port, hand the demo the flags for it, too
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8080")]
    api: String,
    /// Further flags, handed to the demo as they are
    #[arg(value_name = "FLAGS", trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

/// Long enough for the charts to show some curve, and for a first decision to be seen at work.
const WARM_UP: Duration = Duration::from_secs(45);
/// A first start makes a database and learns from history; more than this is a fault.
const LONGEST_START: Duration = Duration::from_secs(180);
const LONGEST_STOP: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(500);

const SCRIPT: &str = "e2e/screenshots.mjs";

pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    let tools = setup::quietly(workspace)?;
    let Some(folder) = dashboard::folder(workspace).filter(|folder| folder.join(SCRIPT).is_file()) else {
        bail!("this checkout has no dashboards/web/{SCRIPT}");
    };
    let node = dashboard::modules(workspace, &folder)?;
    workspace.build_programs(false)?;
    if http::get(&args.api, "/healthz").is_ok() {
        bail!("something answers at {} already: stop it first, or choose another port with --api", args.api);
    }

    let mut command = demo::command(workspace, &tools, false, &args.rest)?;
    command.args(&args.rest);
    let demo = Demo(command.spawn().with_context(|| format!("cannot start `{}`", sh::line(&command)))?);
    let mut demo = demo.wait_for_moving_data(&args.api)?;

    let out = workspace.root().join(&args.out);
    std::fs::create_dir_all(&out)?;
    let mut script = node.script(&folder)?;
    sh::run(script.arg(SCRIPT).arg(format!("http://{}", args.api)).arg(&out))?;
    let status = demo.stop()?;
    println!("pictures are in {} (demo: {status})", workspace.short(&out));
    Ok(())
}

/// A running demo, which does not outlive this value.
struct Demo(Child);

impl Demo {
    fn wait_for_moving_data(mut self, api: &str) -> Result<Self> {
        let started = Instant::now();
        let mut rows_before = None;
        while started.elapsed() < LONGEST_START {
            if let Some(status) = self.0.try_wait()? {
                bail!("the demo ended before its data moved ({status})");
            }
            // Not answering yet is the usual case; a lasting one ends at the deadline.
            let state = http::get(api, "/api/v1/state").unwrap_or_default();
            let rows = http::number(&state, "telemetry_rows");
            let moving = rows > rows_before && rows_before.is_some();
            let decided = ["forecasts", "decisions"].iter().all(|key| total(&state, key) > 0);
            if moving && decided && started.elapsed() >= WARM_UP {
                return Ok(self);
            }
            rows_before = rows;
            thread::sleep(POLL);
        }
        bail!("the demo at {api} showed no moving data within {} s", LONGEST_START.as_secs())
    }

    /// Asks the demo to end, as Ctrl-C does, and waits for it.
    fn stop(&mut self) -> Result<ExitStatus> {
        if let Some(status) = self.0.try_wait()? {
            return Ok(status);
        }
        // The standard library sends only SIGKILL; the shell's own `kill` is on every system.
        sh::run(Command::new("sh").args(["-c", &format!("kill -INT {}", self.0.id())]))?;
        let asked = Instant::now();
        while asked.elapsed() < LONGEST_STOP {
            if let Some(status) = self.0.try_wait()? {
                return Ok(status);
            }
            thread::sleep(POLL);
        }
        self.0.kill()?;
        bail!("the demo did not stop within {} s and was killed", LONGEST_STOP.as_secs())
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            eprintln!("warning: {error:#}");
        }
    }
}

/// Reads a count from the `totals` of a state, where the same words also name other things.
fn total(state: &str, key: &str) -> u64 {
    let totals = state.split_once("\"totals\"").map_or("", |(_, totals)| totals);
    http::number(totals, key).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::total;

    #[test]
    fn totals_are_not_mistaken_for_lists_of_the_same_name() {
        let state = r#"{"decisions":[{"id":"1"}],"totals":{"forecasts":2,"decisions":40}}"#;
        assert_eq!(total(state, "decisions"), 40);
        assert_eq!(total(state, "forecasts"), 2);
        assert_eq!(total("{}", "forecasts"), 0);
    }
}
