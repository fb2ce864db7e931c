//! Who sends.

use envoy_types::pb::envoy::config::core::v3::Locality;

/// A node, as far as a receiver needs it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ReportingNode {
    /// `Node.id`.
    pub id: String,
    /// `Node.cluster`.
    pub cluster: String,
    /// `Locality.region` of the node, empty if it has none.
    pub region: String,
    /// `Locality.zone`.
    pub zone: String,
    /// `Locality.sub_zone`.
    pub sub_zone: String,
}

/// The fields of `envoy.config.core.v3.Node` that are read. The others, among them a list of all extensions
/// of the proxy that makes up nearly all of the 60 kB, are passed over without being decoded.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct NodeFields {
    #[prost(string, tag = "1")]
    pub(super) id: String,
    #[prost(string, tag = "2")]
    pub(super) cluster: String,
    #[prost(message, optional, tag = "4")]
    pub(super) locality: Option<Locality>,
    #[prost(string, repeated, tag = "10")]
    pub(super) client_features: Vec<String>,
}

impl From<NodeFields> for ReportingNode {
    fn from(node: NodeFields) -> Self {
        let Locality { region, zone, sub_zone } = node.locality.unwrap_or_default();
        Self { id: node.id, cluster: node.cluster, region, zone, sub_zone }
    }
}
