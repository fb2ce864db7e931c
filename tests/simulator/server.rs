//! A simulated model server: the engine in real time behind an OpenAI-style HTTP front.
//!
//! It serves `POST /v1/chat/completions`, `POST /v1/completions`, `GET /v1/models`, `GET /health` and
//! `GET /metrics` (vLLM's names, and DCGM's GPU gauge on the same page), and for those who steer an
//! experiment `POST /simulator/faults` and `GET /simulator/state`. It says that it is simulated in the
//! `Server` header, in `simulator_info` on the metrics page, in `/v1/models` and in the text it writes.
//!
//! Every answer names the server in `x-simulator-address`, so that a client behind a proxy knows who served it, and
//! carries an ORCA report when `endpoint-load-metrics-format` asks for one.
//!
//! The engine runs in virtual time that is tied to the clock: a task wakes when an iteration ends, but at most
//! every 20 ms, and hands over whatever was generated since. Where iterations are shorter, a chunk of a stream
//! carries several tokens; the times in the metrics are those of the single iterations all the same.

mod answer;
mod connections;
mod core;
mod faults;
mod histogram;
mod metrics;
mod openai;
mod orca;
mod page;
mod routes;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::engine::{Effects, EngineState, Profile, SpeedClass};

pub use self::faults::{Faults, InvalidFaults};

use self::core::Core;

/// What a simulated server is made of.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Address to listen on; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// Name of the one model that it serves.
    pub model: String,
    /// How fast it is.
    pub class: SpeedClass,
    /// Which effects are on.
    pub effects: Effects,
    /// Seed of noise, prefix-cache hits and injected errors.
    pub seed: u64,
    /// Cold start: connections are refused until this has passed.
    pub load_delay: Duration,
}

/// A running simulated server. Dropping it is the same as [`Self::kill`].
#[derive(Debug)]
pub struct SimulatedServer {
    address: SocketAddr,
    core: Arc<Core>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// A simulated server at one instant, as `GET /simulator/state` shows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ServerState {
    /// Always true.
    pub simulated: bool,
    /// Name of the model.
    pub model: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// How fast it is.
    pub class: SpeedClass,
    /// Which effects are on.
    pub effects: Effects,
    /// The seed.
    pub seed: u64,
    /// True until the cold start has passed.
    pub loading: bool,
    /// Queue, batch, cache and totals.
    pub engine: EngineState,
    /// GPU utilisation as the page shows it, 0 to 100.
    pub gpu_utilisation_percent: f64,
    /// The faults in force.
    pub faults: Faults,
    /// Whether the process keeps up with the clock.
    pub wake_ups: WakeUps,
}

/// How late the task that drives the engine woke up: what a busy machine adds to every time measured outside.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct WakeUps {
    /// Times that it slept.
    pub total: u64,
    /// 99th percentile of the lateness, seconds.
    pub late_p99_seconds: f64,
    /// The latest, seconds.
    pub late_max_seconds: f64,
}

impl SimulatedServer {
    /// Binds the address and starts the server; call it inside a Tokio runtime. The address is known at once,
    /// but the port opens only after [`ServerConfig::load_delay`].
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub fn start(config: ServerConfig) -> anyhow::Result<Self> {
        let profile = config.class.profile();
        Self::start_with_profile(config, profile)
    }

    /// As [`Self::start`], with another profile than that of the class.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub fn start_with_profile(config: ServerConfig, profile: Profile) -> anyhow::Result<Self> {
        let socket =
            connections::bind(config.listen).with_context(|| format!("binding {}", config.listen))?;
        let address = socket.local_addr().context("reading the bound address")?;
        let core = Arc::new(Core::new(&config, profile, address));
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let connections = connections::Connections::new(Arc::clone(&core), stop.clone());
        tasks.spawn(connections.serve(socket, config.load_delay));
        tasks.close();
        Ok(Self { address, core, stop, tasks })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends the cold start now; nothing happens when it has passed.
    pub fn open(&self) {
        self.core.open.notify_one();
    }

    /// Replaces the faults in force.
    ///
    /// # Errors
    /// When a value is out of range; nothing changes then.
    pub fn set_faults(&self, faults: Faults) -> Result<(), InvalidFaults> {
        self.core.set_faults(faults)
    }

    /// Queue, batch, cache, totals and faults as they are now.
    pub fn state(&self) -> ServerState {
        self.core.state()
    }

    /// Stops gracefully: the port closes, running answers finish (for at most 30 s), then it returns.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.closed().await;
    }

    /// Drops everything at once: the port closes and open connections are reset.
    pub fn kill(&self) {
        self.core.kill.cancel();
    }

    /// Returns when the server has ended, by [`Self::stop`], [`Self::kill`] or the fault [`Faults::die`].
    pub async fn closed(&self) {
        self.tasks.wait().await;
    }

    /// True after [`Self::kill`] or the fault [`Faults::die`].
    pub fn was_killed(&self) -> bool {
        self.core.kill.is_cancelled()
    }
}

impl Drop for SimulatedServer {
    fn drop(&mut self) {
        self.kill();
    }
}
