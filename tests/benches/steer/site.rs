//! The processes of a run: Clairvoy with its own Postgres, and an Envoy. Everything is gone when it is dropped.

use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use sqlx::Connection as _;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use clairvoy_tests::{Child, loopback_client};

use crate::backends::Backend;
use crate::programs::{Programs, clairvoy};

/// The name of the model that everything serves.
pub(crate) const MODEL: &str = "chat";
/// Longest wait for a program to be ready.
const START_LIMIT: Duration = Duration::from_secs(90);
/// Time for an orderly end.
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// The running processes.
#[derive(Debug)]
pub(crate) struct Site {
    folder: TempDir,
    client: reqwest::Client,
    api: SocketAddr,
    children: Vec<Child>,
}

impl Site {
    /// Starts everything, and waits until Envoy has its first state. Call it from a thread that lasts, as the processes end
    /// with it.
    pub(crate) async fn start(programs: &Programs, backends: &[Arc<Backend>], pools: usize) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("clairvoy-steer-").tempdir()?;
        // The embedded Postgres of a root user runs as another one, and has to reach its data.
        fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755))?;
        let [api, xds, gateway, admin] = free_addresses()?;
        let config = folder.path().join("clairvoy.yaml");
        let mut text = format!(
            "data_dir: {}\nlisten: {{ api: {api}, xds: {xds} }}\ntelemetry: {{ interval: 1s }}\n",
            serde_json::json!(folder.path().join("state"))
        );
        if let Some(bin) = &programs.postgres_bin {
            writeln!(text, "database: {{ postgres_bin: {} }}", serde_json::json!(bin))?;
        }
        writeln!(text, "gateways: [{{ name: edge, listen: {gateway} }}]")?;
        text += &models(backends, pools)?;
        fs::write(&config, text)?;
        let client = loopback_client(Duration::from_secs(10))?;
        let mut site = Self { folder, client, api, children: Vec::new() };

        let mut serve = clairvoy(&programs.clairvoy, site.folder.path());
        serve.arg("serve").arg("--config").arg(&config);
        site.spawn("clairvoy", serve)?;
        site.wait_for("clairvoy is ready", "/readyz", |_| true).await?;
        let output = clairvoy(&programs.clairvoy, site.folder.path())
            .args(["bootstrap", "--node-id", "edge-0", "--node-cluster", "edge"])
            .args(["--xds", &xds.to_string(), "--admin", &admin.to_string()])
            .output()
            .context("cannot run clairvoy bootstrap")?;
        let message = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "clairvoy bootstrap failed: {}", message.trim());
        let bootstrap = site.folder.path().join("envoy.yaml");
        fs::write(&bootstrap, &output.stdout)?;
        let mut envoy = Command::new(&programs.envoy);
        envoy.arg("-c").arg(&bootstrap).args(["--concurrency", "1", "-l", "warn", "--disable-hot-restart"]);
        site.spawn("envoy", envoy)?;
        let in_sync = |page: &str| page.contains("clairvoy_proxies{state=\"in_sync\"} 1");
        site.wait_for("Envoy is in sync", "/metrics", in_sync).await?;
        Ok(site)
    }

    fn spawn(&mut self, name: &str, command: Command) -> Result<()> {
        let log = self.folder.path().join(format!("{name}.log"));
        self.children.push(Child::spawn(name, command, &log)?);
        Ok(())
    }

    async fn wait_for(&mut self, what: &str, path: &str, ready: impl Fn(&str) -> bool) -> Result<()> {
        let url = format!("http://{}{path}", self.api);
        let deadline = Instant::now() + START_LIMIT;
        loop {
            if let Ok(answer) = self.client.get(&url).send().await
                && answer.status().is_success()
                && ready(&answer.text().await.unwrap_or_default())
            {
                return Ok(());
            }
            self.check()?;
            ensure!(Instant::now() < deadline, "{what}: not within {START_LIMIT:?}");
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Fails when one of the processes has ended.
    pub(crate) fn check(&mut self) -> Result<()> {
        self.children.iter_mut().try_for_each(Child::check)
    }

    /// A connection to the Postgres of Clairvoy.
    pub(crate) async fn database(&self) -> Result<PgConnection> {
        let options = PgConnectOptions::new_without_pgpass()
            .socket(self.folder.path().join("state/postgres/run"))
            .username("postgres")
            .database("clairvoy");
        PgConnection::connect_with(&options).await.context("cannot read what was decided")
    }

    /// Stops everything in order.
    pub(crate) async fn stop(mut self) {
        self.children.iter().for_each(Child::terminate);
        let deadline = Instant::now() + STOP_LIMIT;
        for child in &mut self.children {
            child.wait_or_kill(deadline).await;
        }
    }
}

/// The model, and its pools of equal size.
fn models(backends: &[Arc<Backend>], pools: usize) -> Result<String> {
    let names: Vec<String> = (0..pools).map(|pool| format!("pool-{pool}")).collect();
    let mut text = format!("models: [{{ name: {MODEL}, pools: [{}] }}]\npools:\n", names.join(", "));
    for (pool, name) in names.iter().enumerate() {
        let of_pool = backends.iter().enumerate().filter(|(number, _)| number % pools == pool);
        let addresses: Vec<String> = of_pool.map(|(_, backend)| format!("\"{}\"", backend.address)).collect();
        writeln!(text, "  - {{ name: {name}, engine: vllm, backends: [{}] }}", addresses.join(", "))?;
    }
    Ok(text)
}

/// Addresses on loopback that nobody listens on.
fn free_addresses<const N: usize>() -> Result<[SocketAddr; N]> {
    // All are held at once, so that no two are the same.
    let held: Vec<TcpListener> =
        (0..N).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).collect::<Result<_, _>>()?;
    let addresses: Vec<SocketAddr> = held.iter().map(TcpListener::local_addr).collect::<Result<_, _>>()?;
    addresses.try_into().ok().context("there are too few free ports")
}
