//! The role `fleet`: all simulated servers in one process, and a port to do things to them.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use axum::extract::{Path as UrlPath, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use clairvoy_tests::{Effects, Faults, Machine, ServerConfig, SimulatedServer, SpeedClass, profile};

/// Longer than any cell: it ends when the plan says so.
const CLOSED: Duration = Duration::from_secs(86_400);

/// Runs the servers until the process is killed.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What to start
    #[arg(long)]
    order: PathBuf,
    /// Where the addresses are written when all servers run
    #[arg(long)]
    ready: PathBuf,
}

/// What is to be started.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) model: String,
    pub(crate) machines: Vec<Machine>,
    pub(crate) speed: f64,
    pub(crate) seed: u64,
    /// Machines whose port stays closed at first.
    pub(crate) closed: Vec<usize>,
}

/// Where it runs.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Ready {
    /// Takes `POST /open/N`, `/slow/N/FACTOR`, `/die/N` and `GET /late`.
    pub(crate) control: SocketAddr,
    pub(crate) servers: Vec<SocketAddr>,
}

type Servers = Arc<Vec<SimulatedServer>>;

pub(crate) fn run(args: &Args) -> Result<()> {
    let order: Order = serde_json::from_slice(&fs::read(&args.order)?)
        .with_context(|| format!("cannot read {}", args.order.display()))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(serve(order, &args.ready))
}

async fn serve(order: Order, ready: &Path) -> Result<()> {
    let mut servers = Vec::with_capacity(order.machines.len());
    for (index, machine) in order.machines.iter().enumerate() {
        let config = ServerConfig {
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            model: order.model.clone(),
            // Only what it says of itself: its engine is that of the machine.
            class: SpeedClass::ALL[machine.class as usize],
            effects: Effects::all(),
            seed: order.seed.wrapping_mul(1000).wrapping_add(index as u64),
            load_delay: if order.closed.contains(&index) { CLOSED } else { Duration::ZERO },
        };
        let profile = profile(machine.class, order.speed);
        servers.push(SimulatedServer::start_with_profile(config, profile)?);
    }
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let addresses = servers.iter().map(SimulatedServer::address).collect();
    let told = Ready { control: listener.local_addr()?, servers: addresses };
    let part = ready.with_extension("part");
    fs::write(&part, serde_json::to_vec(&told)?)?;
    fs::rename(&part, ready)?;
    let router = Router::new()
        .route("/open/{index}", post(open))
        .route("/slow/{index}/{factor}", post(slow))
        .route("/die/{index}", post(die))
        .route("/late", get(late))
        .with_state(Arc::new(servers));
    axum::serve(listener, router).await?;
    Ok(())
}

async fn open(State(servers): State<Servers>, UrlPath(index): UrlPath<usize>) -> StatusCode {
    let Some(server) = servers.get(index) else { return StatusCode::NOT_FOUND };
    server.open();
    StatusCode::OK
}

async fn slow(State(servers): State<Servers>, UrlPath((index, factor)): UrlPath<(usize, f64)>) -> StatusCode {
    let Some(server) = servers.get(index) else { return StatusCode::NOT_FOUND };
    match server.set_faults(Faults { slow_factor: factor, ..Faults::default() }) {
        Ok(()) => StatusCode::OK,
        Err(_) => StatusCode::BAD_REQUEST,
    }
}

async fn die(State(servers): State<Servers>, UrlPath(index): UrlPath<usize>) -> StatusCode {
    let Some(server) = servers.get(index) else { return StatusCode::NOT_FOUND };
    server.kill();
    StatusCode::OK
}

/// The 99th percentile of how late an engine woke up, of the worst server, in seconds.
async fn late(State(servers): State<Servers>) -> Json<f64> {
    Json(servers.iter().map(|server| server.state().wake_ups.late_p99_seconds).fold(0.0, f64::max))
}
