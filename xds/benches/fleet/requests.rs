//! The requests of the load client, encoded once and patched per stream and per response.

use std::collections::HashMap;

use bytes::{BufMut as _, Bytes, BytesMut};
use envoy_types::pb::envoy::config::core::v3::node::UserAgentVersionType;
use envoy_types::pb::envoy::config::core::v3::{Extension, Locality, Node};
use envoy_types::pb::google::protobuf::value::Kind;
use envoy_types::pb::google::protobuf::{Struct, Value};
use prost::Message as _;
use prost::encoding::{encode_varint, encoded_len_varint};

use crate::protocol::Variant;
use crate::resources;

/// The type that a request or a response is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    Clusters,
    Endpoints,
}

impl Subject {
    pub(crate) const fn type_url(self) -> &'static str {
        match self {
            Self::Clusters => "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            Self::Endpoints => "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
        }
    }

    pub(crate) fn of(type_url: &[u8]) -> Option<Self> {
        [Self::Clusters, Self::Endpoints]
            .into_iter()
            .find(|subject| subject.type_url().as_bytes() == type_url)
    }
}

/// Builds the requests of every stream.
#[derive(Debug)]
pub(crate) struct Requests {
    variant: Variant,
    /// A node without its id.
    node: Vec<u8>,
    /// The names of all clusters, as the field of a request.
    names: Vec<u8>,
}

impl Requests {
    /// Returns requests for this many clusters, from nodes with this many bytes of extensions.
    pub(crate) fn new(variant: Variant, clusters: usize, node_bytes: usize) -> Self {
        let mut names = Vec::new();
        // `resource_names_subscribe` and `resource_names` have the same number.
        (0..clusters).for_each(|cluster| put(&mut names, 3, resources::name(cluster).as_bytes()));
        Self { variant, node: node(node_bytes).encode_to_vec(), names }
    }

    /// The first request: a wildcard for clusters, with the node.
    pub(crate) fn first(&self, stream: usize) -> Bytes {
        let mut node = self.node.clone();
        put(&mut node, 1, format!("sidecar~10.1.0.1~app-{stream:05}.default").as_bytes());
        let mut message = Vec::with_capacity(node.len() + 128);
        put(&mut message, 1 + u32::from(self.variant == Variant::Sotw), &node);
        self.put_type_url(&mut message, Subject::Clusters);
        framed(&message)
    }

    /// Subscribes to the endpoints of every cluster.
    pub(crate) fn subscribe(&self) -> Bytes {
        let mut message = Vec::new();
        self.put_type_url(&mut message, Subject::Endpoints);
        message.extend(&self.names);
        framed(&message)
    }

    /// Acknowledges a response. In the state of the world that repeats the names, as Envoy does.
    pub(crate) fn ack(&self, subject: Subject, version: &[u8], nonce: &[u8]) -> Bytes {
        let mut message = Vec::with_capacity(256);
        if self.variant == Variant::Sotw {
            put(&mut message, 1, version);
            if subject == Subject::Endpoints {
                message.extend(&self.names);
            }
        }
        self.put_type_url(&mut message, subject);
        put(&mut message, self.nonce_field(), nonce);
        framed(&message)
    }

    fn put_type_url(&self, message: &mut Vec<u8>, subject: Subject) {
        let field = match self.variant {
            Variant::Delta => 2,
            Variant::Sotw => 4,
        };
        put(message, field, subject.type_url().as_bytes());
    }

    fn nonce_field(&self) -> u32 {
        match self.variant {
            Variant::Delta => 6,
            Variant::Sotw => 5,
        }
    }
}

fn put(message: &mut Vec<u8>, field: u32, bytes: &[u8]) {
    message.reserve(bytes.len() + encoded_len_varint(bytes.len() as u64) + 1);
    encode_varint(u64::from(field << 3 | 2), message);
    encode_varint(bytes.len() as u64, message);
    message.extend_from_slice(bytes);
}

fn framed(message: &[u8]) -> Bytes {
    let mut framed = BytesMut::with_capacity(5 + message.len());
    framed.put_u8(0);
    framed.put_u32(message.len() as u32);
    framed.put_slice(message);
    framed.freeze()
}

/// A node as a proxy tells it, without the id.
fn node(extension_bytes: usize) -> Node {
    let text = |text: &str| Value { kind: Some(Kind::StringValue(text.into())) };
    let metadata = [
        ("CLUSTER_ID", "fleet-1"),
        ("NAMESPACE", "default"),
        ("SERVICE_ACCOUNT", "app"),
        ("WORKLOAD_NAME", "app"),
    ];
    let fields: HashMap<_, _> = metadata.map(|(key, value)| (key.to_owned(), text(value))).into();
    let mut node = Node {
        cluster: "app.default".into(),
        metadata: Some(Struct { fields }),
        locality: Some(Locality { region: "region-1".into(), zone: "zone-a".into(), ..Default::default() }),
        user_agent_name: "envoy".into(),
        user_agent_version_type: Some(UserAgentVersionType::UserAgentVersion("1.40.0".into())),
        client_features: vec!["envoy.lb.does_not_support_overprovisioning".into()],
        ..Default::default()
    };
    let mut added = 0;
    while added < extension_bytes {
        let number = node.extensions.len();
        let extension = Extension {
            name: format!("envoy.filters.http.number_{number:04}"),
            category: "envoy.filters.http".into(),
            type_urls: vec![format!("envoy.extensions.filters.http.number_{number:04}.v3.Filter")],
            ..Default::default()
        };
        added += extension.encoded_len() + 2;
        node.extensions.push(extension);
    }
    node
}
