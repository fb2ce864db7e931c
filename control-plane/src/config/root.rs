use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::OnceLock;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    AccessLog, Balance, Database, Forecast, Gateway, Listen, LoadReports, Model, Pool, Push, Signals, Span,
    Spool, Zones,
};

/// The whole configuration file of Clairvoy.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where the private Postgres keeps its data, and telemetry waits for a database that is away. Default: `/var/lib/clairvoy` as root, else the user's state folder.
    pub data_dir: Option<PathBuf>,
    /// The database.
    pub database: Database,
    /// Own addresses.
    pub listen: Listen,
    /// Listeners that the Envoys open. Default: one named `edge` on `127.0.0.1:10000`.
    pub gateways: Vec<Gateway>,
    /// How telemetry of the backends comes in.
    pub telemetry: Telemetry,
    /// How demand is forecast.
    pub forecast: Forecast,
    /// How traffic is shared out.
    pub balance: Balance,
    /// How far apart zones are.
    pub zones: Zones,
    /// The models.
    pub models: Vec<Model>,
    /// The pools of backends that serve them.
    pub pools: Vec<Pool>,
    /// Who is told about replica plans.
    pub signals: Signals,
    #[serde(skip)]
    pub(crate) places: Places,
}

/// Where each pool stands in the list, worked out when it is first asked for: decisions ask for pools by name all the time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Places(OnceLock<HashMap<String, usize>>);

/// How telemetry of the backends comes in.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Telemetry {
    /// Time between two scrapes of one backend (default 1 s, at most 5 s: older telemetry is not trusted).
    pub interval: Span,
    /// Longest wait for a metrics page (default 900 ms).
    pub deadline: Span,
    /// Largest metrics page in bytes; more is cut off and counted (default 4 MiB).
    pub max_page_bytes: usize,
    /// Most rows that wait in memory for the database; from half of it on they go to the spool. Without one the oldest are dropped beyond it (default 100 000).
    pub queue_rows: usize,
    /// Telemetry on disk while the database is away.
    pub spool: Spool,
    /// Telemetry that senders push.
    pub push: Push,
    /// What Envoys log of each request, to Clairvoy.
    pub access_log: AccessLog,
    /// What Envoys report of their load.
    pub load_reports: LoadReports,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self {
            interval: Span::seconds(1),
            deadline: Span(std::time::Duration::from_millis(900)),
            max_page_bytes: 4 * 1024 * 1024,
            queue_rows: 100_000,
            spool: Spool::default(),
            push: Push::default(),
            access_log: AccessLog::default(),
            load_reports: LoadReports::default(),
        }
    }
}

impl Config {
    /// The gateways, with the default one if the file names none.
    pub fn gateways(&self) -> Vec<Gateway> {
        if self.gateways.is_empty() { vec![Gateway::default()] } else { self.gateways.clone() }
    }

    /// The folder for state: `data_dir`, or the default for the user who runs the process.
    pub fn data_dir(&self) -> PathBuf {
        if let Some(folder) = &self.data_dir {
            return folder.clone();
        }
        if rustix::process::geteuid().is_root() {
            return PathBuf::from("/var/lib/clairvoy");
        }
        let home = std::env::var_os("HOME").map_or_else(std::env::temp_dir, PathBuf::from);
        std::env::var_os("XDG_STATE_HOME")
            .map_or_else(|| home.join(".local/state"), PathBuf::from)
            .join("clairvoy")
    }

    /// The folder of the spool; none when it is turned off.
    pub fn spool_dir(&self) -> Option<PathBuf> {
        let spool = &self.telemetry.spool;
        (spool.bytes.0 > 0).then(|| spool.dir.clone().unwrap_or_else(|| self.data_dir().join("spool")))
    }

    /// The pool of a given name.
    pub fn pool(&self, name: &str) -> Option<&Pool> {
        let listed = || self.pools.iter().enumerate().rev().map(|(place, pool)| (pool.name.clone(), place));
        let places = self.places.0.get_or_init(|| listed().collect());
        let placed = places.get(name).and_then(|place| self.pools.get(*place));
        // The list may have been changed since.
        placed.filter(|pool| pool.name == name).or_else(|| self.pools.iter().find(|pool| pool.name == name))
    }
}

/// The JSON Schema of the configuration file.
pub fn schema() -> schemars::Schema {
    schemars::schema_for!(Config)
}
