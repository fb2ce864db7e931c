use std::collections::BTreeSet;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// What a source of backends said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// These are all.
    Backends(BTreeSet<SocketAddr>),
    /// Nothing that says who is there.
    Failed(LookupFailure),
}

/// Why a lookup gave no backends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum LookupFailure {
    /// NXDOMAIN.
    #[error("{0} does not exist in DNS (NXDOMAIN)")]
    NoSuchName(String),
    /// The name is there, without records of the type.
    #[error("{0} has no records of the type that is asked for")]
    Empty(String),
    /// Nobody answered in time.
    #[error("no DNS server answered for {0} in time")]
    Timeout(String),
    /// SERVFAIL, REFUSED and the like.
    #[error("the DNS server cannot answer for {0}: {1}")]
    Server(String, String),
    /// The question could not be asked.
    #[error("cannot look up {0}: {1}")]
    Other(String, String),
    /// All addresses lie outside the pool's allowed networks.
    #[error("all addresses of {0} lie outside `allowed_networks`")]
    NotAllowed(String),
}

impl LookupFailure {
    /// Its kind, as in the metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::NoSuchName(_) => "nxdomain",
            Self::Empty(_) => "empty",
            Self::Timeout(_) => "timeout",
            Self::Server(..) => "server_failure",
            Self::Other(..) => "other",
            Self::NotAllowed(_) => "not_allowed",
        }
    }
}
