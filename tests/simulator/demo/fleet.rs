//! The simulated model servers of the demo.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context as _;
use futures::future::join_all;
use tokio::time::{Instant, sleep, timeout};

use crate::autoscaler::Launcher;
use crate::{Effects, Faults, ServerConfig, SimulatedServer};

use super::world::{LOAD_DELAY, POOLS, PoolSpec};

/// Longest wait for a new server to be healthy.
const HEALTH_DEADLINE: Duration = Duration::from_secs(60);

/// Longest wait for the streams of a server to finish when everything stops.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// Simulated servers by address.
pub(super) struct Fleet {
    addresses: Vec<SocketAddr>,
    seed: u64,
    client: reqwest::Client,
    running: Mutex<BTreeMap<SocketAddr, Running>>,
}

#[derive(Clone)]
struct Running {
    model: &'static str,
    server: Arc<SimulatedServer>,
}

impl Fleet {
    /// A fleet that may use `addresses`, with no server yet.
    pub(super) fn new(addresses: Vec<SocketAddr>, seed: u64, client: reqwest::Client) -> Self {
        Self { addresses, seed, client, running: Mutex::default() }
    }

    /// Starts the first servers of every pool, loaded at once; returns their addresses by pool.
    pub(super) fn start_first(&self) -> anyhow::Result<Vec<(PoolSpec, Vec<SocketAddr>)>> {
        POOLS
            .iter()
            .map(|pool| {
                let servers = (0..pool.replicas).map(|_| self.start(pool, Duration::ZERO));
                Ok((*pool, servers.collect::<anyhow::Result<Vec<_>>>()?))
            })
            .collect()
    }

    /// Makes a server slower by `factor`; 1 heals it.
    pub(super) fn slow(&self, address: SocketAddr, factor: f64) -> anyhow::Result<()> {
        let server = self.find(address).with_context(|| format!("no server at {address}"))?;
        server.set_faults(Faults { slow_factor: factor, ..Faults::default() })?;
        Ok(())
    }

    /// Requests that the servers of `model` took so far, by address.
    pub(super) fn taken(&self, model: &str) -> HashMap<SocketAddr, u64> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let of_model = running.into_iter().filter(|(_, one)| one.model == model);
        of_model.map(|(address, one)| (address, one.server.state().engine.totals.submitted)).collect()
    }

    /// Stops all servers.
    pub(super) async fn stop_all(&self) {
        let running = std::mem::take(&mut *self.running.lock().unwrap_or_else(PoisonError::into_inner));
        join_all(running.into_values().map(|one| async move {
            if timeout(STOP_GRACE, one.server.stop()).await.is_err() {
                one.server.kill();
                one.server.closed().await;
            }
        }))
        .await;
    }

    /// Starts a server on the first address that is free.
    fn start(&self, pool: &PoolSpec, load_delay: Duration) -> anyhow::Result<SocketAddr> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let mut refused = None;
        for (index, address) in self.addresses.iter().enumerate() {
            if running.contains_key(address) {
                continue;
            }
            let config = ServerConfig {
                listen: *address,
                model: pool.model.to_owned(),
                class: pool.class,
                effects: Effects::all(),
                seed: self.seed.wrapping_add(index as u64),
                load_delay,
            };
            match SimulatedServer::start(config) {
                Ok(server) => {
                    running.insert(*address, Running { model: pool.model, server: Arc::new(server) });
                    return Ok(*address);
                }
                Err(error) => refused = Some(error),
            }
        }
        let none_left = || anyhow::anyhow!("every port of the simulated servers is in use");
        Err(refused.unwrap_or_else(none_left))
            .with_context(|| format!("cannot start a server for {}", pool.name))
    }

    fn find(&self, address: SocketAddr) -> Option<Arc<SimulatedServer>> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.get(&address).map(|one| Arc::clone(&one.server))
    }

    fn forget(&self, address: SocketAddr) -> Option<Arc<SimulatedServer>> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.remove(&address).map(|one| one.server)
    }

    async fn is_healthy(&self, address: SocketAddr) -> bool {
        let answer = self.client.get(format!("http://{address}/health")).send().await;
        answer.is_ok_and(|response| response.status().is_success())
    }
}

impl Launcher for Fleet {
    async fn launch(&self, pool: &str) -> anyhow::Result<SocketAddr> {
        let spec = POOLS.iter().find(|spec| spec.name == pool).with_context(|| format!("no pool {pool}"))?;
        let address = self.start(spec, LOAD_DELAY)?;
        let deadline = Instant::now() + HEALTH_DEADLINE;
        while !self.is_healthy(address).await {
            if Instant::now() > deadline {
                self.stop(address).await;
                anyhow::bail!("the new server at {address} is not healthy after {HEALTH_DEADLINE:?}");
            }
            sleep(Duration::from_millis(100)).await;
        }
        Ok(address)
    }

    async fn is_idle(&self, backend: SocketAddr) -> bool {
        self.find(backend).is_none_or(|server| {
            let engine = server.state().engine;
            engine.running == 0 && engine.waiting == 0
        })
    }

    async fn stop(&self, backend: SocketAddr) {
        if let Some(server) = self.forget(backend) {
            server.stop().await;
        }
    }
}
