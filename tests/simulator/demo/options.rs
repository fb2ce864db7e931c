//! The flags of the demo.

use std::{net::SocketAddr, path::PathBuf};

use clap::Args;

use super::world::{self, MOST_BACKENDS};

/// Where the programs are, where state goes, and which ports are used.
#[derive(Debug, Clone, Args)]
pub struct DemoOptions {
    /// The clairvoy program [default: the one beside this program]
    #[arg(long, value_name = "PATH")]
    pub clairvoy: Option<PathBuf>,
    /// The Envoy program
    #[arg(long, value_name = "PATH", default_value = "envoy")]
    pub envoy: PathBuf,
    /// Folder with `postgres` and `initdb` [default: what clairvoy finds]
    #[arg(long, value_name = "DIR")]
    pub postgres_bin: Option<PathBuf>,
    /// Folder for the database, configuration and logs
    #[arg(long, value_name = "DIR", default_value = ".demo")]
    pub state_dir: PathBuf,
    /// Stop after so many seconds and check that everything happened; left out: run until Ctrl-C
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(55..=86_400))]
    pub seconds: Option<u64>,
    /// Seed of arrivals, request sizes and simulated servers
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Dashboard and API of Clairvoy
    #[arg(long, value_name = "PORT", default_value_t = 8080)]
    pub api_port: u16,
    /// xDS server of Clairvoy
    #[arg(long, value_name = "PORT", default_value_t = 18000)]
    pub xds_port: u16,
    /// Requests to the Envoy in zone-a
    #[arg(long, value_name = "PORT", default_value_t = 10000)]
    pub envoy_port_a: u16,
    /// Requests to the Envoy in zone-b
    #[arg(long, value_name = "PORT", default_value_t = 10001)]
    pub envoy_port_b: u16,
    /// Admin page of the Envoy in zone-a
    #[arg(long, value_name = "PORT", default_value_t = 9901)]
    pub admin_port_a: u16,
    /// Admin page of the Envoy in zone-b
    #[arg(long, value_name = "PORT", default_value_t = 9902)]
    pub admin_port_b: u16,
    /// First port of the simulated model servers; up to 15 ports from here are used
    #[arg(long, value_name = "PORT", default_value_t = 9001)]
    pub backend_port_base: u16,
    /// Webhooks to the simulated autoscaler
    #[arg(long, value_name = "PORT", default_value_t = 9900)]
    pub webhook_port: u16,
}

impl DemoOptions {
    pub(super) fn api(&self) -> SocketAddr {
        world::loopback(self.api_port)
    }

    pub(super) fn xds(&self) -> SocketAddr {
        world::loopback(self.xds_port)
    }

    pub(super) fn webhook(&self) -> SocketAddr {
        world::loopback(self.webhook_port)
    }

    /// The addresses that model servers may take, those of the first ones first.
    pub(super) fn backends(&self) -> Vec<SocketAddr> {
        let last = self.backend_port_base.saturating_add(MOST_BACKENDS - 1);
        (self.backend_port_base..=last).map(world::loopback).collect()
    }

    /// Every port that must be free, with its flag.
    pub(super) fn ports(&self) -> Vec<(&'static str, SocketAddr)> {
        let mut ports = vec![
            ("--api-port", self.api()),
            ("--xds-port", self.xds()),
            ("--envoy-port-a", world::loopback(self.envoy_port_a)),
            ("--envoy-port-b", world::loopback(self.envoy_port_b)),
            ("--admin-port-a", world::loopback(self.admin_port_a)),
            ("--admin-port-b", world::loopback(self.admin_port_b)),
            ("--webhook-port", self.webhook()),
        ];
        ports.extend(self.backends().into_iter().map(|address| ("--backend-port-base", address)));
        ports
    }
}
