//! Clairvoy and the Envoys as child processes.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::Context as _;
use tokio::time::{Instant, sleep};

use crate::autoscaler::Secret;

use super::{
    child::Child,
    leftovers::{Process, descendants_of, still_running},
    options::DemoOptions,
    world::{EdgeSpec, SECRET_ENV},
};

/// Time that the processes get for an orderly end.
const STOP_GRACE: Duration = Duration::from_secs(15);

/// Time that killed processes get to disappear.
const VANISH_GRACE: Duration = Duration::from_secs(3);

/// The running children.
#[derive(Debug, Default)]
pub(super) struct Processes {
    children: Vec<Child>,
}

/// How the children ended.
#[derive(Debug, Default)]
pub(super) struct Ended {
    /// Names of those that were killed because they did not stop.
    pub(super) killed: Vec<String>,
    /// Processes that are there still.
    pub(super) left: Vec<Process>,
}

impl Processes {
    /// Starts `clairvoy serve`.
    pub(super) fn start_clairvoy(
        &mut self,
        options: &DemoOptions,
        config: &Path,
        secret: &Secret,
    ) -> anyhow::Result<()> {
        let mut command = Command::new(clairvoy_program(options)?);
        command.arg("serve").arg("--config").arg(config).env(SECRET_ENV, secret.reveal());
        self.children.push(Child::spawn("clairvoy", command, &options.state_dir.join("clairvoy.log"))?);
        Ok(())
    }

    /// Writes the bootstrap of one Envoy and starts it.
    pub(super) async fn start_envoy(&mut self, options: &DemoOptions, edge: &EdgeSpec) -> anyhow::Result<()> {
        let mut command = tokio::process::Command::new(clairvoy_program(options)?);
        command
            .args(["bootstrap", "--node-id", edge.node_id, "--node-cluster", edge.gateway])
            .args(["--region", "local", "--zone", edge.zone])
            .args(["--xds", &options.xds().to_string(), "--admin", &edge.admin.to_string()])
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let output = command.output().await.context("cannot run clairvoy bootstrap")?;
        let message = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(output.status.success(), "clairvoy bootstrap failed: {}", message.trim());
        let bootstrap = options.state_dir.join(format!("{}.yaml", edge.node_id));
        fs::write(&bootstrap, output.stdout)
            .with_context(|| format!("cannot write {}", bootstrap.display()))?;

        let mut command = Command::new(&options.envoy);
        command.arg("-c").arg(&bootstrap).args(["--concurrency", "1", "-l", "warn", "--disable-hot-restart"]);
        let log = options.state_dir.join(format!("{}.log", edge.node_id));
        self.children.push(Child::spawn(edge.node_id, command, &log)?);
        Ok(())
    }

    /// Fails when one of the processes has ended.
    pub(super) fn check(&mut self) -> anyhow::Result<()> {
        self.children.iter_mut().try_for_each(Child::check)
    }

    /// Asks `ready` ten times a second until it says yes.
    ///
    /// # Errors
    ///
    /// At the deadline, or when a process has ended meanwhile.
    pub(super) async fn wait_until(
        &mut self,
        what: &str,
        limit: Duration,
        mut ready: impl AsyncFnMut() -> bool,
    ) -> anyhow::Result<()> {
        let deadline = Instant::now() + limit;
        while !ready().await {
            self.check()?;
            anyhow::ensure!(Instant::now() < deadline, "{what} did not happen within {limit:?}");
            sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    /// Stops all of them: first politely, then by force.
    pub(super) async fn stop(&mut self) -> Ended {
        let pids: Vec<u32> = self.children.iter().map(Child::pid).collect();
        let family = descendants_of(&pids);
        self.children.iter().for_each(Child::terminate);
        let deadline = Instant::now() + STOP_GRACE;
        let mut killed = Vec::new();
        for child in &mut self.children {
            if !child.wait_or_kill(deadline).await {
                killed.push(child.name().to_owned());
            }
        }
        self.children.clear();
        let deadline = Instant::now() + VANISH_GRACE;
        let mut left = still_running(&family);
        while !left.is_empty() && Instant::now() < deadline {
            sleep(Duration::from_millis(50)).await;
            left = still_running(&left);
        }
        Ended { killed, left }
    }
}

fn clairvoy_program(options: &DemoOptions) -> anyhow::Result<PathBuf> {
    if let Some(program) = &options.clairvoy {
        return Ok(program.clone());
    }
    let beside = std::env::current_exe()?.with_file_name("clairvoy");
    anyhow::ensure!(
        beside.exists(),
        "there is no {}: build it, or name it with --clairvoy",
        beside.display()
    );
    Ok(beside)
}
