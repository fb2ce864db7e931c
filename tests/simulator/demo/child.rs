//! A child process that cannot outlive the demo.
//!
//! Three nets: an orderly stop ([`Child::terminate`], [`Child::wait_or_kill`]), a kill of its process group when
//! dropped, and on Linux a kill by the kernel when the thread that started it ends, however it ends.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::time::{Instant, timeout_at};

/// Lines of a log that are shown when its process has failed.
const SHOWN_LINES: usize = 15;

/// A running program, in a process group of its own.
#[derive(Debug)]
pub struct Child {
    name: String,
    log: PathBuf,
    process: tokio::process::Child,
    pid: Pid,
    reaped: bool,
}

impl Child {
    /// Starts `command` with its output in the file `log`. The kernel kills it when the calling thread ends, so call it
    /// from one that lasts.
    ///
    /// # Errors
    /// When the log cannot be written or the program cannot be started.
    pub fn spawn(name: &str, mut command: Command, log: &Path) -> anyhow::Result<Self> {
        let file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        die_with_parent(&mut command);
        let mut command = tokio::process::Command::from(command);
        // A group of its own: Ctrl-C in a terminal reaches the demo alone, which then stops its children in order.
        command.process_group(0).kill_on_drop(true);
        let program = command.as_std().get_program().to_owned();
        let process =
            command.spawn().with_context(|| format!("cannot start {}", Path::new(&program).display()))?;
        let pid = process.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let pid = pid.with_context(|| format!("{name} has no process id"))?;
        Ok(Self { name: name.to_owned(), log: log.to_owned(), process, pid, reaped: false })
    }

    /// The name that it was started by.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Looks whether the process runs.
    ///
    /// # Errors
    /// When it has ended, with the end of its log.
    pub fn check(&mut self) -> anyhow::Result<()> {
        let Some(status) = self.process.try_wait()? else { return Ok(()) };
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let end = lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n");
        anyhow::bail!("{} ended ({status}); the end of {}:\n{end}", self.name, self.log.display())
    }

    /// Asks the process to stop.
    pub fn terminate(&self) {
        if !self.reaped {
            // Gone already is as good.
            let _ = kill_process(self.pid, Signal::TERM);
        }
    }

    /// Waits until the process has ended, and kills its group at the deadline; true when that was not needed.
    pub async fn wait_or_kill(&mut self, deadline: Instant) -> bool {
        let in_time = timeout_at(deadline, self.process.wait()).await.is_ok();
        // Members of the group may be left even when its leader has ended.
        let _ = kill_process_group(self.pid, Signal::KILL);
        let _ = self.process.wait().await;
        self.reaped = true;
        in_time
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.reaped {
            let _ = kill_process_group(self.pid, Signal::KILL);
        }
    }
}

/// Has the kernel kill the process when the thread that starts it ends.
#[cfg(target_os = "linux")]
fn die_with_parent(command: &mut Command) {
    use std::{io, os::unix::process::CommandExt as _};

    use rustix::process::{getpid, getppid, set_parent_process_death_signal};

    let parent = getpid();
    let before_exec = move || {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // The parent may have ended before the line above took effect.
        if getppid() == Some(parent) { Ok(()) } else { Err(io::Error::from(rustix::io::Errno::SRCH)) }
    };
    #[expect(
        unsafe_code,
        reason = "between fork and exec it makes two plain system calls and allocates nothing"
    )]
    // SAFETY: the closure is async-signal-safe; it captures a number and calls prctl and getppid.
    unsafe {
        command.pre_exec(before_exec);
    }
}

#[cfg(not(target_os = "linux"))]
fn die_with_parent(_command: &mut Command) {}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::leftovers::{descendants_of, still_running};
    use super::*;

    fn shell(script: &str, folder: &Path) -> Child {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Child::spawn("shell", command, &folder.join("log")).unwrap()
    }

    #[tokio::test]
    async fn an_orderly_child_stops_when_asked() {
        let folder = tempfile::tempdir().unwrap();
        let mut child = shell("exec sleep 600", folder.path());
        child.check().unwrap();
        child.terminate();
        assert!(child.wait_or_kill(Instant::now() + Duration::from_secs(20)).await);
    }

    #[tokio::test]
    async fn a_deaf_child_is_killed_with_its_own_children() {
        let folder = tempfile::tempdir().unwrap();
        let mut child = shell("trap '' TERM; sleep 600 & echo up; wait; sleep 600", folder.path());
        while fs::read_to_string(folder.path().join("log")).unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let family = descendants_of(&[child.pid()]);
        child.terminate();
        assert!(!child.wait_or_kill(Instant::now() + Duration::from_millis(50)).await);
        let deadline = Instant::now() + Duration::from_secs(10);
        while !still_running(&family).is_empty() {
            assert!(Instant::now() < deadline, "{:?}", still_running(&family));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test]
    async fn the_end_of_the_log_says_why_it_failed() {
        let folder = tempfile::tempdir().unwrap();
        let mut child = shell("echo no such option; exit 3", folder.path());
        let _ = child.process.wait().await;
        let message = child.check().unwrap_err().to_string();
        assert!(message.contains("no such option") && message.contains('3'), "{message}");
    }
}
