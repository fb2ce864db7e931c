//! Clairvoy's part of a run: its configuration, its process, and the bootstraps that it makes.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use clairvoy_tests::{Gpu, Machine};

use crate::programs;

/// The name of the model that everything serves.
pub(crate) const MODEL: &str = "chat";

/// Everybody waits for his answer, so that people have to be refused; only what the fleet cannot take in time.
pub(crate) const SHEDDING: &str = "{ interactive: 0.5, begin_utilisation: 0.97, target_utilisation: 0.93 }";

/// Where Clairvoy listens and what it is told of.
#[derive(Debug)]
pub(crate) struct Setup<'a> {
    pub(crate) folder: &'a Path,
    pub(crate) api: SocketAddr,
    pub(crate) xds: SocketAddr,
    pub(crate) gateways: &'a [SocketAddr],
    pub(crate) machines: &'a [Machine],
    pub(crate) servers: &'a [SocketAddr],
    pub(crate) has_zones: bool,
    /// True when requests may be refused in overload.
    pub(crate) may_refuse: bool,
    pub(crate) postgres_bin: Option<PathBuf>,
}

/// The name of an Envoy, and of its gateway.
pub(crate) fn node(index: usize) -> String {
    format!("edge-{index}")
}

/// Pools by class (and zone), their engine and their backends: no capacities, those it has to learn.
pub(crate) fn config(setup: &Setup<'_>) -> String {
    let mut yaml = String::new();
    // Writing to a string cannot fail.
    let mut line = |text: String| {
        let _ = writeln!(yaml, "{text}");
    };
    // A JSON string is a valid YAML string, whatever is in the path.
    line(format!("data_dir: {}", serde_json::json!(setup.folder.join("state"))));
    if let Some(folder) = &setup.postgres_bin {
        line(format!("database: {{ postgres_bin: {} }}", serde_json::json!(folder)));
    }
    line(format!("listen: {{ api: {}, xds: {} }}", setup.api, setup.xds));
    line("telemetry: { interval: 1s }".to_owned());
    line("forecast: { step: 10s, season: 10m, horizons: [10s, 30s, 60s] }".to_owned());
    line("gateways:".to_owned());
    for (index, listen) in setup.gateways.iter().enumerate() {
        let name = node(index);
        line(format!("  - {{ name: {name}, node_cluster: {name}, listen: {listen} }}"));
    }
    let pools = pools(setup);
    let names: Vec<&str> = pools.iter().map(|(name, ..)| name.as_str()).collect();
    let shedding = if setup.may_refuse { format!(", shedding: {SHEDDING}") } else { String::new() };
    line(format!("models: [{{ name: {MODEL}, pools: [{}]{shedding} }}]", names.join(", ")));
    line("pools:".to_owned());
    for (name, zone, servers) in &pools {
        let servers: Vec<String> = servers.iter().map(|server| format!("\"{server}\"")).collect();
        line(format!(
            "  - {{ name: {name}, engine: vllm, locality: {{ region: local, zone: {zone} }}, backends: [{}] }}",
            servers.join(", ")
        ));
    }
    yaml
}

fn pools(setup: &Setup<'_>) -> Vec<(String, &'static str, Vec<SocketAddr>)> {
    let mut pools = Vec::new();
    for in_second in [false, true] {
        for class in Gpu::ALL {
            let members = setup.machines.iter().zip(setup.servers).filter(|(machine, _)| {
                machine.class == class && (setup.has_zones && machine.in_second_zone) == in_second
            });
            let servers: Vec<SocketAddr> = members.map(|(_, server)| *server).collect();
            if !servers.is_empty() {
                let (suffix, zone) = if in_second { ("-b", "zone-b") } else { ("", "zone-a") };
                pools.push((format!("{class}{suffix}"), zone, servers));
            }
        }
    }
    pools
}

/// The bootstrap that Clairvoy makes for an Envoy.
pub(crate) fn bootstrap(
    program: &Path,
    setup: &Setup<'_>,
    index: usize,
    admin: SocketAddr,
) -> Result<Vec<u8>> {
    let name = node(index);
    let (xds, admin) = (setup.xds.to_string(), admin.to_string());
    let output = programs::clairvoy(program, setup.folder)
        .args(["bootstrap", "--node-id", &name, "--node-cluster", &name, "--xds", &xds, "--admin", &admin])
        .output()
        .context("cannot run clairvoy bootstrap")?;
    let message = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "clairvoy bootstrap failed: {}", message.trim());
    Ok(output.stdout)
}
