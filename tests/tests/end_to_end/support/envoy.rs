use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use clairvoy::envoy::static_cluster;
use serde_json::Value;

use super::process::Process;
use super::programs::envoy_program;
use super::site::Site;
use super::{client, until};

/// A real Envoy. Keep it in the test that started it: it ends with the thread that did.
#[derive(Debug)]
pub(crate) struct Envoy {
    process: Process,
    gateway: SocketAddr,
    admin: SocketAddr,
}

/// A backend as Envoy sees it.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    /// Requests that it was ever sent.
    pub(crate) requests: u64,
    /// Requests that run.
    pub(crate) active: u64,
    /// Its weight among those of its locality.
    pub(crate) weight: u64,
    /// Its health, as told by Clairvoy.
    pub(crate) health: String,
}

/// Requests by the cluster that took them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Sent {
    pub(crate) predicted: u64,
    pub(crate) by_capacity: u64,
}

impl Envoy {
    /// Writes the bootstrap by `clairvoy bootstrap`, starts an Envoy with it and waits until its admin page answers.
    pub(crate) async fn launch(site: &Site, arguments: &[&str]) -> Self {
        Self::launch_with(site, &bootstrap(site, arguments)).await
    }

    /// Starts an Envoy with a bootstrap file, and waits until its admin page answers.
    pub(crate) async fn launch_with(site: &Site, bootstrap: &Path) -> Self {
        let mut command = Command::new(envoy_program());
        command
            .arg("-c")
            .arg(bootstrap)
            .args(["--disable-hot-restart", "--concurrency", "1", "--log-level", "warning"])
            .current_dir(site.path());
        let process = Process::spawn("envoy", &mut command, site.path().join("envoy.log"));
        let mut envoy = Self { process, gateway: site.gateway, admin: site.admin };
        until("Envoy is up", 60, async || {
            assert!(envoy.process.ended().is_none(), "Envoy has ended");
            let answer = client().get(format!("http://{}/server_info", envoy.admin)).send().await;
            answer.map(drop).map_err(|error| error.to_string())
        })
        .await;
        envoy
    }

    /// Waits until clients get answers.
    pub(crate) async fn wait_until_routing(&self) {
        until("Envoy routes", 60, async || {
            let answer = client().get(format!("http://{}/v1/models", self.gateway)).send().await;
            answer.and_then(reqwest::Response::error_for_status).map_err(|error| format!("{error:?}"))
        })
        .await;
    }

    pub(crate) fn log(&self) -> String {
        self.process.log()
    }

    /// A counter or gauge of its own.
    pub(crate) async fn stat(&self, name: &str) -> u64 {
        let page = self.admin(&format!("/stats?filter=^{}$&format=json", name.replace('.', "\\."))).await;
        page["stats"].as_array().unwrap().iter().find_map(|stat| stat["value"].as_u64()).unwrap_or(0)
    }

    /// The backends of a model that it knows, with the requests of both clusters together.
    pub(crate) async fn hosts(&self, model: &str) -> BTreeMap<SocketAddr, Host> {
        let mut all = BTreeMap::<SocketAddr, Host>::new();
        for cluster in [model.to_owned(), static_cluster(model)] {
            for (address, host) in self.hosts_of(&cluster).await {
                match all.get_mut(&address) {
                    Some(both) => {
                        both.requests += host.requests;
                        both.active += host.active;
                    }
                    None => _ = all.insert(address, host),
                }
            }
        }
        all
    }

    /// The backends of one cluster.
    pub(crate) async fn hosts_of(&self, cluster: &str) -> BTreeMap<SocketAddr, Host> {
        let page = self.admin("/clusters?format=json").await;
        let clusters = page["cluster_statuses"].as_array().cloned().unwrap_or_default();
        let Some(cluster) = clusters.iter().find(|found| found["name"] == cluster) else {
            return BTreeMap::new();
        };
        let hosts = cluster["host_statuses"].as_array().cloned().unwrap_or_default();
        hosts.iter().map(host).collect()
    }

    /// Requests that it sent by predictions, and by capacity, since it started.
    pub(crate) async fn sent(&self, model: &str) -> Sent {
        let total = |cluster: &str| format!("cluster.{cluster}.upstream_rq_total");
        let page = self.admin("/stats?filter=upstream_rq_total&format=json").await;
        let stats = page["stats"].as_array().cloned().unwrap_or_default();
        let value = |name: String| stats.iter().find(|stat| stat["name"] == name)?["value"].as_u64();
        Sent {
            predicted: value(total(model)).unwrap_or(0),
            by_capacity: value(total(&static_cluster(model))).unwrap_or(0),
        }
    }

    /// Percent of a model's requests that it sends by predictions.
    pub(crate) async fn predictive_percent(&self, model: &str) -> u64 {
        let page = self.admin("/runtime").await;
        let value = &page["entries"][format!("clairvoy.predictive.{model}")]["final_value"];
        value.as_str().unwrap_or("0").parse::<f64>().unwrap() as u64
    }

    /// Waits until it knows a backend in the wanted way.
    pub(crate) async fn host_where(
        &self,
        what: &str,
        model: &str,
        address: SocketAddr,
        wanted: impl Fn(Option<&Host>) -> bool,
    ) {
        until(what, 60, async || {
            let hosts = self.hosts(model).await;
            if wanted(hosts.get(&address)) { Ok(()) } else { Err(format!("{hosts:?}")) }
        })
        .await;
    }

    /// A page of its admin interface.
    pub(crate) async fn admin(&self, path: &str) -> Value {
        let answer = client().get(format!("http://{}{path}", self.admin)).send().await.unwrap();
        answer.json().await.unwrap()
    }
}

fn host(status: &Value) -> (SocketAddr, Host) {
    let socket = &status["address"]["socket_address"];
    let address =
        format!("{}:{}", socket["address"].as_str().unwrap(), socket["port_value"]).parse().unwrap();
    let stat = |name: &str| {
        let stats = status["stats"].as_array().unwrap();
        let value = stats.iter().find(|stat| stat["name"] == name).map(|stat| &stat["value"]);
        // Envoy writes 64-bit numbers as text, and leaves out zeros.
        value.and_then(|value| value.as_str().and_then(|text| text.parse().ok())).unwrap_or(0)
    };
    let health = status["health_status"]["eds_health_status"].as_str().unwrap_or_default().to_owned();
    let weight = status["weight"].as_u64().unwrap_or(1);
    (address, Host { requests: stat("rq_total"), active: stat("rq_active"), weight, health })
}

/// Writes a bootstrap by `clairvoy bootstrap`, and returns its file.
pub(crate) fn bootstrap(site: &Site, arguments: &[&str]) -> PathBuf {
    let (xds, admin) = (site.xds.to_string(), site.admin.to_string());
    let mut all = vec!["bootstrap", "--xds", &xds, "--admin", &admin];
    if !arguments.contains(&"--node-id") {
        all.extend(["--node-id", "envoy-a"]);
    }
    all.extend(arguments);
    let output = site.run(&all);
    assert!(output.status.success(), "{output:?}");
    let path = site.path().join("envoy.yaml");
    std::fs::write(&path, output.stdout).unwrap();
    path
}

/// Has Envoy check a bootstrap without running it.
pub(crate) fn validate(bootstrap: &Path) -> Output {
    let mut command = Command::new(envoy_program());
    command.args(["--mode", "validate", "--log-level", "warning", "-c"]).arg(bootstrap).output().unwrap()
}
