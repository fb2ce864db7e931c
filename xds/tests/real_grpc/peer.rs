//! The client process: `peers/grpc_peer.py`, driven by lines of JSON.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time;

use crate::serving::{PATIENCE, eventually};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/grpc_peer.py");

/// The limit of a call. A client takes a name that it has never had for absent after 15 s only, whatever it is
/// answered: no test waits for that.
const CALL_SECONDS: u64 = 3;

/// Ports of servers by name.
pub(crate) type Ports = BTreeMap<String, u16>;

/// Killed when dropped.
pub(crate) struct Peer {
    _process: Child,
    orders: ChildStdin,
    replies: Lines<BufReader<ChildStdout>>,
}

/// The outcome of one call.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) answer: Option<String>,
    pub(crate) error: Option<String>,
    pub(crate) seconds: f64,
}

impl Peer {
    pub(crate) fn start(xds: SocketAddr) -> Self {
        let bootstrap = json!({
            "xds_servers": [{
                "server_uri": xds.to_string(),
                "channel_creds": [{"type": "insecure"}],
                "server_features": ["xds_v3"],
            }],
            "node": {"id": "grpc", "cluster": "edge"},
        });
        let mut command = Command::new("python3");
        command.arg(SCRIPT).env("PYTHONPATH", grpcio()).env("PYTHONDONTWRITEBYTECODE", "1");
        command.env("GRPC_XDS_BOOTSTRAP_CONFIG", bootstrap.to_string());
        command.env("GRPC_VERBOSITY", "NONE").kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().expect("python3 is on the path");
        let orders = process.stdin.take().unwrap();
        let replies = BufReader::new(process.stdout.take().unwrap()).lines();
        Self { _process: process, orders, replies }
    }

    async fn ask(&mut self, order: Value) -> Value {
        let exchange = async {
            self.orders.write_all(format!("{order}\n").as_bytes()).await?;
            self.replies.next_line().await
        };
        let limit = PATIENCE + time::Duration::from_secs(CALL_SECONDS);
        let reply = time::timeout(limit, exchange).await.expect("the client answers").unwrap();
        serde_json::from_str(&reply.expect("the client goes on")).unwrap()
    }

    /// Starts servers that answer with their names.
    pub(crate) async fn serve(&mut self, names: &[&str]) -> Ports {
        let reply = self.ask(json!({"do": "serve", "names": names})).await;
        serde_json::from_value(reply["ports"].clone()).unwrap()
    }

    /// Calls once, over a new channel.
    pub(crate) async fn call(&mut self, target: &str) -> Call {
        let reply = self.ask(json!({"do": "call", "target": target, "seconds": CALL_SECONDS})).await;
        let text = |name: &str| reply[name].as_str().map(str::to_owned);
        Call { answer: text("answer"), error: text("error"), seconds: reply["seconds"].as_f64().unwrap() }
    }
}

fn grpcio() -> PathBuf {
    let module = |folder: &Path| folder.join("grpc/__init__.py").exists();
    let fetched = || {
        let folders = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
        folders.map(|folder| folder.join(".tools/grpcio")).find(|folder| module(folder))
    };
    std::env::var_os("CLAIRVOY_GRPCIO")
        .map(PathBuf::from)
        .or_else(fetched)
        .expect("this test needs gRPC for Python: run `cargo xtask setup`, or set CLAIRVOY_GRPCIO")
}

/// What has come back.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    answers: BTreeMap<String, u64>,
    failed: u64,
    failures: Vec<String>,
}

impl Tally {
    fn add(&mut self, report: &Value) {
        for (name, count) in report["answers"].as_object().unwrap() {
            *self.answers.entry(name.clone()).or_default() += count.as_u64().unwrap();
        }
        self.failed += report["failed"].as_u64().unwrap();
        let failures = report["failures"].as_array().unwrap();
        self.failures.extend(failures.iter().map(Value::to_string));
    }

    fn calls(&self) -> u64 {
        self.answers.values().sum::<u64>() + self.failed
    }

    /// The part of all calls that this server has answered.
    pub(crate) fn share(&self, name: &str) -> f64 {
        self.answers.get(name).copied().unwrap_or_default() as f64 / self.calls() as f64
    }

    /// Fails if a call failed, or if there were too few to tell.
    pub(crate) fn is_clean(&self) {
        assert_eq!(self.failed, 0, "of {} calls: {:?}", self.calls(), self.failures);
        assert!(self.calls() > 20, "only {} calls", self.calls());
        println!("{} calls", self.calls());
    }
}

/// Calls without pause while a test changes things.
pub(crate) struct Load<'a> {
    peer: &'a mut Peer,
    tally: Tally,
}

impl<'a> Load<'a> {
    pub(crate) async fn start(peer: &'a mut Peer, target: &str) -> Self {
        peer.ask(json!({"do": "load", "target": target})).await;
        Self { peer, tally: Tally::default() }
    }

    /// Adds the calls since the last report, and returns those that this server answered.
    async fn report(&mut self, name: &str) -> u64 {
        let report = self.peer.ask(json!({"do": "report"})).await;
        self.tally.add(&report);
        report["answers"][name].as_u64().unwrap_or_default()
    }

    /// Waits for answers of this server to calls from now on.
    pub(crate) async fn reaches(&mut self, name: &str) {
        // Calls that were under way are in the first report.
        self.report(name).await;
        eventually(&format!("calls reach {name}"), async || self.report(name).await > 0).await;
    }

    /// Waits until there were this many calls.
    pub(crate) async fn lasts(&mut self, calls: u64) {
        eventually("the load goes on", async || {
            self.report("").await;
            self.tally.calls() >= calls
        })
        .await;
    }

    /// Waits for a call that fails as it should, and returns why; failures until then do not count.
    pub(crate) async fn fails(&mut self) -> String {
        let mut failure = None;
        eventually("calls fail", async || {
            let report = self.peer.ask(json!({"do": "report"})).await;
            failure = report["failures"][0].as_str().map(str::to_owned);
            failure.is_some()
        })
        .await;
        failure.unwrap()
    }

    /// Stops, and tells what came back.
    pub(crate) async fn finish(self) -> Tally {
        let Self { peer, mut tally } = self;
        tally.add(&peer.ask(json!({"do": "finish"})).await);
        tally
    }
}
