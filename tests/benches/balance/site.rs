//! The processes of one run: servers, Envoys, Clairvoy. Everything is gone when it is dropped.

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use ::clairvoy::view::{BackendState, BackendView, State};
use clairvoy_tests::{Action, Child, Gpu, Machine};

use crate::clairvoy::{self, MODEL, Setup};
use crate::fleet::{Order, Ready};
use crate::policies::{Edge, Policy};
use crate::programs::{self, Programs};

/// Envoys of a run.
pub(crate) const ENVOYS: usize = 4;
/// Longest wait for a program to be ready.
const START_LIMIT: Duration = Duration::from_secs(90);
/// Time for an orderly end.
const STOP_LIMIT: Duration = Duration::from_secs(15);

/// What a run is made of.
#[derive(Debug)]
pub(crate) struct Cast<'a> {
    pub(crate) policy: Policy,
    pub(crate) machines: &'a [Machine],
    pub(crate) rps: [f64; Gpu::ALL.len()],
    pub(crate) has_zones: bool,
    pub(crate) speed: f64,
    pub(crate) seed: u64,
    pub(crate) closed: Vec<usize>,
}

/// The running processes.
#[derive(Debug)]
pub(crate) struct Site {
    folder: TempDir,
    client: reqwest::Client,
    /// In the order of their start.
    children: Vec<Child>,
    control: SocketAddr,
    /// Clairvoy's API, where it steers.
    api: Option<SocketAddr>,
    pub(crate) servers: Vec<SocketAddr>,
    pub(crate) gateways: Vec<SocketAddr>,
}

impl Site {
    /// Starts everything and waits until each Envoy answers. Call it from a thread that lasts, as the processes end with it.
    pub(crate) async fn start(programs: &Programs, cast: &Cast<'_>, client: reqwest::Client) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("clairvoy-balance-").tempdir()?;
        // The embedded Postgres of a root user runs as another one, and has to reach its data.
        fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755))?;
        let (fleet, ready) = start_fleet(folder.path(), cast).await?;
        let mut addresses = free_addresses(2 * ENVOYS + 2)?.into_iter();
        let gateways: Vec<SocketAddr> = addresses.by_ref().take(ENVOYS).collect();
        let admins: Vec<SocketAddr> = addresses.by_ref().take(ENVOYS).collect();
        let (Some(api), Some(xds)) = (addresses.next(), addresses.next()) else {
            anyhow::bail!("there are too few free ports");
        };
        let Ready { control, servers } = ready;
        let path = folder.path().to_owned();
        let setup = Setup {
            folder: &path,
            api,
            xds,
            gateways: &gateways,
            machines: cast.machines,
            servers: &servers,
            has_zones: cast.has_zones,
            may_refuse: cast.policy == Policy::PredictiveShedding,
            postgres_bin: programs.postgres_bin.clone(),
        };
        let mut site = Self {
            folder,
            client,
            children: vec![fleet],
            control,
            api: cast.policy.is_steered().then_some(api),
            servers: servers.clone(),
            gateways: gateways.clone(),
        };
        if cast.policy.is_steered() {
            site.start_clairvoy(programs, &setup).await?;
        }
        for (index, admin) in admins.into_iter().enumerate() {
            let edge = Edge {
                node: &clairvoy::node(index),
                listen: setup.gateways[index],
                admin,
                machines: cast.machines,
                servers: setup.servers,
                rps: cast.rps,
                has_zones: cast.has_zones,
            };
            let bootstrap = match cast.policy.bootstrap(&edge) {
                Some(bootstrap) => serde_json::to_vec_pretty(&bootstrap)?,
                None => clairvoy::bootstrap(&programs.clairvoy, &setup, index, admin)?,
            };
            site.start_envoy(programs, index, &bootstrap)?;
        }
        site.wait_until_serving().await?;
        Ok(site)
    }

    async fn start_clairvoy(&mut self, programs: &Programs, setup: &Setup<'_>) -> Result<()> {
        let config = self.folder.path().join("clairvoy.yaml");
        fs::write(&config, clairvoy::config(setup))?;
        let mut command = programs::clairvoy(&programs.clairvoy, self.folder.path());
        command.arg("serve").arg("--config").arg(config);
        let log = self.folder.path().join("clairvoy.log");
        self.children.push(Child::spawn("clairvoy", command, &log)?);
        let url = format!("http://{}/readyz", setup.api);
        self.wait_for("clairvoy is ready", async |client: &reqwest::Client| {
            client.get(&url).send().await.is_ok_and(|answer| answer.status().is_success())
        })
        .await
    }

    fn start_envoy(&mut self, programs: &Programs, index: usize, bootstrap: &[u8]) -> Result<()> {
        let name = clairvoy::node(index);
        // YAML reads JSON, too.
        let file = self.folder.path().join(format!("{name}.yaml"));
        fs::write(&file, bootstrap)?;
        let mut command = Command::new(&programs.envoy);
        command.arg("-c").arg(&file).args(["--concurrency", "1", "-l", "warn", "--disable-hot-restart"]);
        let log = self.folder.path().join(format!("{name}.log"));
        self.children.push(Child::spawn(&name, command, &log)?);
        Ok(())
    }

    async fn wait_until_serving(&mut self) -> Result<()> {
        for gateway in self.gateways.clone() {
            let body = json!({
                "model": MODEL,
                "max_tokens": 1,
                "messages": [{ "role": "user", "content": "Are you there?" }],
            });
            let url = format!("http://{gateway}/v1/chat/completions");
            self.wait_for(&format!("an answer through {gateway}"), async |client: &reqwest::Client| {
                client.post(&url).json(&body).send().await.is_ok_and(|answer| answer.status().is_success())
            })
            .await?;
        }
        Ok(())
    }

    async fn wait_for(&mut self, what: &str, ready: impl AsyncFn(&reqwest::Client) -> bool) -> Result<()> {
        let deadline = Instant::now() + START_LIMIT;
        while !ready(&self.client).await {
            self.check()?;
            ensure!(Instant::now() < deadline, "{what} did not happen within {START_LIMIT:?}");
            sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    /// Fails when one of the processes has ended.
    pub(crate) fn check(&mut self) -> Result<()> {
        self.children.iter_mut().try_for_each(Child::check)
    }

    /// Has something happen to a machine.
    pub(crate) async fn act(&self, machine: usize, action: Action) -> Result<()> {
        let path = match action {
            Action::Open => format!("open/{machine}"),
            Action::Slow(factor) => format!("slow/{machine}/{factor}"),
            Action::Die => format!("die/{machine}"),
        };
        let url = format!("http://{}/{path}", self.control);
        self.client.post(url).send().await?.error_for_status()?;
        Ok(())
    }

    /// True when Clairvoy steers.
    pub(crate) const fn is_steered(&self) -> bool {
        self.api.is_some()
    }

    /// The part of the requests that Clairvoy has told Envoys to give to each machine: an equal part of its group's. What it decided and
    /// did not publish does not count.
    pub(crate) async fn shares(&self) -> Result<Vec<f64>> {
        let api = self.api.context("nobody steers")?;
        let url = format!("http://{api}/api/v1/state");
        let state: State = self.client.get(url).send().await?.error_for_status()?.json().await?;
        let takes = |backend: &&BackendView| {
            matches!(backend.state, BackendState::Ready | BackendState::Stale | BackendState::Waiting)
        };
        let share = |server: &SocketAddr| {
            let address = server.to_string();
            let backend = state.backends.iter().filter(takes).find(|backend| backend.address == address)?;
            let members = state.backends.iter().filter(takes).filter(|other| other.group == backend.group);
            let group = state.models.first()?.shares.iter().find(|share| share.group == backend.group)?;
            Some(group.share / members.count() as f64)
        };
        Ok(self.servers.iter().map(|server| share(server).unwrap_or(0.0)).collect())
    }

    /// How late the engines of the servers woke up, real seconds.
    pub(crate) async fn servers_late_p99(&self) -> Result<f64> {
        let url = format!("http://{}/late", self.control);
        Ok(self.client.get(url).send().await?.error_for_status()?.json().await?)
    }

    /// Stops everything, Clairvoy and Envoys in order.
    pub(crate) async fn stop(mut self) {
        // The fleet has nothing to finish, and goes with the site.
        let mut rest = self.children.split_off(1);
        rest.iter().for_each(Child::terminate);
        let deadline = Instant::now() + STOP_LIMIT;
        for child in &mut rest {
            child.wait_or_kill(deadline).await;
        }
    }
}

async fn start_fleet(folder: &Path, cast: &Cast<'_>) -> Result<(Child, Ready)> {
    let (order, ready) = (folder.join("order.json"), folder.join("ready.json"));
    let wanted = Order {
        model: MODEL.to_owned(),
        machines: cast.machines.to_vec(),
        speed: cast.speed,
        seed: cast.seed,
        closed: cast.closed.clone(),
    };
    fs::write(&order, serde_json::to_vec(&wanted)?)?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("fleet").arg("--order").arg(&order).arg("--ready").arg(&ready);
    let mut child = Child::spawn("fleet", command, &folder.join("fleet.log"))?;
    let deadline = Instant::now() + START_LIMIT;
    while !ready.exists() {
        child.check()?;
        ensure!(Instant::now() < deadline, "the servers did not start within {START_LIMIT:?}");
        sleep(Duration::from_millis(20)).await;
    }
    let told = fs::read(&ready).context("cannot read where the servers are")?;
    Ok((child, serde_json::from_slice(&told)?))
}

/// Addresses on loopback that nobody listens on.
fn free_addresses(count: usize) -> Result<BTreeSet<SocketAddr>> {
    // All are held at once, so that no two are the same.
    let held: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).collect::<Result<_, _>>()?;
    Ok(held.iter().map(TcpListener::local_addr).collect::<Result<_, _>>()?)
}
