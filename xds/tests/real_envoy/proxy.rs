//! A real Envoy, and what its admin interface tells.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::http::Http;
use crate::served::{Subscription, Variant};
use crate::serving::eventually;

/// The runtime layer that each Envoy asks for.
pub(crate) const RUNTIME_LAYER: &str = "layer";

/// The cluster of the bootstrap that the server is in.
pub(crate) const XDS_CLUSTER: &str = "xds";

pub(crate) struct Envoy {
    process: Child,
    admin: u16,
    _directory: TempDir,
}

impl Drop for Envoy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Envoy {
    /// Starts one that gets everything from the server at `xds`, and waits for its admin interface.
    pub(crate) async fn start(xds: SocketAddr, subscription: Subscription) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str| directory.path().join(name);
        fs::write(file("bootstrap.json"), bootstrap(xds, subscription).to_string()).unwrap();
        let mut command = Command::new(program());
        command.arg("-c").arg(file("bootstrap.json")).arg("--admin-address-path").arg(file("admin"));
        command.args(["--use-dynamic-base-id", "--concurrency", "1"]);
        let log = File::create(file("log")).unwrap();
        let process = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let mut envoy = Self { process, admin: 0, _directory: directory };
        eventually("Envoy has an admin interface", async || {
            let address = fs::read_to_string(envoy._directory.path().join("admin")).unwrap_or_default();
            envoy.admin = address.rsplit(':').next().and_then(|port| port.parse().ok()).unwrap_or_default();
            envoy.admin != 0
        })
        .await;
        envoy
    }

    async fn tells(&self, path: &str) -> String {
        let (status, text) = Http::get_once(self.admin, path).await.expect("the admin interface answers");
        assert!(status == 200 || path == "/ready", "{path}: {status} {text}");
        text
    }

    async fn tells_json(&self, path: &str) -> Value {
        let text = self.tells(path).await;
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error} in {text:?}"))
    }

    /// Its start is over.
    pub(crate) async fn is_live(&self) -> bool {
        self.tells("/ready").await.trim() == "LIVE"
    }

    /// The port of its only listener, once it listens.
    pub(crate) async fn listener_port(&self) -> Option<u16> {
        let listeners = self.tells_json("/listeners?format=json").await;
        let port = listeners.pointer("/listener_statuses/0/local_address/socket_address/port_value")?;
        port.as_u64()?.try_into().ok()
    }

    /// Clusters from the server, as Envoy has them: those in use, or those that wait for their endpoints.
    async fn clusters(&self, which: &str) -> Vec<Value> {
        let dump = self.tells_json(&format!("/config_dump?resource=dynamic_{which}_clusters")).await;
        let configs = dump["configs"].as_array().cloned().unwrap_or_default();
        configs.into_iter().map(|config| config["cluster"].clone()).collect()
    }

    pub(crate) async fn active_clusters(&self) -> Vec<Value> {
        self.clusters("active").await
    }

    pub(crate) async fn warming_clusters(&self) -> Vec<Value> {
        self.clusters("warming").await
    }

    pub(crate) async fn has_cluster(&self, name: &str) -> bool {
        self.active_clusters().await.iter().any(|cluster| cluster["name"] == name)
    }

    /// The value of a runtime key; `None` if no layer has it.
    pub(crate) async fn runtime(&self, key: &str) -> Option<String> {
        let runtime = self.tells_json("/runtime").await;
        Some(runtime["entries"].get(key)?["final_value"].as_str()?.to_owned())
    }

    /// A counter or gauge; 0 while it does not exist.
    pub(crate) async fn stat(&self, name: &str) -> u64 {
        let text = self.tells(&format!("/stats?filter=^{name}$")).await;
        text.trim().rsplit(' ').next().and_then(|value| value.parse().ok()).unwrap_or_default()
    }
}

fn program() -> PathBuf {
    let fetched = || {
        let folders = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
        folders.map(|folder| folder.join(".tools/envoy/envoy/_bin/envoy")).find(|program| program.exists())
    };
    std::env::var_os("CLAIRVOY_ENVOY")
        .map(PathBuf::from)
        .or_else(fetched)
        .expect("this test needs Envoy: run `cargo xtask setup`, or set CLAIRVOY_ENVOY")
}

/// The `api_type` of Envoy's configuration.
fn api_type(variant: Variant) -> &'static str {
    match variant {
        Variant::Delta => "DELTA_GRPC",
        Variant::Sotw => "GRPC",
    }
}

fn bootstrap(xds: SocketAddr, subscription: Subscription) -> Value {
    let stream = json!({
        "api_type": api_type(subscription.variant),
        "transport_api_version": "V3",
        "grpc_services": [{"envoy_grpc": {
            "cluster_name": XDS_CLUSTER,
            "retry_policy": {"retry_back_off": {"base_interval": "0.1s", "max_interval": "0.3s"}},
        }}],
    });
    let source = if subscription.aggregated {
        json!({"ads": {}, "resource_api_version": "V3"})
    } else {
        json!({"api_config_source": stream, "resource_api_version": "V3"})
    };
    let mut dynamic = json!({"cds_config": source, "lds_config": source});
    if subscription.aggregated {
        dynamic["ads_config"] = stream;
    }
    let endpoint = json!({"address": {"socket_address": {
        "address": xds.ip().to_string(),
        "port_value": xds.port(),
    }}});
    json!({
        "node": {"id": "real", "cluster": "edge", "locality": {"region": "r", "zone": "z"}},
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
        "dynamic_resources": dynamic,
        "layered_runtime": {"layers": [
            {"name": RUNTIME_LAYER, "rtds_layer": {"name": RUNTIME_LAYER, "rtds_config": source}},
        ]},
        "static_resources": {"clusters": [{
            "name": XDS_CLUSTER,
            "type": "STATIC",
            "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            }},
            "load_assignment": {
                "cluster_name": XDS_CLUSTER,
                "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}],
            },
        }]},
    })
}
