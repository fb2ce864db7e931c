//! What the kernel tells of the machine.

use std::fs;

use anyhow::{Context as _, Result};

/// Time that all cores were busy, and all of it, in ticks since the machine started.
pub(crate) fn cpu_times() -> Result<(f64, f64)> {
    let text = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
    let line = text.lines().next().context("/proc/stat is empty")?;
    // user nice system idle iowait irq softirq steal; guests are in user already.
    let ticks: Vec<f64> =
        line.split_whitespace().skip(1).take(8).filter_map(|one| one.parse().ok()).collect();
    let all: f64 = ticks.iter().sum();
    let idle: f64 = ticks.iter().skip(3).take(2).sum();
    Ok((all - idle, all))
}

/// Returns the class of the machine: cores, CPU, memory.
pub(crate) fn machine() -> String {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu
        .lines()
        .find(|line| line.starts_with("model name"))
        .and_then(|line| line.split_once(": "))
        .map_or("unknown CPU", |(_, model)| model);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let memory = read("/proc/meminfo");
    let line = memory.lines().find_map(|line| line.strip_prefix("MemTotal:")).unwrap_or_default();
    let kib: f64 = line.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or_default();
    format!("{cores} cores of {model}, {:.0} GiB of memory", (kib / f64::from(1 << 20)).ceil())
}
