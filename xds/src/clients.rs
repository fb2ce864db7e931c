//! What is known of each connected client: its node, what it was sent, what it said.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::config::core::v3::node::UserAgentVersionType;

use crate::resource_type::ResourceType;
use crate::stream::Variant;
use crate::transport::Peer;
use crate::version::Version;

/// Names kept of a refused response; a first response can hold thousands.
const MAX_NACKED_NAMES: usize = 32;

/// Characters kept of the reason that a client gives.
const MAX_NACK_MESSAGE: usize = 4096;

/// Identifies a stream for the life of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub(crate) u64);

/// The service that a client uses, and the variant of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Service {
    pub(crate) variant: Variant,
    pub(crate) only: Option<ResourceType>,
}

impl Service {
    /// True for the incremental variant, false for state of the world.
    pub fn is_delta(self) -> bool {
        self.variant == Variant::Delta
    }

    pub(crate) fn takes_endpoints(self) -> bool {
        self.only.is_none_or(|only| only == ResourceType::ClusterLoadAssignment)
    }

    /// The type of a service of one type; `None` for the aggregated service.
    pub fn only(self) -> Option<ResourceType> {
        self.only
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let service = self.only.map_or("ADS", ResourceType::service);
        f.write_str(if self.is_delta() { "delta " } else { "SotW " })?;
        f.write_str(service)
    }
}

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
    pub(crate) fn new<'a>(
        resource_type: ResourceType,
        resources: impl Iterator<Item = &'a str>,
        message: &str,
    ) -> Self {
        Self {
            resource_type,
            resources: resources.take(MAX_NACKED_NAMES).map(str::to_owned).collect(),
            message: message.chars().take(MAX_NACK_MESSAGE).collect(),
            at: SystemTime::now(),
        }
    }
}

/// A resource that many clients of a group refused. The group has what it had before, until a snapshot comes
/// without this version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quarantined {
    /// The group.
    pub group: Arc<str>,
    /// The type of the resource.
    pub resource_type: ResourceType,
    /// The resource.
    pub resource: Arc<str>,
    /// The version that is not served.
    pub version: Version,
    /// Since when.
    pub since: SystemTime,
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
    /// Which variant of the protocol it speaks, and of which service.
    pub service: Service,
    /// Where it connects from and who it has shown to be, as far as the connection tells.
    pub peer: Option<Arc<Peer>>,
}

impl ClientStatus {
    pub(crate) fn new(id: ClientId, node: &Node, service: Service, peer: Option<Arc<Peer>>) -> Self {
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
            service,
            peer,
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
