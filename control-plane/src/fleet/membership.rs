use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// Whether a backend takes requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Membership {
    /// It does.
    Active,
    /// It finishes its streams and stays in the pool.
    Draining {
        /// Since when.
        since: DateTime<Utc>,
    },
    /// It finishes its streams and is removed afterwards.
    Leaving {
        /// Since when.
        since: DateTime<Utc>,
    },
}

/// Who brought a backend in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Origin {
    /// The configuration file.
    Configured,
    /// A registration through the API.
    Registered,
    /// A record in DNS.
    Dns,
}

impl Origin {
    /// Its name, as it is shown.
    pub fn name(self) -> &'static str {
        match self {
            Self::Configured => "configured",
            Self::Registered => "registered",
            Self::Dns => "dns",
        }
    }
}
