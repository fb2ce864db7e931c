use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use garde::Validate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{PoolToken, RetentionPeriods};

/// Where Clairvoy listens. Addresses beyond loopback need a token.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields, default)]
#[garde(allow_unvalidated)]
pub struct Listen {
    /// Dashboard, REST API, metrics and health (default `127.0.0.1:8080`).
    pub api: SocketAddr,
    /// The discovery server that Envoys connect to (default `127.0.0.1:18000`).
    pub xds: SocketAddr,
    /// Environment variable that holds the bearer token which the API and the discovery server ask for.
    /// Needed as soon as one of the addresses is not loopback.
    pub token_env: Option<String>,
    /// More tokens, with which backends of some pools can be listed, registered, drained and removed, and nothing else.
    pub tokens: Vec<PoolToken>,
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            api: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            xds: SocketAddr::from((Ipv4Addr::LOCALHOST, 18000)),
            token_env: None,
            tokens: Vec::new(),
        }
    }
}

/// The Postgres that keeps telemetry, models and decisions.
#[derive(Clone, Default, Deserialize, Serialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields, default)]
#[garde(allow_unvalidated)]
pub struct Database {
    /// `postgres://user@host/database`. Left out (and no `DATABASE_URL` set): a private Postgres in `data_dir`.
    #[serde(skip_serializing)]
    pub url: Option<String>,
    /// Folder with `initdb` and `postgres` for the private Postgres; left out: looked for in the usual places.
    pub postgres_bin: Option<PathBuf>,
    /// How long rows are kept.
    pub retention: RetentionPeriods,
}

impl fmt::Debug for Database {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Database")
            .field("url", &self.url.as_ref().map(|_| "(hidden)"))
            .field("postgres_bin", &self.postgres_bin)
            .field("retention", &self.retention)
            .finish()
    }
}
