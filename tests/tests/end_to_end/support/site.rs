use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::Range;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::process::processes_in;
use super::programs::{clairvoy_program, postgres_bin};
use super::{Clairvoy, Envoy};

/// Ports that were handed out to a test of this process, so that no two get the same.
static HANDED_OUT: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// Ports that Linux, unless told otherwise, gives to nobody by itself: any other may become that of a connection before it is listened on.
const PORTS: Range<u16> = 10_000..32_768;

/// An address on loopback that nobody listens on.
pub(crate) fn free_address() -> SocketAddr {
    let mut handed_out = HANDED_OUT.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, rand::random_range(PORTS)));
        if TcpListener::bind(address).is_ok() && handed_out.insert(address.port()) {
            return address;
        }
    }
}

/// One installation: its folder, its addresses, its configuration file. Declare it before the programs that run on it.
#[derive(Debug)]
pub(crate) struct Site {
    dir: TempDir,
    pub(crate) api: SocketAddr,
    pub(crate) xds: SocketAddr,
    /// Where Envoy takes clients.
    pub(crate) gateway: SocketAddr,
    pub(crate) admin: SocketAddr,
    /// More keys of `listen`.
    pub(crate) listen_keys: &'static str,
    /// More keys of the gateway.
    pub(crate) gateway_keys: &'static str,
    /// Other than the embedded Postgres.
    pub(crate) database_url: Option<String>,
    environment: Vec<(String, String)>,
}

impl Site {
    pub(crate) fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("clairvoy-").tempdir().unwrap();
        // The embedded Postgres of a root user runs as another one, and has to reach its data.
        fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
        Self {
            dir,
            api: free_address(),
            xds: free_address(),
            gateway: free_address(),
            admin: free_address(),
            listen_keys: "",
            gateway_keys: "",
            database_url: None,
            environment: Vec::new(),
        }
    }

    /// Sets a variable of the programs' environment.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Where Clairvoy keeps its state.
    pub(super) fn state_dir(&self) -> PathBuf {
        self.path().join("state")
    }

    pub(crate) fn config_file(&self) -> PathBuf {
        self.path().join("clairvoy.yaml")
    }

    /// Writes the configuration: what every site needs, and `rest`.
    pub(crate) fn configure(&self, rest: &str) {
        let Self { api, xds, gateway, listen_keys, gateway_keys, .. } = self;
        let mut text = format!("data_dir: {}\n", self.state_dir().display());
        match (&self.database_url, postgres_bin()) {
            (Some(url), _) => writeln!(text, "database: {{ url: \"{url}\" }}").unwrap(),
            (None, Some(bin)) => writeln!(text, "database: {{ postgres_bin: {} }}", bin.display()).unwrap(),
            (None, None) => {}
        }
        writeln!(text, "listen: {{ api: {api}, xds: {xds}, {listen_keys} }}").unwrap();
        writeln!(text, "gateways:\n  - {{ name: edge, listen: {gateway}, {gateway_keys} }}").unwrap();
        text.push_str(rest);
        self.write(&text);
    }

    /// Replaces the configuration file by another, as editors do: at once.
    pub(crate) fn write(&self, text: &str) {
        let part = self.path().join("clairvoy.yaml.part");
        fs::write(&part, text).unwrap();
        fs::rename(&part, self.config_file()).unwrap();
    }

    /// A command of the program, without the settings of the one who runs the tests.
    pub(super) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(clairvoy_program());
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            if name.starts_with("CLAIRVOY_") || name == "DATABASE_URL" || name == "RUST_LOG" {
                command.env_remove(name);
            }
        }
        command.args(arguments).current_dir(self.path());
        // Whatever the configuration says or leaves out, nothing is written elsewhere.
        command.env("CLAIRVOY_DATA_DIR", self.state_dir());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs a command of the program to its end, which has to come within half a minute.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        let mut command = self.command(arguments);
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // A pipe that nobody reads stops who writes more than it holds.
        let (stdout, stderr) = (read_all(child.stdout.take()), read_all(child.stderr.take()));
        let deadline = Instant::now() + Duration::from_secs(30);
        let (status, ended) = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break (status, true);
            }
            if Instant::now() >= deadline {
                child.kill().unwrap();
                break (child.wait().unwrap(), false);
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        let output = Output { status, stdout: stdout.join().unwrap(), stderr: stderr.join().unwrap() };
        assert!(ended, "`clairvoy {}` does not end: {output:?}", arguments.join(" "));
        output
    }

    /// Starts `clairvoy serve`, and waits until it is ready.
    pub(crate) async fn serve(&self) -> Clairvoy {
        let mut clairvoy = self.launch();
        clairvoy.wait_until_ready().await;
        clairvoy
    }

    /// Starts `clairvoy serve`.
    pub(crate) fn launch(&self) -> Clairvoy {
        Clairvoy::launch(self)
    }

    /// Starts an Envoy with the bootstrap that Clairvoy makes, and waits until it has its first state.
    pub(crate) async fn envoy(&self) -> Envoy {
        let envoy = Envoy::launch(self, &[]).await;
        envoy.wait_until_routing().await;
        envoy
    }
}

/// Reads a pipe to its end.
fn read_all(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.unwrap().read_to_end(&mut bytes).unwrap();
        bytes
    })
}

impl Drop for Site {
    fn drop(&mut self) {
        // A Postgres whose Clairvoy was killed ends a moment later, and until then writes into the folder.
        let deadline = Instant::now() + Duration::from_secs(10);
        while !processes_in(self.path()).is_empty() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
