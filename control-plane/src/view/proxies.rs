use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How far a proxy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProxyState {
    /// Has ACKed the newest state.
    InSync,
    /// Has not ACKed all of it yet.
    Pending,
    /// Has refused something that is still wanted.
    Nacked,
}

/// One connected Envoy.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ProxyView {
    /// `node.id`.
    pub node_id: String,
    /// `node.cluster`.
    pub cluster: String,
    /// Its zone.
    pub zone: String,
    /// Since when.
    pub connected_at: DateTime<Utc>,
    /// How far it is.
    pub state: ProxyState,
    /// Responses that it took.
    pub acks: u64,
    /// Responses that it refused.
    pub nacks: u64,
    /// Resources sent on this stream, without the runtime layer, of which it is told each second.
    pub resources_sent: u64,
    /// Whether it takes the runtime layer. One that does not goes by capacity shares, whatever is predicted.
    #[serde(default)]
    pub takes_predictions: bool,
    /// The last refusal.
    pub last_nack: Option<NackView>,
}

/// A refusal.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct NackView {
    /// Resource type, for example `Cluster`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Names in the refused response.
    pub resources: Vec<String>,
    /// What Envoy said.
    pub message: String,
    /// When.
    pub at: DateTime<Utc>,
}

/// A version of a resource that many Envoys of a gateway refused. They keep the one before it until another is published.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct QuarantineView {
    /// Gateway.
    pub gateway: String,
    /// The zone whose Envoys refused it, as `region/zone`, where they have shares of their own.
    #[serde(default)]
    pub zone: Option<String>,
    /// Resource type, for example `Cluster`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Name of the resource.
    pub resource: String,
    /// Since when.
    pub since: DateTime<Utc>,
}
