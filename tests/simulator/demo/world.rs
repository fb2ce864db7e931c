//! What the demo consists of: models, pools, gateways, and the configuration that tells Clairvoy about them.

use std::{
    fmt::Write as _,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use crate::SpeedClass;
use crate::history::{DemandSeries, Replay, SEASON_WINDOWS, SeriesError};

use super::options::DemoOptions;

/// Environment variable that carries the webhook secret to Clairvoy.
pub(super) const SECRET_ENV: &str = "CLAIRVOY_WEBHOOK_SECRET";

/// Folder of the database, in the state folder; removed at each start, so no other program may use the name.
pub(super) const DATA: &str = "demo-data";

/// Length of a forecast step; a recorded window of ten minutes is played in it.
pub(super) const STEP_SECONDS: u32 = 10;

/// From asking for a server to its first request, as declared to Clairvoy.
const COLD_START_SECONDS: u32 = 10;

/// How long a simulated server loads its model: the cold start less the webhook and its registration.
pub(super) const LOAD_DELAY: Duration = Duration::from_secs(8);

/// Sum of [`PoolSpec::max`].
pub(super) const MOST_BACKENDS: u16 = 15;

/// A pool of simulated servers.
#[derive(Debug, Clone, Copy)]
pub(super) struct PoolSpec {
    pub(super) name: &'static str,
    pub(super) model: &'static str,
    zone: &'static str,
    pub(super) class: SpeedClass,
    /// Servers at the start, and the fewest.
    pub(super) replicas: usize,
    /// Most servers.
    max: usize,
    /// Requests per second that one server sustains with the recorded sizes.
    capacity_rps: f64,
}

/// The pools, in the order in which their first servers take ports.
pub(super) const POOLS: [PoolSpec; 4] = [
    PoolSpec {
        name: "large-h100-a",
        model: "chat-large",
        zone: "zone-a",
        class: SpeedClass::Fast,
        replicas: 2,
        max: 5,
        capacity_rps: 8.0,
    },
    PoolSpec {
        name: "large-a100-b",
        model: "chat-large",
        zone: "zone-b",
        class: SpeedClass::Mid,
        replicas: 2,
        max: 4,
        capacity_rps: 4.0,
    },
    PoolSpec {
        name: "small-a100-b",
        model: "chat-small",
        zone: "zone-b",
        class: SpeedClass::Mid,
        replicas: 1,
        max: 3,
        capacity_rps: 4.0,
    },
    PoolSpec {
        name: "small-l4-a",
        model: "chat-small",
        zone: "zone-a",
        class: SpeedClass::Slow,
        replicas: 1,
        max: 3,
        capacity_rps: 2.0,
    },
];

/// The models that are asked for.
pub(super) const MODELS: [&str; 2] = ["chat-large", "chat-small"];

/// An Envoy and its gateway.
#[derive(Debug, Clone, Copy)]
pub(super) struct EdgeSpec {
    pub(super) node_id: &'static str,
    pub(super) gateway: &'static str,
    pub(super) zone: &'static str,
    pub(super) listen: SocketAddr,
    pub(super) admin: SocketAddr,
}

pub(super) fn edges(options: &DemoOptions) -> [EdgeSpec; 2] {
    [
        EdgeSpec {
            node_id: "envoy-a",
            gateway: "edge-a",
            zone: "zone-a",
            listen: loopback(options.envoy_port_a),
            admin: loopback(options.admin_port_a),
        },
        EdgeSpec {
            node_id: "envoy-b",
            gateway: "edge-b",
            zone: "zone-b",
            listen: loopback(options.envoy_port_b),
            admin: loopback(options.admin_port_b),
        },
    ]
}

pub(super) fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// The recorded demand of a model with its ramp at `anchor_unix_s`: in the minute that follows, `chat-large`
/// goes from 13 to 25 requests/s and `chat-small` from 2 to 5.
pub(super) fn replay(model: &str, anchor_unix_s: i64) -> Result<Replay, SeriesError> {
    if model == "chat-large" {
        Replay::new(DemandSeries::large()?, 1699, 0.19, STEP_SECONDS, anchor_unix_s)
    } else {
        Replay::new(DemandSeries::small()?, 1632, 0.14, STEP_SECONDS, anchor_unix_s)
    }
}

/// Writes `clairvoy.yaml`. `backends` are the first servers of each pool, in the order of [`POOLS`].
pub(super) fn config_yaml(options: &DemoOptions, backends: &[(PoolSpec, Vec<SocketAddr>)]) -> String {
    let mut yaml = String::from("# Written by the demo at each start.\n");
    // Writing to a string cannot fail.
    let mut line = |text: String| {
        let _ = writeln!(yaml, "{text}");
    };
    // A JSON string is a valid YAML string, whatever is in the path.
    line(format!("data_dir: {}", serde_json::json!(options.state_dir.join(DATA))));
    if let Some(folder) = &options.postgres_bin {
        line(format!("database: {{ postgres_bin: {} }}", serde_json::json!(folder)));
    }
    line(format!("listen: {{ api: {}, xds: {} }}", options.api(), options.xds()));
    line("gateways:".to_owned());
    for edge in edges(options) {
        let EdgeSpec { gateway, listen, .. } = edge;
        line(format!("  - {{ name: {gateway}, node_cluster: {gateway}, listen: {listen} }}"));
    }
    let season_minutes = SEASON_WINDOWS as u32 * STEP_SECONDS / 60;
    let horizons: Vec<String> = (1..=12).map(|n| format!("{}s", n * STEP_SECONDS)).collect();
    line("forecast:".to_owned());
    line(format!("  step: {STEP_SECONDS}s"));
    line(format!("  season: {season_minutes}m"));
    line(format!("  horizons: [{}]", horizons.join(", ")));
    line("models:".to_owned());
    for model in MODELS {
        let pools = POOLS.iter().filter(|pool| pool.model == model).map(|pool| pool.name);
        let pools = pools.collect::<Vec<_>>().join(", ");
        line(format!("  - {{ name: {model}, slo: {{ ttft_p95: 2s }}, pools: [{pools}] }}"));
    }
    line("pools:".to_owned());
    for (pool, addresses) in backends {
        let PoolSpec { name, zone, replicas, max, capacity_rps, .. } = pool;
        let addresses = addresses.iter().map(|address| format!("\"{address}\""));
        line(format!("  - name: {name}"));
        line("    engine: vllm".to_owned());
        line(format!("    locality: {{ region: local, zone: {zone} }}"));
        line(format!("    capacity_rps: {capacity_rps:.1}"));
        line(format!(
            "    replicas: {{ min: {replicas}, max: {max}, cold_start: {COLD_START_SECONDS}s, scale_down_after: 2m }}"
        ));
        line("    gpu_metrics: same".to_owned());
        line(format!("    backends: [{}]", addresses.collect::<Vec<_>>().join(", ")));
    }
    line("signals:".to_owned());
    line("  webhooks:".to_owned());
    line(format!("    - {{ url: \"http://{}/hook\", secret_env: {SECRET_ENV} }}", options.webhook()));
    yaml
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        demo: DemoOptions,
    }

    #[test]
    fn clairvoy_understands_the_configuration() {
        let options = Flags::parse_from(["demo", "--postgres-bin", "/a \"b\": c"]).demo;
        let mut addresses = options.backends().into_iter();
        let backends: Vec<_> =
            POOLS.iter().map(|pool| (*pool, addresses.by_ref().take(pool.replicas).collect())).collect();
        let config = clairvoy::config::parse(&config_yaml(&options, &backends)).unwrap();
        assert_eq!(config.pools.iter().map(|pool| pool.backends.len()).sum::<usize>(), 6);
        assert_eq!(config.forecast.season.as_seconds(), 1440.0);
        assert_eq!(config.gateways[1].node_cluster.as_deref(), Some("edge-b"));
        assert_eq!(config.database.postgres_bin.unwrap().to_str(), Some("/a \"b\": c"));
    }

    #[test]
    fn the_ports_suffice_for_the_largest_pools() {
        assert_eq!(POOLS.iter().map(|pool| pool.max).sum::<usize>(), usize::from(MOST_BACKENDS));
    }

    #[test]
    fn demand_doubles_in_the_minute_after_the_anchor() {
        let at = |model, seconds| replay(model, 0).unwrap().rate_rps(seconds);
        let rates = MODELS.map(|model| (at(model, 0.0).round(), at(model, 60.0).round()));
        assert_eq!(rates, [(13.0, 25.0), (1.0, 5.0)]);
    }
}
