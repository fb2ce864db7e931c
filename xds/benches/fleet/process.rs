//! What the kernel tells of this process and of the machine.

use std::fs;

use anyhow::{Context as _, Result};
use rustix::process::{Resource, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// What a process has used so far.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Usage {
    /// [`monotonic_ns`] when it was read.
    pub(crate) at_ns: u64,
    /// User and system time of all its threads.
    pub(crate) cpu_ns: u64,
    /// Memory that it has in use now.
    pub(crate) rss_kib: u64,
}

impl Usage {
    /// Reads the usage of this process.
    pub(crate) fn read() -> Result<Self> {
        let status = fs::read_to_string("/proc/self/status").context("cannot read /proc/self/status")?;
        let rss_kib = number_after(&status, "VmRSS:").context("/proc/self/status tells no VmRSS")?;
        Ok(Self { at_ns: monotonic_ns(), cpu_ns: nanoseconds(ClockId::ProcessCPUTime), rss_kib })
    }
}

/// The clock that all processes of a machine share.
pub(crate) fn monotonic_ns() -> u64 {
    nanoseconds(ClockId::Monotonic)
}

fn nanoseconds(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// A connection is a file, and the usual limit is 1,024.
pub(crate) fn raise_open_files_limit() -> Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).context("cannot raise the limit of open files")
}

/// Returns the class of the machine (cores, CPU, memory), and how busy it is.
pub(crate) fn machine() -> String {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu
        .lines()
        .find(|line| line.starts_with("model name"))
        .and_then(|line| line.split_once(": "))
        .map_or("unknown CPU", |(_, model)| model);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let memory_kib = number_after(&read("/proc/meminfo"), "MemTotal:").unwrap_or_default();
    let load = read("/proc/loadavg");
    let load = load.split_whitespace().next().unwrap_or("unknown");
    format!(
        "{cores} cores of {model}, {} GiB of memory (load average before the run: {load})",
        memory_kib.div_ceil(1 << 20)
    )
}

fn number_after(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse().ok()
}
