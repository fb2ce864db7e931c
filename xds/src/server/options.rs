//! Options of the server.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::Node;

use crate::stream::StreamLimits;
use crate::transport::Peer;

/// The group of a client; `None` for one that is to get nothing. The peer is known when
/// [`serve`](crate::serve) took the connection. Called when a stream begins and by
/// [`XdsServer::regroup`](crate::XdsServer::regroup), then without the node's `extensions` unless
/// [`ServerOptions::keep_extensions`] is set; must be quick.
pub type NodeGroup = Arc<dyn Fn(&Node, Option<&Peer>) -> Option<Arc<str>> + Send + Sync>;

/// Times beyond are times without end: a point in time has to be representable.
const FOREVER: Duration = Duration::from_secs(10 * 365 * 86_400);

/// Options of a server.
#[derive(Clone)]
#[non_exhaustive]
pub struct ServerOptions {
    /// Which group a client belongs to.
    pub node_group: NodeGroup,
    /// Streams open at a time; more are refused with `RESOURCE_EXHAUSTED`. 10,000 by default.
    pub max_streams: usize,
    /// Bytes of one request. 32 MiB by default: a client that comes back lists every resource it has.
    pub max_request_bytes: usize,
    /// Resource names that one stream may list; beyond, it ends with `RESOURCE_EXHAUSTED`. 500,000 by default.
    pub max_names: usize,
    /// A response without answer holds up the next one of its type for this long. 30 s by default, twice
    /// the time for which proxies usually warm a resource.
    pub ack_timeout: Duration,
    /// A removal waits this long for the ACK of what replaces the resource. 15 s by default.
    pub removal_hold: Duration,
    /// The shortest and the longest time between two wake-ups of the streams of a group in a burst of changes.
    /// 5 ms and 100 ms by default. The first change after a quiet time never waits.
    pub pace: (Duration, Duration),
    /// The share of a group's clients, at least two of them, that have to refuse a resource for the group to
    /// go back to what it had before. 0.5 by default; above 1 never.
    pub quarantine_share: f64,
    /// Whether each heartbeat of a resource with a TTL carries its content. Not by default: then those do whose
    /// client may have forgotten it, or refused the one before. With content, no delay in the network makes a client
    /// refuse a heartbeat.
    pub full_heartbeats: bool,
    /// Whether the list of extensions of each node, tens of kilobytes, is kept while it is connected. Not by
    /// default.
    pub keep_extensions: bool,
    /// Events kept for receivers that are behind. 1,024 by default.
    pub event_capacity: usize,
}

impl ServerOptions {
    /// Returns the defaults, with a function that gives the group of a node.
    pub fn new(node_group: impl Fn(&Node) -> Option<Arc<str>> + Send + Sync + 'static) -> Self {
        Self::by_client(move |node, _| node_group(node))
    }

    /// Returns the defaults, with a function that gives the group of a node that connects from a peer.
    pub fn by_client(
        node_group: impl Fn(&Node, Option<&Peer>) -> Option<Arc<str>> + Send + Sync + 'static,
    ) -> Self {
        Self {
            node_group: Arc::new(node_group),
            max_streams: 10_000,
            max_request_bytes: 32 << 20,
            max_names: 500_000,
            ack_timeout: Duration::from_secs(30),
            removal_hold: Duration::from_secs(15),
            pace: (Duration::from_millis(5), Duration::from_millis(100)),
            quarantine_share: 0.5,
            full_heartbeats: false,
            keep_extensions: false,
            event_capacity: 1024,
        }
    }

    /// Returns the defaults, with every node in one group.
    pub fn single_group(group: &str) -> Self {
        let group: Arc<str> = group.into();
        Self::new(move |_| Some(group.clone()))
    }

    pub(super) fn stream_limits(&self) -> StreamLimits {
        StreamLimits {
            ack_timeout: self.ack_timeout.min(FOREVER),
            removal_hold: self.removal_hold.min(FOREVER),
            max_names: self.max_names,
            full_heartbeats: self.full_heartbeats,
        }
    }
}

impl fmt::Debug for ServerOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerOptions")
            .field("max_streams", &self.max_streams)
            .field("max_request_bytes", &self.max_request_bytes)
            .field("max_names", &self.max_names)
            .field("ack_timeout", &self.ack_timeout)
            .field("removal_hold", &self.removal_hold)
            .field("pace", &self.pace)
            .field("quarantine_share", &self.quarantine_share)
            .field("full_heartbeats", &self.full_heartbeats)
            .field("keep_extensions", &self.keep_extensions)
            .field("event_capacity", &self.event_capacity)
            .finish_non_exhaustive()
    }
}
