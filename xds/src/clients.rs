//! What is known of each connected client: its node, what it was sent, what it said.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::config::core::v3::node::UserAgentVersionType;

use crate::resource_type::ResourceType;
use crate::stream::Published;

/// Names kept of a refused response; a first response can hold thousands.
const MAX_NACKED_NAMES: usize = 32;

/// Characters kept of the reason that a client gives.
const MAX_NACK_MESSAGE: usize = 4096;

/// Identifies a stream for the life of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub(crate) u64);

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nack {
    /// The type of the response.
    pub resource_type: ResourceType,
    /// The resources of the response, at most 32. A client does not say which of them it refused.
    pub resources: Vec<String>,
    /// The reason that the client gave.
    pub message: String,
    /// When it came in.
    pub at: SystemTime,
}

impl Nack {
    pub(crate) fn new(resource_type: ResourceType, resources: &[Arc<str>], message: &str) -> Self {
        Self {
            resource_type,
            resources: resources.iter().take(MAX_NACKED_NAMES).map(|name| name.to_string()).collect(),
            message: message.chars().take(MAX_NACK_MESSAGE).collect(),
            at: SystemTime::now(),
        }
    }
}

/// Whether a client has what it is to have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SyncState {
    /// It has ACKed everything that it wants of the newest snapshot.
    InSync,
    /// Something is to be sent or to be ACKed, or there is no snapshot for it.
    #[default]
    Pending,
    /// It refused something of the newest snapshot.
    Nacked,
}

/// How far a client is with one type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TypeStatus {
    /// The client asked for the type.
    pub subscribed: bool,
    /// It wants all resources.
    pub wildcard: bool,
    /// Names that it wants.
    pub names: usize,
    /// Resources that it is believed to hold or to have refused.
    pub held: usize,
    /// Responses sent on this stream.
    pub responses_sent: u64,
    /// Resources sent on this stream.
    pub resources_sent: u64,
    /// Responses accepted.
    pub acks: u64,
    /// Responses refused.
    pub nacks: u64,
    /// A response is neither accepted nor refused yet.
    pub in_flight: bool,
}

/// One connected client.
#[derive(Clone, Debug)]
pub struct ClientStatus {
    /// The stream.
    pub id: ClientId,
    /// `node.id`; two streams can have the same.
    pub node_id: String,
    /// `node.cluster`.
    pub node_cluster: String,
    /// `node.locality.region`.
    pub region: String,
    /// `node.locality.zone`.
    pub zone: String,
    /// Name and version of the client's software.
    pub user_agent: String,
    /// When its first request came in.
    pub connected_at: SystemTime,
    /// The group whose snapshots it gets, if any.
    pub group: Option<Arc<str>>,
    /// Whether it has the newest snapshot.
    pub sync: SyncState,
    /// Each type, in the order of sending.
    pub types: [(ResourceType, TypeStatus); ResourceType::ALL.len()],
    /// The last refusal on this stream.
    pub last_nack: Option<Nack>,
    /// The snapshot that `sync` speaks of.
    pub(crate) snapshot_seen: Weak<Published>,
}

impl ClientStatus {
    pub(crate) fn new(id: ClientId, node: &Node) -> Self {
        let locality = node.locality.clone().unwrap_or_default();
        let version = match &node.user_agent_version_type {
            Some(UserAgentVersionType::UserAgentVersion(version)) => version.clone(),
            Some(UserAgentVersionType::UserAgentBuildVersion(build)) => {
                let version = build.version.unwrap_or_default();
                format!("{}.{}.{}", version.major_number, version.minor_number, version.patch)
            }
            None => String::new(),
        };
        Self {
            id,
            node_id: node.id.clone(),
            node_cluster: node.cluster.clone(),
            region: locality.region,
            zone: locality.zone,
            user_agent: format!("{} {version}", node.user_agent_name).trim().to_owned(),
            connected_at: SystemTime::now(),
            group: None,
            sync: SyncState::Pending,
            types: ResourceType::ALL.map(|resource_type| (resource_type, TypeStatus::default())),
            last_nack: None,
            snapshot_seen: Weak::new(),
        }
    }

    /// Responses accepted, of all types.
    pub fn acks(&self) -> u64 {
        self.types.iter().map(|(_, status)| status.acks).sum()
    }

    /// Responses refused, of all types.
    pub fn nacks(&self) -> u64 {
        self.types.iter().map(|(_, status)| status.nacks).sum()
    }

    /// Resources sent, of all types.
    pub fn resources_sent(&self) -> u64 {
        self.types.iter().map(|(_, status)| status.resources_sent).sum()
    }
}

/// Something that happened to a client.
#[derive(Clone, Debug)]
pub struct ClientEvent {
    /// The stream.
    pub client: ClientId,
    /// `node.id` of the client.
    pub node_id: Arc<str>,
    /// What happened.
    pub kind: ClientEventKind,
}

/// What happened to a client.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ClientEventKind {
    /// Its first request came in.
    Connected,
    /// Its stream ended.
    Disconnected,
    /// It accepted a response.
    Acked {
        /// The type of the response.
        resource_type: ResourceType,
        /// Since the snapshot was published, or since the client asked if that came later.
        latency: Duration,
    },
    /// It refused a response.
    Nacked(Nack),
}

/// The open streams. An entry lives as long as its stream.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    entries: Mutex<BTreeMap<ClientId, Arc<ClientEntry>>>,
}

impl Clients {
    pub(crate) fn insert(&self, status: ClientStatus) -> Arc<ClientEntry> {
        let id = status.id;
        let entry = Arc::new(ClientEntry { status: Mutex::new(status) });
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).insert(id, entry.clone());
        entry
    }

    pub(crate) fn remove(&self, id: ClientId) {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }

    pub(crate) fn all(&self) -> Vec<ClientStatus> {
        let entries: Vec<_> =
            self.entries.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        entries.iter().map(|entry| entry.read()).collect()
    }
}

/// The status of one stream, written by the stream and read by [`Clients::all`].
#[derive(Debug)]
pub(crate) struct ClientEntry {
    status: Mutex<ClientStatus>,
}

impl ClientEntry {
    pub(crate) fn update(&self, change: impl FnOnce(&mut ClientStatus)) {
        change(&mut self.status.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn read(&self) -> ClientStatus {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
