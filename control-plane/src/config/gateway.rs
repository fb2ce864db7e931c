use std::net::{Ipv4Addr, SocketAddr};

use garde::Validate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::LaneRules;

/// One listener that Envoys open for clients.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
#[garde(allow_unvalidated)]
pub struct Gateway {
    /// Name of the listener.
    #[garde(length(min = 1, max = 100))]
    pub name: String,
    /// The `node.cluster` of the Envoys that open this listener. Left out: all that no other gateway names.
    #[serde(default)]
    pub node_cluster: Option<String>,
    /// Address on which Envoy accepts clients (default `127.0.0.1:10000`).
    #[serde(default = "default_listen")]
    pub listen: SocketAddr,
    /// Largest request body in bytes; the body is buffered to read its `model` field (default 8 MiB).
    #[serde(default = "default_max_body_bytes")]
    #[garde(range(min = 1024, max = 1024 * 1024 * 1024))]
    pub max_body_bytes: u32,
    /// Which of its requests can wait.
    #[serde(default)]
    pub lanes: LaneRules,
}

impl Default for Gateway {
    fn default() -> Self {
        Self {
            name: "edge".to_owned(),
            node_cluster: None,
            listen: default_listen(),
            max_body_bytes: default_max_body_bytes(),
            lanes: LaneRules::default(),
        }
    }
}

fn default_listen() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 10000))
}

/// Long prompts and images exceed Envoy's own default of 1 MiB.
fn default_max_body_bytes() -> u32 {
    8 * 1024 * 1024
}
