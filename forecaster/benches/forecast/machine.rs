//! What the kernel tells of this process and of the machine.

use std::fs;

use anyhow::{Context as _, Result};
use rustix::time::{ClockId, clock_gettime};

/// Returns the CPU time that this process has used, in seconds.
pub(crate) fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + 1e-9 * time.tv_nsec as f64
}

/// Returns the memory that this process has in use (VmRSS), in bytes.
pub(crate) fn resident_bytes() -> Result<f64> {
    let status = fs::read_to_string("/proc/self/status").context("cannot read /proc/self/status")?;
    let kib = number_after(&status, "VmRSS:").context("/proc/self/status tells no VmRSS")?;
    Ok(1024.0 * kib as f64)
}

/// Returns the class of the machine (cores, CPU, memory), and how busy it is.
pub(crate) fn describe() -> String {
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
